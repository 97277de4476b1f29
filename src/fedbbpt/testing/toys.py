"""Stand-ins that are small enough to reason about and real enough to be tuned.

A vocabulary of hashed words, a bag-of-words model that takes every kind of prompt as two kinds of
box, a box that counts what reaches it and fails on request, a store in memory, and examples with a
signal.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.boxes.function import Function
from fedbbpt.errors import TransientError
from fedbbpt.random import stream, word
from fedbbpt.senses import Vocabulary
from fedbbpt.types import Atom, Batch, Grid, RenderedPrompt, Reply, digest, distinct

GAPS = {"label": "{label}", "text": "{text}"}
WORDS = (
    ("awful", "dull", "poor", "boring", "weak"),
    ("great", "fine", "lovely", "bright", "moving"),
    ("round", "square", "tall", "narrow", "wide"),
)
FILLERS = ("the", "film", "was", "rather", "and", "its", "story", "quite")
_WORD = re.compile(r"\w+|[^\w\s]")


class ToyVocabulary:
    """A :class:`fedbbpt.protocols.Vocabulary` of hashed words, H = 8.

    A word's id is its hash; the word ``w17`` has id 17, which is how ids are decoded.

    Args:
        size: number of ids.
    """

    hidden = 8

    def __init__(self, size: int = 256) -> None:
        self.size = size
        shape = (size, self.hidden)
        self._matrix = stream(0, "toy vocabulary").standard_normal(shape).astype(np.float32)
        self.std = float(self._matrix.std(dtype=np.float64))

    def tokenise(self, text: str) -> list[int]:
        """One id per word or punctuation mark."""
        return [self._id(token) for token in _WORD.findall(text)]

    def layout(self, template: str, fill: str) -> tuple[list[int], list[int]]:
        """Ids of the template with ``fill`` in its gap, and each id's place in the template."""
        start = template.index("\0")
        stop = start + len(fill)
        ids, slots, own = [], [], 0
        for token in _WORD.finditer(template.replace("\0", fill)):
            inside = token.start() < stop and token.end() > start
            ids.append(self._id(token.group()))
            slots.append(-1 if inside else own)
            own += not inside
        return ids, slots

    def embed(self, ids: Sequence[int]) -> Array:
        """(len(ids), 8) embeddings, float32."""
        return self._matrix[np.asarray(ids, np.int64)]

    def decode(self, ids: Sequence[int]) -> str:
        """A text that tokenises to these ids."""
        return " ".join(f"w{i}" for i in ids)

    def ordinary(self) -> Array:
        """All ids but 0, which begins every text."""
        return np.arange(1, self.size)

    def _id(self, token: str) -> int:
        if re.fullmatch(r"w\d+", token) and int(token[1:]) < self.size:
            return int(token[1:])
        return word(token.lower()) // 2 % self.size


class ToyEncoder(AtomicBox):
    """A bag-of-words dual encoder in numpy: bare or prompted labels and examples are its atoms.

    A text becomes the mean of tanh of its embeddings, scaled to length 1; scores are
    log-softmax(scale * cosine) of text and label. The prompt is around the label or the text.
    Every row is computed by itself, so no row changes with the rows asked for beside it.

    Args:
        name: part of every key.
        scale: cosines are multiplied by this.
    """

    accepts = frozenset({"soft", "tokens", "text"})
    sides = frozenset({"label", "text"})
    gives = frozenset({"scores", "embeddings"})
    vocabulary: ToyVocabulary

    def __init__(self, name: str = "toy", scale: float = 6.0) -> None:
        self.name, self.scale, self.vocabulary = f"toy_encoder:{name}", scale, ToyVocabulary()

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """One atom for each distinct label and each distinct example, bare or prompted."""
        if not prompts:
            bare = [self._atom(text) for text in examples]
            none = np.zeros((0, len(bare), 0))
            return Grid(
                distinct(bare), lambda rows: Reply(none, _table(bare, distinct(bare), rows))
            )
        around = prompts[0].side == "label"
        labels = [
            self._atom(text, prompt if around else None, c)
            for prompt in prompts
            for c, text in enumerate(prompt.labels)
        ]
        texts = [self._atom(x, None if around else p) for p in prompts for x in examples]
        atoms = distinct([*labels, *texts])
        shape = (len(prompts), len(examples), 1, self.vocabulary.hidden)

        def assemble(rows: Sequence[Array]) -> Reply:
            own = _table(labels, atoms, rows).reshape(len(prompts), 1, -1, shape[-1])
            scores = self.scale * (_table(texts, atoms, rows).reshape(shape) * own).sum(axis=-1)
            scores -= scores.max(axis=-1, keepdims=True)
            return Reply(scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True)))

        return Grid(atoms, assemble)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(H,) unit vectors of the wanted atoms."""
        return [self._unit(*atoms[i].data) for i in wanted]

    def _atom(self, text: str, prompt: RenderedPrompt | None = None, which: int = 0) -> Atom:
        if prompt is None:
            return Atom(digest(self.name, text), (text, None, 0))
        return Atom(digest(self.name, prompt.side, prompt.keys[which], text), (text, prompt, which))

    def _unit(self, text: str, prompt: RenderedPrompt | None, which: int) -> Array:
        rows = (
            self.vocabulary.embed(self.vocabulary.tokenise(text))
            if prompt is None
            else _prompted(self.vocabulary, prompt, text, which)
        )
        begin = self.vocabulary.embed([0])
        mean = np.tanh(np.concatenate([begin, rows]).astype(np.float64)).mean(axis=0)
        return np.asarray(mean / np.sqrt((mean * mean).sum()))


def _table(own: Sequence[Atom], atoms: Sequence[Atom], rows: Sequence[Array]) -> Array:
    row = {atom.key: r for atom, r in zip(atoms, rows, strict=True)}
    return np.array([row[atom.key] for atom in own]).reshape(len(own), ToyVocabulary.hidden)


def toy_box(name: str = "toy", scale: float = 6.0) -> Function:
    """:class:`ToyEncoder` as a plain callable: every prompted example is an atom.

    Args:
        name: part of every key.
        scale: of the encoder.
    """
    encoder = ToyEncoder(name, scale)
    return Function(lambda p, x: encoder(p, x).scores, name, vocabulary=encoder.vocabulary)


def _prompted(vocabulary: Vocabulary, prompt: RenderedPrompt, fill: str, which: int) -> Array:
    """(T, H) of a label or text in its template, moved by the soft prompt of class ``which``."""
    ids, slots = vocabulary.layout(prompt.template.replace(GAPS[prompt.side], "\0"), fill)
    # The rows are averaged, so the place of the tokens is nothing to them.
    rows = vocabulary.embed([*prompt.tokens_of(which), *ids])
    if not prompt.soft:
        return rows
    soft = prompt.soft[which if len(prompt.soft) > 1 else 0]
    if prompt.mode == "insert":
        return np.concatenate([soft, rows])
    place = np.array(slots)
    if prompt.side == "label":
        # The words of the label share one more row, the last.
        place[place == -1] = place.max() + 1
    rows[place >= 0] += soft[place[place >= 0]]
    return rows


def toy_batch(size: int = 12, classes: int = 2, seed: int = 0) -> Batch:
    """Examples whose class shows in three of their words.

    Args:
        size: number of examples; classes take turns.
        classes: 2 or 3.
        seed: other seeds, other examples.
    """
    rng = stream(seed, "toy batch")
    targets = np.arange(size, dtype=np.int64) % classes
    texts = []
    for target in targets:
        own = [*rng.choice(WORDS[target], 3), *rng.choice(FILLERS, 3)]
        texts.append(" ".join(rng.permutation(own)))
    return Batch(tuple(texts), targets)


class MemoryStore:
    """A :class:`fedbbpt.storage.Store` in memory.

    Attributes:
        rows: what was put, by key.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, Array] = {}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The rows that are known, by key."""
        return {key: self.rows[key] for key in keys if key in self.rows}

    def put(self, rows: Mapping[bytes, Array]) -> None:
        """Keep rows."""
        self.rows.update(rows)

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """All of them: nobody else is here."""
        return list(keys)

    def release(self, keys: Sequence[bytes]) -> None:
        """Nothing was claimed."""


class CountingBox(Wrapper):
    """Counts what reaches a box and fails on request, for the same atoms whoever asks when.

    Args:
        inner: the box.
        raises: share of atoms that make their call raise a :class:`TransientError`.
        nans: share of atoms that are answered with NaN.
        times: how often such an atom fails before it is answered; ``None`` means for ever.
        seed: other seeds, other atoms.

    Attributes:
        asked: keys of all atoms that came in, in order, failed ones included.
        calls: number of calls that carried them.
    """

    def __init__(
        self,
        inner: AtomicBox,
        raises: float = 0.0,
        nans: float = 0.0,
        times: int | None = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(inner)
        self.raises, self.nans, self.times, self.seed = raises, nans, times, seed
        self.asked: list[bytes] = []
        self.calls = 0
        self._seen: Counter[tuple[str, bytes]] = Counter()
        self._lock = threading.Lock()

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the wanted atoms, some of them NaN, or a failure."""
        keys = [atoms[i].key for i in wanted]
        with self._lock:
            self.calls += 1
            self.asked += keys
            raising = [self._fails("raises", self.raises, key) for key in keys]
            if any(raising):
                raise TransientError(f"{sum(raising)} atoms failed as they were told to")
            holes = [self._fails("nans", self.nans, key) for key in keys]
        rows = self.inner.evaluate(atoms, wanted)
        return [r + np.nan if hole else r for r, hole in zip(rows, holes, strict=True)]

    def chosen(self, kind: str, share: float, key: bytes) -> bool:
        """Whether the rule ``"raises"`` or ``"nans"`` picks this atom."""
        return word(f"{self.seed} {kind} {key.hex()}") < share * 2**64

    def _fails(self, kind: str, share: float, key: bytes) -> bool:
        if not share or not self.chosen(kind, share, key):
            return False
        self._seen[kind, key] += 1
        return self.times is None or self._seen[kind, key] <= self.times
