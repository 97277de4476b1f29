"""What server and clients hold before the first round: the nouns of :mod:`fedbbpt.round`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.black_box import BlackBox
from fedbbpt.protocols import Aggregator, Optimizer, Prompt, Task
from fedbbpt.random import stream
from fedbbpt.shielding import Shield
from fedbbpt.types import Batch, Job, RenderedPrompt


class Purse(Protocol):
    """What a job's box is charged to; see :class:`fedbbpt.budget.Account`."""

    new: list[bytes]
    dropped: int


class Vault(Protocol):
    """What a client keeps to itself, over all processes in which it works; see
    :mod:`fedbbpt.vault`.
    """

    def secret(self, account: str) -> bytes:
        """32 bytes that an account has for this run and nobody else knows; never sent."""

    def once(self, account: str, round: int, what: str, value: bytes) -> bytes:
        """The first value that an account gave this in a round."""


class Door(NamedTuple):
    """A client's way to the model during one job: the wrapped box and who pays."""

    box: BlackBox
    account: Purse


@dataclass(frozen=True)
class Client:
    """One participant.

    Attributes:
        name: unique in the federation; part of every random address.
        train, holdout, test: its examples for search, selection and the final pass.
        open: opens the door to the model for one job of one phase.
        prompt: with which it trains, where that is not everybody's.
        vault: where its secret is; needed behind shields alone.
        public: its examples are nobody's secret, so no shield stands before them.
    """

    name: str
    train: Batch
    holdout: Batch
    test: Batch
    open: Callable[[Job, Phase], Door]
    prompt: Prompt | None = None
    vault: Vault | None = None
    public: bool = False


@dataclass(frozen=True)
class Phase:
    """What a kind of job does at a client and what may leave for it.

    Attributes:
        name: named in jobs and events.
        purse: which count its queries go to: "train", "select" or "evaluation".
        sends: every field that leaves the client.
        work: (parts, client, job, box) -> (arrays to send, weight).
        writes: its box is the one that writes prompts, not the one that follows them.
        guard: what shields do with what it sends (:attr:`fedbbpt.shielding.Shield.covers`).
            ``"all"``: it passes through every one. ``"mask"``: only its sum over clients may be
            told, by a secure sum. ``"none"``: it may not be told at all where a shield promises
            anything. ``"free"``: it says nothing of an example but that it is there.
        adds: fields that are counts, of which a sum over clients is wanted and not a mean.
    """

    name: str
    purse: str
    sends: Callable[[Parts], tuple[str, ...]]
    work: Callable[[Parts, Client, Job, BlackBox], tuple[Arrays, float]]
    writes: bool = False
    guard: str = "none"
    adds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What server and clients both hold before the first round.

    Attributes:
        directions: ``"distinct"``: every client tries its own candidates; ``"shared"``: in a
            round all clients try the same, so that what does not depend on their examples is
            paid once; ``"fixed"``: the same on every client in every round (the public code).
        wire: ``"replay"``: clients send losses and the server repeats their search from them;
            ``"state"``: clients send the state fields that the merge reads.
        phases: by name.
        batch: examples that a client asks about in a step, 0 for all that it has. Which, says the
            round, or each candidate's own turn (``optimizer.turns``).
        looks: what renders each snapshot, where that is not ``prompt``.
        counts: clients count the model's own answers, see :mod:`fedbbpt.mapping`.
        studied: what clients in this process remember of replies; see :mod:`fedbbpt.modelling`.
        shields: what updates pass through before they leave, in order; see :mod:`fedbbpt.guard`.
    """

    optimizer: Optimizer[Any]
    prompt: Prompt
    task: Task
    aggregator: Aggregator
    directions: str
    wire: str
    phases: Mapping[str, Phase]
    batch: int = 0
    looks: tuple[Prompt, ...] = ()
    counts: bool = False
    shields: tuple[Shield, ...] = ()
    studied: dict[str, tuple[tuple[bytes, ...], Any]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _last: dict[str, tuple[Job, Array]] = field(default_factory=dict, repr=False, compare=False)

    def candidates(self, job: Job, client: str, step: int, state: Any) -> Array:
        """What a client asks about in a step; shared candidates are made once for all."""
        if self.directions != "shared" or step:
            return self.optimizer.ask(state, self.generator(job, client, step))
        last = self._last.get("shared")
        # Every client gets the very same job, so identity is enough and cannot be stale.
        if last is None or last[0] is not job:
            last = (job, self.optimizer.ask(state, self.generator(job, client, step)))
            self._last["shared"] = last
        return last[1]

    def generator(self, job: Job, client: str, step: int) -> np.random.Generator:
        """The numbers behind one ask."""
        round = 0 if self.directions == "fixed" else job.round
        name = client if self.directions == "distinct" else None
        return stream(job.seed, "search", round, name, step)

    def snapshots(self, points: Array) -> list[RenderedPrompt]:
        """Snapshots as prompts; the first is the starting prompt."""
        if not self.looks:
            return self.prompt.render(points)
        each = zip(self.looks, points, strict=True)
        return [prompt for look, point in each for prompt in look.render(point[None])]

    def broadcast(self, state: Any) -> Arrays:
        """What every client gets of the server's state."""
        return {name: np.asarray(getattr(state, name)) for name in self.optimizer.shares}

    def receive(self, arrays: Arrays) -> Any:
        """A client's state at the start of a round."""
        sent = {name: arrays[name] for name in self.optimizer.shares if name in arrays}
        return self.optimizer.init(self.prompt.space)._replace(**sent)


def zero(prompt: Prompt) -> RenderedPrompt:
    """What a prompt is before anything was learned."""
    return prompt.render(np.zeros((1, *prompt.space.shape)))[0]
