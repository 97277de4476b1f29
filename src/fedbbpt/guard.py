"""What leaves a client: through the shields, past them, or not at all; and what the server reads.

A shield that promises something (noise: epsilon; mask: only sums) promises it of the whole run. So
what it does not cover does not leave, and it is the client that sees to it: see
:attr:`fedbbpt.parts.Phase.guard`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import Refused
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.protocols import Engine
from fedbbpt.secure import EVERYBODY, covered, summed, summing
from fedbbpt.shielding import Shield, moved, placed, protect, revealed
from fedbbpt.types import Job, Update

CENTRED = "centred"
"""Losses of a step less their mean: how a client's candidates compare, and not how it fares."""

Admit = Callable[[Parts, Job, list[Update]], tuple[list[Update], list[tuple[str, str]]]]


def silent(parts: Parts, phase: Phase) -> bool:
    """Whether nothing private may leave in a phase: a shield promises what it does not cover."""
    return phase.guard != "free" and any(
        shield.promises and phase.guard not in shield.covers for shield in parts.shields
    )


def passed(parts: Parts, phase: Phase) -> tuple[Shield, ...]:
    """The shields that the fields of a phase pass through, in order."""
    return tuple(shield for shield in parts.shields if phase.guard in shield.covers)


# --- at the client -------------------------------------------------------------------------------


def leaving(
    parts: Parts, client: Client, job: Job, arrays: Arrays, weight: float
) -> tuple[Arrays, float]:
    """What leaves of an update, and the weight with which it is merged.

    Where noise is added all clients weigh the same, so that a weight tells nothing and the noise of
    none counts more than another's. Losses that are not known, which a shield could not hide,
    become the mean of their step's others.

    Raises:
        Refused: there is a value that cannot be shielded, or no secret to do it with.
    """
    phase = parts.phases[job.phase]
    shields = passed(parts, phase)
    if client.public or not shields:
        return arrays, weight
    if phase.guard == "all":
        arrays = _shieldable(parts, job, arrays)
    if not weight > 0 or not arrays:
        return {}, 0.0
    arrays = {n: a / weight if n in phase.adds else a for n, a in arrays.items()}
    if any(shield.levels for shield in shields):
        weight = 1.0
    if summing(shields):
        return covered(parts, client, job, shields, arrays, weight), 1.0
    if client.vault is None:
        raise Refused(f"{client.name} has no secret, so it can shield nothing")
    secret = client.vault.secret(client.name)
    return protect(shields, arrays, weight, secret, job.round), weight


def _shieldable(parts: Parts, job: Job, arrays: Arrays) -> Arrays:
    """State fields as what was moved; losses without holes, and centred where they are bounded."""
    if parts.wire == "state":
        return moved(arrays, job.arrays)
    losses = np.asarray(arrays["losses"], np.float64)
    if any(shield.passes for shield in parts.shields):
        return {CENTRED: _filled(losses - _means(losses))} if losses.size else {}
    return {"losses": _filled(losses)} if np.isfinite(losses).any() else {}


def _means(losses: Array) -> Array:
    """(steps, 1) of what was answered, 0 where nothing was."""
    answered = np.isfinite(losses)
    total = np.where(answered, losses, 0.0).sum(axis=1, keepdims=True)
    return np.asarray(total / answered.sum(axis=1, keepdims=True).clip(min=1))


def _filled(losses: Array) -> Array:
    return np.where(np.isfinite(losses), losses, _means(losses))


# --- at the server -------------------------------------------------------------------------------


class Came(NamedTuple):
    """What came back for a job.

    Attributes:
        updates: that were let in, as they are merged: of each client, or their sum.
        refused: (client, reason) of those that were not, or why a sum was given up.
        sent: of each client that was let in what crossed the wire.
        down: bytes that each client was sent besides the job.
    """

    updates: list[Update]
    refused: Sequence[tuple[str, str]]
    sent: list[Update]
    down: int = 0


def exchange(
    parts: Parts, engine: Engine, job: Job, clients: Sequence[str], admit: Admit, open: bool = False
) -> Came:
    """A job to some clients, and what the server may read of their updates.

    Args:
        parts: of the federation.
        engine: carries the job.
        job: prepared, with its arrays.
        clients: who is asked.
        admit: lets updates in one by one; of a sum there is nothing to look at but the sum.
        open: the clients' examples are public.
    """
    if open or not summing(passed(parts, parts.phases[job.phase])):
        sent = engine.map(job, clients)
        read = [opened(parts, job, update) for update in sent]
        updates, refused = admit(parts, job, read)
        as_sent = {update.client: update for update in sent}
        return Came(updates, refused, [as_sent[update.client] for update in updates])
    if not job.steps:  # nobody could pay for anything
        return Came([], (), [])
    update, sent, down, failure = summed(parts, engine, job, clients)
    updates = [] if update is None else [opened(parts, job, update)]
    return Came(updates, [(EVERYBODY, failure)] if failure else (), sent, down)


def opened(parts: Parts, job: Job, update: Update) -> Update:
    """An update, or a mean of some, as it was before it passed the shields, as far as that can be
    known.
    """
    if not parts.shields or parts.phases[job.phase].guard != "all" or not update.weight > 0:
        return update
    arrays = dict(revealed(parts.shields, update.arrays))
    if parts.wire == "state":
        arrays = placed(arrays, job.arrays)
    elif CENTRED in arrays:
        arrays["losses"] = arrays.pop(CENTRED)
    return replace(update, arrays=arrays)
