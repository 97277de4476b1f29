"""How grids become atoms and rows become replies, apart from any model.

A local box and the client of a gateway make the same atoms with the same keys from the same form,
so that both count, cache and score alike. Nothing here loads a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.types import Atom, Grid, RenderedPrompt, Reply, digest, distinct

LABEL_GAP, TEXT_GAP = "{label}", "{text}"
Shares = Callable[[tuple[str, ...]], Array]


class Content(NamedTuple):
    """What an atom asks: an example without or within a prompt, or a prompt's label.

    Attributes:
        prompt: ``None`` for a bare example.
        label: the class whose label it is, -1 for an example.
        example: ``None`` for a label.
    """

    prompt: RenderedPrompt | None
    label: int
    example: Any


class Form(ABC):
    """One way to split a grid.

    Attributes:
        kind: its name on the wire.
        name: the box's, part of every key.
    """

    kind: ClassVar[str]
    name: str

    def facts(self) -> dict[str, Any]:
        """What else a client has to know to make one, as JSON has it."""
        return {}

    @abstractmethod
    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """The grid as distinct atoms. Pure and unpaid."""

    @abstractmethod
    def atom(self, content: Content) -> Atom:
        """The atom that asks this; inverse of :meth:`content`."""

    @abstractmethod
    def content(self, atom: Atom) -> Content:
        """What an atom of this form asks."""

    def takes(self, content: Content) -> bool:
        """Whether there is an atom that asks this: here, a text within a prompt."""
        inside = content.prompt is not None and content.label < 0
        return inside and isinstance(content.example, str)

    def beside(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[int]:
        """Positions of the atoms that rows of the wanted ones may depend on, in order."""
        return list(range(len(atoms)))


class Pairs(Form):
    """One prompted example of any kind is one atom and has a row (C,) of scores."""

    kind = "pairs"

    def __init__(self, name: str) -> None:
        self.name = name

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """One atom for each distinct pair of prompt and example."""
        pairs = [self.atom(Content(p, -1, x)) for p in prompts for x in examples]
        atoms = distinct(pairs)
        shape = (len(prompts), len(examples), len(prompts[0].labels) if prompts else 0)
        return Grid(atoms, lambda rows: Reply(_table(atoms, rows, pairs).reshape(shape)))

    def atom(self, content: Content) -> Atom:
        """A pair."""
        prompt, example = content.prompt, content.example
        assert prompt is not None
        key = digest(self.name, *prompt.keys, *prompt.labels, _bytes(example))
        return Atom(key, (prompt, example))

    def content(self, atom: Atom) -> Content:
        """Prompt and example."""
        return Content(atom.data[0], -1, atom.data[1])

    def takes(self, content: Content) -> bool:
        """Anything within a prompt."""
        return content.prompt is not None and content.label < 0 and content.example is not None

    def beside(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[int]:
        """None but the wanted: each example is scored by itself."""
        return list(wanted)


class Prompted(Form):
    """One prompted text is one atom; its row holds (C,) log-probabilities over a vocabulary.

    Args:
        name: the box's.
        shares: of labels: (C,) by which a row is multiplied before the softmax over classes.
    """

    kind = "prompted"

    def __init__(self, name: str, shares: Shares | None = None) -> None:
        self.name, self.shares = name, shares

    def facts(self) -> dict[str, Any]:
        """Whether there are shares to ask for."""
        return {"shares": self.shares is not None}

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct prompted example."""
        asked = [self.atom(Content(p, -1, text)) for p in prompts for text in examples]
        atoms = distinct(asked)
        shape = (len(prompts), len(examples), len(prompts[0].labels) if prompts else 0)

        def assemble(rows: Sequence[Array]) -> Reply:
            scores = _table(atoms, rows, asked).reshape(shape)
            if scores.size and self.shares is not None:
                shares = np.array([self.shares(prompt.labels) for prompt in prompts])
                scores = scores * shares[:, None]
            return Reply(log_softmax(scores) if scores.size else scores)

        return Grid(atoms, assemble)

    def atom(self, content: Content) -> Atom:
        """A prompted text."""
        prompt, text = content.prompt, content.example
        assert prompt is not None
        key = digest(self.name, "text", prompt.keys[0], repr(prompt.labels), text)
        return Atom(key, (prompt, text))

    def content(self, atom: Atom) -> Content:
        """Prompt and text."""
        return Content(atom.data[0], -1, atom.data[1])


class Dual(Form):
    """Examples and labels are apart: a row is the (H,) unit vector of one of them, bare or
    prompted, and a score a scaled cosine.

    Args:
        name: the box's.
        scale: cosines are multiplied by this before the softmax over classes.
        hidden: H.
    """

    kind = "dual"

    def __init__(self, name: str, scale: float, hidden: int) -> None:
        self.name, self.scale, self.hidden = name, scale, hidden
        self.bare = lru_cache(maxsize=1 << 16)(self._bare)
        self.labels = lru_cache(maxsize=256)(self._labels)

    def facts(self) -> dict[str, Any]:
        """Scale and H."""
        return {"scale": self.scale, "hidden": self.hidden}

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct bare or prompted example, each distinct bare or prompted label."""
        if not prompts:
            bare = [self.bare(text) for text in examples]
            atoms = distinct(bare)
            return Grid(atoms, lambda rows: self._embeddings(_table(atoms, rows, bare)))
        label_side = prompts[0].side == "label"
        if label_side:
            labels = [atom for prompt in prompts for atom in self.labels(prompt)]
            texts = [self.bare(text) for text in examples]
        else:
            labels = [self.bare(text) for prompt in prompts for text in prompt.labels]
            texts = [self.text(prompt, text) for prompt in prompts for text in examples]
        atoms = distinct([*labels, *texts])
        shape = (len(prompts), len(examples), len(prompts[0].labels))

        def assemble(rows: Sequence[Array]) -> Reply:
            place = {atom.key: i for i, atom in enumerate(atoms)}
            table = np.array(rows, np.float64)
            k, b, c = shape
            hidden = table.shape[1]
            own = table[[place[a.key] for a in labels]].reshape(k, c, hidden)
            seen = table[np.array([place[a.key] for a in texts], np.int64)]
            return Reply(self.scores(seen.reshape(1 if label_side else k, b, hidden), own))

        return Grid(atoms, assemble)

    def atom(self, content: Content) -> Atom:
        """A bare or prompted text, or a prompted label."""
        prompt, label, text = content
        if prompt is None:
            return self.bare(text)
        return self.text(prompt, text) if label < 0 else self.labels(prompt)[label]

    def content(self, atom: Atom) -> Content:
        """What stands in which gap."""
        gap, text, prompt, label = atom.data
        return Content(prompt, label, None) if gap == LABEL_GAP else Content(prompt, -1, text)

    def takes(self, content: Content) -> bool:
        """Texts with and without a prompt, and labels with one."""
        prompt, label, text = content
        if label < 0:
            return isinstance(text, str)
        return prompt is not None and label < len(prompt.labels) and text is None

    def beside(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[int]:
        """Labels and examples are never in a batch with each other."""
        gaps = {atoms[i].data[0] for i in wanted}
        return [i for i, atom in enumerate(atoms) if atom.data[0] in gaps]

    def text(self, prompt: RenderedPrompt, text: str) -> Atom:
        """A prompted text."""
        return Atom(digest(self.name, "text", prompt.keys[0], text), (TEXT_GAP, text, prompt, 0))

    def scores(self, texts: Array, labels: Array) -> Array:
        """(K, B, C) log-softmax of scaled cosines of (1 or K, B, H) and (K, C, H) unit vectors."""
        k, c, hidden = labels.shape
        if len(texts) == 1:
            # One product for all candidates: they are many and their labels few.
            flat = texts[0] @ labels.reshape(k * c, hidden).T
            scores = self.scale * flat.reshape(-1, k, c).swapaxes(0, 1)
        else:
            scores = self.scale * (texts @ labels.swapaxes(1, 2))
        return log_softmax(scores)

    def _bare(self, text: str) -> Atom:
        return Atom(digest(self.name, "bare", text), (TEXT_GAP, text, None, 0))

    def _labels(self, prompt: RenderedPrompt) -> tuple[Atom, ...]:
        return tuple(
            Atom(digest(self.name, "label", key, text), (LABEL_GAP, text, prompt, c))
            for c, (key, text) in enumerate(zip(prompt.keys, prompt.labels, strict=True))
        )

    def _embeddings(self, vectors: Array) -> Reply:
        vectors = vectors.reshape(len(vectors), self.hidden)
        return Reply(np.zeros((0, len(vectors), 0)), vectors)


def form_of(name: str, facts: Mapping[str, Any], shares: Shares) -> Form:
    """The form that a server describes.

    Args:
        name: the box's.
        facts: the form's kind and :meth:`Form.facts`.
        shares: asks the server, where the form has any.

    Raises:
        KeyError: another kind, or a fact is missing.
    """
    makers: dict[str, Callable[[], Form]] = {
        "pairs": lambda: Pairs(name),
        "prompted": lambda: Prompted(name, shares if facts["shares"] else None),
        "dual": lambda: Dual(name, float(facts["scale"]), int(facts["hidden"])),
    }
    return makers[facts["kind"]]()


def _table(atoms: Sequence[Atom], rows: Sequence[Array], asked: Sequence[Atom]) -> Array:
    """Rows of the asked atoms, float64."""
    row = {atom.key: r for atom, r in zip(atoms, rows, strict=True)}
    return np.array([row[atom.key] for atom in asked], np.float64)


def _bytes(example: Any) -> bytes:
    if isinstance(example, np.ndarray):
        shape = f"{example.dtype.str}{example.shape}"
        return bytes(shape.encode() + example.tobytes())
    return repr(example).encode()
