"""The nouns: what is asked, what comes back, and what travels. All of it is immutable data.

Shapes are named throughout: K candidates, B examples, C classes (choices), T tokens, H the box's
hidden size, and ``*shape`` the shape of a point.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedbbpt.arrays import Array, Arrays

# --- what is asked -------------------------------------------------------------------------------


class Space(NamedTuple):
    """What an optimiser moves.

    Attributes:
        kind: ``"real"`` for unbounded numbers, ``"categorical"`` for one choice per row,
            ``"pool"`` for one of finitely many ``points`` (embeddings of candidates, say). An
            optimiser lists the kinds it can search.
        shape: shape of one point. The zero point is always the starting prompt.
        separable: the rows of a point may be tried one at a time, because a candidate for one
            row leaves the scores of the others untouched (one prompt per class on a label side).
        points: (N, *shape) of a pool; more may come at the end, the first is the zero point.
    """

    kind: str
    shape: tuple[int, ...]
    separable: bool = False
    points: Array | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """One image; compared by identity, its content has :attr:`key`.

    Attributes:
        pixels: (H, W, 3) uint8, red, green, blue, as large as it was read.
        name: its file, for messages at home; it never leaves.
    """

    pixels: Array
    name: str = ""

    @cached_property
    def key(self) -> bytes:
        """Digest of the pixels."""
        return digest(repr(self.pixels.shape), self.pixels.tobytes())


class Pixels(Protocol):
    """What a visual prompt does to pictures."""

    @property
    def key(self) -> bytes:
        """Digest of all that decides it."""

    @property
    def arrays(self) -> Arrays:
        """What was learned, to be kept."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else is needed to make it again, as JSON has it; "prompt" is the plug-in's name."""

    def on(self, images: Array, pictures: Sequence[Picture]) -> Array:
        """The prompted images, in range.

        Args:
            images: (B, H, W, 3) float32 in [0, 1], as large as the model wants them.
            pictures: the B pictures they were made of.
        """


@dataclass(frozen=True, eq=False)
class RenderedPrompt:
    """One prompt as a box receives it; compared by identity, its content has :attr:`keys`.

    Attributes:
        template: on the label side a text with ``{label}``; on the text side one with ``{text}``.
            Of pictures ``{label}`` again, or nothing where labels go as they are.
        labels: one text per class, in class order; none asks for an answer in words.
        side: ``"label"`` or ``"text"``: which of the two the template wraps; ``"image"`` where
            what is prompted is a picture.
        soft: nothing, one (T, H) float32 matrix for all classes, or one such matrix per class.
        mode: ``"add"``: row t of ``soft`` is added to the embedding of the template's t-th own
            token; ``"insert"``: the T rows are new embeddings put in front of the template.
        tokens: nothing, one tuple of ids of the box's vocabulary for all classes, or one tuple
            per class (label side only).
        place: ``"before"``: the tokens stand in front of the template, right behind the first
            special token; ``"after"``: right behind what fills the gap, after its last token.
        visual: what is done to pictures, or ``None``.
        mapping: (C, S) float32 log-probabilities of the S classes that the model knows given each
            class of the task, where the labels do not say it (:mod:`.maths.label_mapping`).
    """

    template: str
    labels: tuple[str, ...]
    side: str = "label"
    soft: tuple[Array, ...] = ()
    mode: str = "add"
    tokens: tuple[tuple[int, ...], ...] = ()
    place: str = "before"
    visual: Pixels | None = None
    mapping: Array | None = None

    @property
    def kind(self) -> str:
        """What a box must accept to take it: ``"image"``, ``"soft"``, ``"tokens"``, ``"text"``."""
        if self.side == "image":
            return "image"
        return "soft" if self.soft else "tokens" if any(self.tokens) else "text"

    def tokens_of(self, which: int = 0) -> tuple[int, ...]:
        """The tokens that class ``which`` sees."""
        return self.tokens[which if len(self.tokens) > 1 else 0] if self.tokens else ()

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """Digest of the prompt as class c sees it, for every class (the label text left out); one
        where an answer in words is asked for.
        """
        several = max(len(self.soft), len(self.tokens)) > 1
        keys = [self._key(c) for c in range(len(self.labels) if several else 1)]
        return tuple(keys if several else keys * max(1, len(self.labels)))

    def _key(self, which: int) -> bytes:
        soft = self.soft[which if len(self.soft) > 1 else 0].tobytes() if self.soft else b""
        ids = self.tokens_of(which)
        # Where they would stand is nothing to a class without tokens.
        frame = (self.template, self.side, self.mode, ids, self.place if ids else "")
        return digest(repr(frame), soft + (self.visual.key if self.visual else b""))


class Batch(NamedTuple):
    """Examples of one client: what the box sees, and what only the task sees.

    Attributes:
        inputs: B inputs (texts, or :class:`Picture`).
        targets: (B,) class indices, int64; or numbers in [0, 1], for a task with numbers; or tuples
            of reference answers, object, for a task with words.
    """

    inputs: tuple[Any, ...]
    targets: Array

    @property
    def size(self) -> int:
        """Number of examples B (``len`` of a NamedTuple counts its fields)."""
        return len(self.inputs)

    def joined(self, other: Batch) -> Batch:
        """These examples and behind them the others."""
        targets = np.concatenate([self.targets, other.targets])
        return Batch((*self.inputs, *other.inputs), targets)

    def take(self, rows: Sequence[int] | Array) -> Batch:
        """The examples at these positions, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return Batch(tuple(self.inputs[i] for i in index), self.targets[index])


# --- the box -------------------------------------------------------------------------------------


class Atom(NamedTuple):
    """The smallest thing a box evaluates, the unit of cost: one row through the model.

    Attributes:
        key: digest of everything that can change the answer, the box's name included.
        data: whatever the box needs to evaluate it; never stored.
    """

    key: bytes
    data: Any


NO_LABEL = -100.0
"""The score of every class where the model answered and named none: wrong, whatever is right."""


@dataclass(frozen=True)
class Reply:
    """A box's answer to a grid of prompts and examples.

    Attributes:
        scores: (K, B, C) log-probabilities of the classes, float64. Rows that the model could
            not answer hold NaN, rows of an answer without a label ``NO_LABEL``.
        embeddings: (B, H) of the bare examples, where the box gives them and no prompt was sent;
            of a classifier also of the examples within the one prompt that was sent.
        texts: K x B replies in words, None where there is no answer, if the prompt asked for words.
    """

    scores: Array
    embeddings: Array | None = None
    texts: tuple[tuple[str | None, ...], ...] | None = None


class Receipt(NamedTuple):
    """One request over a wire, answered or not.

    Attributes:
        at: unix time at which it was sent.
        status: HTTP status; 0 without a reply.
        prompt_tokens, completion_tokens: as billed.
        usd: price by the user's table; 0 where nothing was billed or no price is known.
        seconds: until the reply was whole.
        named: whether the reply named one of the labels, if there is a reply.
        writes: it asked for prompts to be written, not for an answer.
    """

    at: float
    status: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    named: bool = True
    writes: bool = False


class Grid(NamedTuple):
    """A grid *prompts x examples* as distinct atoms, and the way back from rows to a reply."""

    atoms: tuple[Atom, ...]
    assemble: Callable[[Sequence[Array]], Reply]


# --- messages --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One message down, the same for every client (each reads its own quota).

    Attributes:
        phase: name of the phase.
        round: round number, 0-based.
        steps: local ask/tell steps.
        seed: the run's seed, from which all addressed randomness comes.
        arrays: what the phase needs (a state, points, ...).
        quotas: training queries that each client may still spend; no entry, no limit.
    """

    phase: str
    round: int
    steps: int
    seed: int
    arrays: Arrays = field(default_factory=dict)
    quotas: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """One message up.

    Attributes:
        client: who sends it.
        round: which round it answers.
        weight: number of examples behind it.
        arrays: the fields that the phase declares, nothing else.
        queries: atoms charged for it.
        dropped: atoms that stayed unanswered after every retry.
        seconds: time the client worked.
        common: atoms charged on behalf of all clients, where it has a box of its own.
        paid: atoms that its own ledger had to pay for, where it has one of its own.
    """

    client: str
    round: int
    weight: float
    arrays: Arrays = field(default_factory=dict)
    queries: int = 0
    dropped: int = 0
    seconds: float = 0.0
    common: int = 0
    paid: int = 0


def digest(*parts: str | bytes) -> bytes:
    """16-byte key of some parts; lengths are hashed too, so parts cannot run into each other."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.digest()


def distinct(atoms: Iterable[Atom]) -> tuple[Atom, ...]:
    """Atoms without repeats, in order of first appearance."""
    return tuple({atom.key: atom for atom in atoms}.values())
