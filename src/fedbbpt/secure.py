"""A secure sum as jobs: what clients tell each other through the server, and what it makes of it.

    advertise   server → nothing;                 client → public keys
    share       server → all public keys;         client → sealed shares, for each of the others
    the phase   server → its job and all of that; client → words, uniform to the server
    answer      server → whose words came;        client → shares of what masks are left

A client works in a new process for every message: all that it needs is its secret and the job. It
keeps only the words that it sent and what it answered, once and for all in a round: two different
answers could be put together to bare its words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays, wire_bytes
from fedbbpt.black_box import BlackBox
from fedbbpt.errors import Refused
from fedbbpt.parts import Client, Parts, Phase, Vault
from fedbbpt.protocols import Engine
from fedbbpt.shielding import Layout, Messages, Seat, SecureSum, Shield, protect
from fedbbpt.types import Job, Update, digest

EVERYBODY = "(all)"
"""In whose name the sum is."""

ADVERTS, SHARES = ("share_key", "mask_key"), ("sealed", "commitment")
SUM, SHAPE = "sum ", "shape of "
"""In front of what clients are told of each other, and of how their words are to be read."""


def summing(shields: Sequence[Shield]) -> SecureSum | None:
    """The one that makes a secure sum, if there is one."""
    return next((shield for shield in shields if isinstance(shield, SecureSum)), None)


# --- at the client -------------------------------------------------------------------------------


def advertise(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Public keys for this round."""
    return _mask(parts).advertise(_seat(client, job)), 1.0


def share(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Shares of two secrets, sealed for each of the others."""
    return _mask(parts).share(_seat(client, job), _unpacked(job, ADVERTS)), 1.0


def answer(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """What the sum over those whose words came needs."""
    known, about = _agreed(parts, client, job)
    summed = _names(job.arrays, "summed")
    said = json.dumps([about.hex(), summed]).encode()
    kept = _vault(client).once(client.name, job.round, "answer", said)
    before, answered = json.loads(kept)
    if before != about.hex():
        raise Refused(f"{client.name} has answered in this round for other sites")
    return known.answer(summed, answered), 1.0


PHASES = {
    phase.name: phase
    for phase in (
        Phase("advertise", "train", lambda _: ADVERTS, advertise, guard="free"),
        Phase("share", "train", lambda _: SHARES, share, guard="free"),
        Phase("answer", "train", lambda _: ("shares",), answer, guard="free"),
    )
}


def covered(
    parts: Parts,
    client: Client,
    job: Job,
    shields: Sequence[Shield],
    arrays: Arrays,
    weight: float,
) -> Arrays:
    """``words``, and the shapes of the fields in them, in place of all fields.

    Args:
        parts: of the federation.
        client: whose update it is.
        job: with what the others have said.
        shields: that it passes through, the secure sum last.
        arrays, weight: as they would leave.

    Raises:
        Refused: the sites have agreed on nothing, or other words have left in this round.
    """
    known, about = _agreed(parts, client, job)
    front, secret = tuple(shields[:-1]), _vault(client).secret(client.name)
    arrays = protect(front, arrays, weight, secret, job.round)
    shapes = {SHAPE + name: np.array(array.shape, np.int64) for name, array in arrays.items()}
    words = protect((known,), arrays, weight, secret, job.round)["words"]
    kept = _vault(client).once(client.name, job.round, "words", about + words.tobytes())
    if kept[: len(about)] != about or len(kept) != len(about) + words.nbytes:
        raise Refused(f"{client.name} has sent its words in this round to other sites")
    # What it computed now may differ in a last bit; a second message must not.
    return {"words": np.frombuffer(kept[len(about) :], np.uint64), **shapes}


def _mask(parts: Parts) -> SecureSum:
    mask = summing(parts.shields)
    if mask is None:
        raise Refused("the server asks for a secure sum, which the config does not name")
    return mask


def _vault(client: Client) -> Vault:
    if client.vault is None:
        raise Refused(f"{client.name} has no secret, so it can shield nothing")
    return client.vault


def _seat(client: Client, job: Job) -> Seat:
    return Seat(client.name, job.round, _vault(client).secret(client.name))


def _agreed(parts: Parts, client: Client, job: Job) -> tuple[SecureSum, bytes]:
    """The shield as the sites have agreed on it, and a digest of what was said."""
    adverts, shares = _unpacked(job, ADVERTS), _unpacked(job, SHARES)
    said = sorted(name for name in job.arrays if name.startswith(SUM) and name != SUM + "summed")
    about = digest(*(part for name in said for part in (name, job.arrays[name].tobytes())))
    return _mask(parts).agree(_seat(client, job), adverts, shares), about


# --- at the server -------------------------------------------------------------------------------


class Summed(NamedTuple):
    """What came of a secure sum.

    Attributes:
        update: of everybody: weighted means of the fields, and the sum of the weights; nothing if
            the sum was given up.
        sent: of each client all that it sent, in one update; its weight is 0 if it said that it
            had nothing to add.
        down: bytes that each client was sent besides the job.
        failure: why it was given up, if not because nobody had anything to add.
    """

    update: Update | None
    sent: list[Update]
    down: int
    failure: str = ""


def summed(parts: Parts, engine: Engine, job: Job, clients: Sequence[str]) -> Summed:
    """A job whose updates the server learns the sum of, and nothing else.

    A client that is lost on the way is left out, and its masks are recovered. With too few left
    the sum is given up: nothing was learned.

    Args:
        parts: of the federation; its secure sum says how many are enough.
        engine: carries the messages.
        job: prepared, with its arrays.
        clients: who is asked.
    """
    mask, talk = _mask(parts), _Talk(_mask(parts), engine, job)
    try:
        adverts = talk.ask("advertise", {}, clients)
        enough = mask.needed(len(adverts))
        known = _packed(adverts, ADVERTS, enough, "advertised keys")
        shares = talk.ask("share", known, sorted(adverts))
        known |= _packed(shares, SHARES, enough, "shared keys")
        words = talk.ask(job.phase, {**job.arrays, **known}, sorted(shares))
        if not any(one.weight for one in talk.heard.values()):
            return Summed(None, talk.sent(clients), talk.down)
        known[SUM + "summed"] = _listed(words, enough, "sent words")
        answers = talk.ask("answer", known, sorted(words))
        said = (job.round, adverts, shares, words, answers)
        with _judging():
            arrays, weight = mask.mean(*said, _layout(words))
    except _GivenUp as failure:
        why = f"the sum over clients was given up: {failure}"
        return Summed(None, talk.sent(clients), talk.down, why)
    adds = parts.phases[job.phase].adds
    arrays = {name: array * weight if name in adds else array for name, array in arrays.items()}
    return Summed(Update(EVERYBODY, job.round, weight, arrays), talk.sent(clients), talk.down)


class _GivenUp(Exception):
    """The server cannot make a sum of what came."""


@contextmanager
def _judging() -> Iterator[None]:
    """What came is at fault, and not what leaves a client of this process."""
    try:
        yield
    except Refused as fault:
        raise _GivenUp(str(fault)) from None


@dataclass
class _Talk:
    """The messages of one secure sum."""

    mask: SecureSum
    engine: Engine
    job: Job
    down: int = 0
    heard: dict[str, Update] = field(default_factory=dict)

    def ask(self, phase: str, arrays: Arrays, clients: Sequence[str]) -> dict[str, Arrays]:
        """What clients answer, without those who have nothing to say."""
        job = replace(self.job, phase=phase, arrays=arrays)
        if phase == self.job.phase:  # another object, of which an engine has to know
            job = self.engine.prepare(job)
        updates = self.engine.map(job, clients)
        self.down += wire_bytes(arrays) - wire_bytes(self.job.arrays) * (phase == self.job.phase)
        for update in updates:
            before = self.heard.get(update.client)
            self.heard[update.client] = update if before is None else _both(before, update)
        said = ((one.client, one.arrays) for one in updates if one.weight > 0)
        with _judging():
            return self.mask.gathered(said, clients)

    def sent(self, clients: Sequence[str]) -> list[Update]:
        return [self.heard[name] for name in clients if name in self.heard]


def _both(one: Update, other: Update) -> Update:
    """Two messages of a client as one."""
    return replace(
        other,
        arrays={**one.arrays, **other.arrays},
        weight=min(one.weight, other.weight),
        queries=one.queries + other.queries,
        dropped=one.dropped + other.dropped,
        seconds=one.seconds + other.seconds,
        common=max(one.common, other.common),
        paid=one.paid + other.paid,
    )


def _layout(words: Messages) -> Layout:
    """Shapes on which all agree; Refused if they do not."""
    layouts = {name: _shapes(message) for name, message in words.items()}
    first = min(layouts)
    for name in sorted(layouts):
        if layouts[name] != layouts[first]:
            raise Refused(f"{name} sent words of other fields than {first}")
    return layouts[first]


def _shapes(message: Arrays) -> Layout:
    shapes = {k.removeprefix(SHAPE): v for k, v in message.items() if k.startswith(SHAPE)}
    if not all(v.dtype.kind == "i" and v.ndim == 1 and (v >= 0).all() for v in shapes.values()):
        return {}  # no words fit that
    return {name: tuple(shape.tolist()) for name, shape in shapes.items()}


# --- on the wire ---------------------------------------------------------------------------------


def _packed(messages: Messages, fields: Sequence[str], enough: int, did: str) -> Arrays:
    """Messages of all, field by field, clients by name; _GivenUp if there are too few, or one is of
    another form than the first.
    """
    packed = {f"{SUM}{fields[0]} of": _listed(messages, enough, did)}
    for name in fields:
        rows = {client: messages[client].get(name) for client in sorted(messages)}
        forms = {client: None if r is None else (r.shape, r.dtype) for client, r in rows.items()}
        first = min(forms)
        for client, form in forms.items():
            if form is None or form != forms[first]:
                raise _GivenUp(f"{client} sent {name} of another form than {first}")
        packed[SUM + name] = np.stack([row for row in rows.values() if row is not None])
    return packed


def _listed(messages: Messages, enough: int, did: str) -> Array:
    if len(messages) < enough:
        raise _GivenUp(f"{len(messages)} sites {did}; a secure sum needs {enough}")
    return np.frombuffer(json.dumps(sorted(messages)).encode(), np.uint8)


def _names(arrays: Mapping[str, Array], name: str) -> list[str]:
    packed = arrays.get(SUM + name)
    if packed is None:
        raise Refused("the sites have agreed on no masks for this round, so nothing leaves")
    return [str(client) for client in json.loads(packed.tobytes())]


def _unpacked(job: Job, fields: Sequence[str]) -> dict[str, Arrays]:
    """Inverse of :func:`_packed`."""
    clients = _names(job.arrays, f"{fields[0]} of")
    rows = {name: job.arrays[SUM + name] for name in fields}
    return {client: {name: rows[name][at] for name in fields} for at, client in enumerate(clients)}
