"""Every message that a run will ask of a client, once, among stand-ins that ask no model.

So what is said to leave is what does leave: each phase does its own work at stand-ins that hold a
few examples of the site's, behind the shields of the config, and only what the model would answer
is made up. Sizes do not depend on that, except where texts are sent; there the longest are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays, wire_bytes
from fedbbpt.black_box import Wrapper
from fedbbpt.budget import Budget
from fedbbpt.build import Federation
from fedbbpt.counting import FINAL, SEARCH, agree
from fedbbpt.gather import VOCABULARY
from fedbbpt.guard import exchange, silent
from fedbbpt.needs import trials
from fedbbpt.parts import Client, Door, Parts
from fedbbpt.proposals import NEAR
from fedbbpt.proposing import PROPOSE
from fedbbpt.protocols import Engine
from fedbbpt.random import stream
from fedbbpt.round import work
from fedbbpt.secure import summing
from fedbbpt.sharing import TESTER
from fedbbpt.types import Batch, Job, RenderedPrompt, Reply, Update

FEW = 64
"""Examples of a stand-in; no size depends on them."""
MOST = 16
"""Stand-ins; of a larger secure sum the messages with a row for each client grow as it does."""
ROWS = ("sealed", "shares")
"""Fields with a row for each client of a secure sum."""
WIDEST = 4
"""Bytes of a character in UTF-8, at most."""


class Message(NamedTuple):
    """The largest that a client sends in a phase; nothing where shields keep the phase silent."""

    phase: str
    arrays: Arrays

    @property
    def bytes(self) -> int:
        """On the wire, without the envelope of whatever carries it."""
        return wire_bytes(self.arrays) if self.arrays else 0


def messages(federation: Federation) -> list[Message]:
    """What leaves a client in each phase that this federation goes through, in order.

    Args:
        federation: as built; it is not changed, and its model is asked nothing.

    Raises:
        FedbbptError: what a run would refuse in its first round.
    """
    stage = _Stage(federation)
    if VOCABULARY.name in federation.gathered.phases:
        stage.note(VOCABULARY.name, _named(federation))
    stage.ask("setup", {})
    if federation.baseline is not None:
        _fitted(federation, stage)
    else:
        _searched(federation, stage)
    return [Message(phase, arrays) for phase, arrays in stage.seen.items()]


# --- the stand-ins -------------------------------------------------------------------------------


class _Blank(Wrapper):
    """The box as far as prompts and examples are made for it; every answer is made up."""

    def evaluate(self, atoms: Sequence[Any], wanted: Sequence[int]) -> list[Array]:
        """Never asked: answers are whole."""
        raise AssertionError("a stand-in asked the model")

    def __call__(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Reply:
        """All classes alike, or no word."""
        size = len(prompts), len(examples)
        own = None
        if not prompts or ("classes" in self.gives and len(prompts) == 1):
            own = np.full((size[1], self.hidden), -np.log(max(1, self.hidden)))
        if not prompts:
            return Reply(np.zeros((0, size[1], 0)), own)
        count = len(prompts[0].labels)
        if not count and prompts[0].side != "image":
            texts = tuple(("",) * size[1] for _ in prompts)
            return Reply(np.zeros((*size, 0)), texts=texts)
        return Reply(np.full((*size, count), -np.log(max(1, count))), own)

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """A slope of zeros."""
        return 1.0, np.zeros((len(prompt.soft), *prompt.soft[0].shape))


class _Secrets:
    """A vault that nobody has to keep."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, int, str], bytes] = {}

    def secret(self, account: str) -> bytes:
        """Anything will do."""
        return account.encode().ljust(32, b"\0")[:32]

    def once(self, account: str, round: int, what: str, value: bytes) -> bytes:
        """The first value."""
        return self._said.setdefault((account, round, what), value)


class _Stage(Engine):
    """An engine of stand-ins that keeps the largest message of every phase.

    Attributes:
        seen: by phase, in the order in which they were first asked.
    """

    def __init__(self, federation: Federation) -> None:
        self.config, self.split = federation.config, federation.split
        self.parts, self._box = federation.parts, _Blank(federation.box)
        self.seen: dict[str, Arrays] = {}
        active = self.config.rounds.clients_per_round or len(federation.clients)
        mask = summing(self.parts.shields)
        self.active = max(active, mask.needed(active)) if mask else active
        enough = mask.needed(min(self.active, MOST)) if mask else 2
        names = [f"stand-in {i}" for i in range(max(2, enough, min(self.active, MOST)))]
        self.clients = {name: self._client(name) for name in names}

    @property
    def names(self) -> list[str]:
        """Of all stand-ins."""
        return list(self.clients)

    def _client(self, name: str) -> Client:
        split, vault = self.split, _Secrets()
        train, holdout, test = (
            next((batch for batch in each.values() if batch.size), _NOTHING)
            for each in (split.train, split.holdout, split.test)
        )

        def open(job: Job, phase: Any) -> Door:
            return Door(self._box, Budget(1).open(phase.purse, name))

        return Client(name, _few(train), _few(holdout), _few(test), open, vault=vault)

    def map(self, job: Job, clients: Sequence[str]) -> list[Update]:
        """Work as clients do it, noted."""
        updates = [work(self.parts, self.clients[name], job) for name in clients]
        for update in updates:
            self.note(job.phase, update.arrays)
        return updates

    def note(self, phase: str, arrays: Mapping[str, Array]) -> None:
        """Keep it if it is the largest."""
        whole = {name: self._for_all(name, array) for name, array in arrays.items()}
        if phase not in self.seen or wire_bytes(whole) > wire_bytes(self.seen[phase]):
            self.seen[phase] = whole

    def ask(self, phase: str, arrays: Arrays, steps: int = 1) -> None:
        """A job to all, with whatever messages a secure sum takes."""
        declared = self.parts.phases[phase]
        if silent(self.parts, declared):
            self.note(phase, {})
            return
        # A round of its own: a client says one thing in a round, and no other.
        job = Job(phase, len(self.seen), steps, self.config.run.seed, arrays)
        came = exchange(self.parts, self, job, self.names, lambda _, __, each: (each, []))
        for _, reason in came.refused:
            raise AssertionError(f"stand-ins could not do {phase}: {reason}")

    def plainly(self, phase: str, arrays: Arrays, clients: Sequence[str]) -> list[Update]:
        """A job whose updates somebody wants to see."""
        return self.map(Job(phase, 0, 1, self.config.run.seed, arrays), clients)

    def _for_all(self, name: str, array: Array) -> Array:
        if name not in ROWS or self.active <= len(self.clients):
            return array
        return np.zeros((self.active, *array.shape[1:]), array.dtype)

    # --- fedbbpt.baselines.Exchange --------------------------------------------------------------

    @property
    def classes(self) -> int:
        """C."""
        return len(self.split.classes)

    @property
    def hidden(self) -> int:
        """H of the box's embeddings."""
        return self._box.hidden

    def holders(self, kind: str) -> list[str]:
        """All, if any site is one; what the server itself holds leaves nobody."""
        held: Mapping[str, Batch] = getattr(self.split, kind)
        some = any(batch.size for name, batch in held.items() if name != TESTER)
        return self.names if some else []


def _few(batch: Batch) -> Batch:
    return batch.take(range(min(FEW, batch.size)))


_NOTHING = Batch((), np.zeros(0, np.int64))


# --- what is played ------------------------------------------------------------------------------


class _Exchange:
    """A baseline's way to stand-ins."""

    def __init__(self, stage: _Stage) -> None:
        self._stage, self.classes, self.hidden = stage, stage.classes, stage.hidden
        self.holders, self.ask = stage.holders, stage.plainly


def _fitted(federation: Federation, stage: _Stage) -> None:
    assert federation.baseline is not None
    fitted = federation.baseline.fit(_Exchange(stage))
    if stage.holders("test"):
        start = np.zeros((1, *stage.parts.prompt.space.shape))
        stage.ask(federation.baseline.evaluate, {"points": start, **fitted})


def _searched(federation: Federation, stage: _Stage) -> None:
    config, parts = federation.config, stage.parts
    if parts.counts:
        _counted(stage, config.prompt.mapping == "learned", SEARCH)
    if parts.prompt.writing is not None:
        stage.note(PROPOSE.name, {} if silent(parts, PROPOSE) else _written(parts))
        stage.parts = replace(parts, prompt=_grown(federation, parts))
    space = stage.parts.prompt.space
    state = parts.optimizer.init(space)
    state = parts.optimizer.plan(state, stream(config.run.seed, "plan", 0))
    stage.ask("search", stage.parts.broadcast(state), config.rounds.steps)
    if "look" in parts.phases and stage.holders("holdout"):
        stage.ask("look", {"points": np.zeros((2, *space.shape))})
    # The start, one at each of its times, the last, and the start again under another mapping.
    points = {"points": np.zeros((config.method.snapshots + 2 + parts.counts, *space.shape))}
    if stage.holders("holdout"):
        stage.ask("select", points)
        if parts.counts:
            _counted(stage, config.prompt.mapping == "learned", FINAL)
    if stage.holders("test"):
        stage.ask("evaluate", points)


def _counted(stage: _Stage, learned: bool, exchanges: Any) -> None:
    start = np.zeros(stage.parts.prompt.space.shape)
    agree(stage.plainly, start, stage.names, learned, exchanges)


def _written(parts: Parts) -> Arrays:
    """As many and as long instructions as a client may ever send at a time."""
    writing = parts.prompt.writing
    assert writing is not None
    asked = 1 + NEAR * bool(writing.again) if writing.writer == "pool" else 1
    number = writing.proposals * asked
    return {
        "texts": np.zeros(number * (WIDEST * writing.longest + 1), np.uint8),
        "rows": np.zeros(number, np.int64),
        "refused": np.zeros(4, np.int64),
    }


def _grown(federation: Federation, parts: Parts) -> Any:
    """The prompt over a pool that is large enough for a whole step."""
    width = parts.prompt.space.shape
    number = 2 + trials(federation) * federation.config.rounds.steps
    steps = np.arange(number, dtype=np.float64).reshape(-1, *[1] * len(width))
    texts = [*parts.prompt.texts, *(f"made up {i}" for i in range(1, number))]
    return parts.prompt.grown(texts, steps * np.ones(width))


def _named(federation: Federation) -> Arrays:
    """Hashes of all words that a client holds, and the text of all: more cannot be wanted."""
    nothing: Any = None
    largest: Arrays = {}
    for name in federation.clients:
        train = federation.split.train[name]
        client = Client(name, train, _NOTHING, _NOTHING, nothing)
        job = Job(VOCABULARY.name, 0, 1, federation.config.run.seed)
        hashes, _ = VOCABULARY.work(federation.parts, client, job, nothing)
        wanted = replace(job, arrays={"wanted": hashes["hashes"]})
        texts, _ = VOCABULARY.work(federation.parts, client, wanted, nothing)
        largest = max(largest, {**hashes, **texts}, key=wire_bytes)
    return largest
