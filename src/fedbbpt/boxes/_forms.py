"""How grids become atoms and rows become replies, apart from any model.

A local box and the client of a gateway make the same atoms with the same keys from the same form,
so that both count, cache and score alike. Nothing here loads a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._written import bytes_of, unseal
from fedbbpt.errors import ConfigError
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.types import Atom, Grid, RenderedPrompt, Reply, digest, distinct

LABEL_GAP, TEXT_GAP, PICTURE = "{label}", "{text}", "picture"
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

    def reply(
        self,
        prompts: Sequence[RenderedPrompt],
        count: int,
        atoms: Sequence[Atom],
        rows: Sequence[Array],
        asked: Sequence[Atom],
    ) -> Reply:
        """Rows as scores, or opened where the prompts have no labels.

        Args:
            prompts: K prompts.
            count: B.
            atoms, rows: what was evaluated.
            asked: K x B atoms, each a prompt and an example.
        """
        shape = (len(prompts), count, len(prompts[0].labels) if prompts else 0)
        if not prompts or prompts[0].labels:
            return Reply(rows_of(atoms, rows, asked).reshape(shape))
        row = _by_key(atoms, rows)
        said = [unseal(row[a.key], self.name, *a.data) for a in asked]
        texts = tuple(tuple(said[k * count : (k + 1) * count]) for k in range(len(prompts)))
        return Reply(np.zeros(shape), texts=texts)

    def takes(self, content: Content) -> bool:
        """Whether there is an atom that asks this: here, a text within a prompt."""
        inside = content.prompt is not None and content.label < 0
        return inside and isinstance(content.example, str)

    def beside(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[int]:
        """Positions of the atoms that rows of the wanted ones may depend on, in order."""
        return list(range(len(atoms)))


class Pairs(Form):
    """One prompted example of any kind is one atom and has a row (C,) of scores, or its answer in
    words, sealed.
    """

    kind = "pairs"

    def __init__(self, name: str) -> None:
        self.name = name

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """One atom for each distinct pair of prompt and example."""
        pairs = [self.atom(Content(p, -1, x)) for p in prompts for x in examples]
        atoms = distinct(pairs)
        return Grid(atoms, lambda rows: self.reply(prompts, len(examples), atoms, rows, pairs))

    def atom(self, content: Content) -> Atom:
        """A pair."""
        prompt, example = content.prompt, content.example
        assert prompt is not None
        key = digest(self.name, *prompt.keys, *prompt.labels, bytes_of(example))
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
    """One prompted text is one atom; its row holds (C,) log-probabilities over a vocabulary, or its
    answer in words, sealed.

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

        def assemble(rows: Sequence[Array]) -> Reply:
            reply = self.reply(prompts, len(examples), atoms, rows, asked)
            scores = reply.scores
            if scores.size and self.shares is not None:
                shares = np.array([self.shares(prompt.labels) for prompt in prompts])
                scores = scores * shares[:, None]
            return Reply(log_softmax(scores)) if scores.size else reply

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


def rows_of(atoms: Sequence[Atom], rows: Sequence[Array], asked: Sequence[Atom]) -> Array:
    """Rows of the asked atoms, float64."""
    row = _by_key(atoms, rows)
    return np.array([row[atom.key] for atom in asked], np.float64)


def _by_key(atoms: Sequence[Atom], rows: Sequence[Array]) -> dict[bytes, Array]:
    return {atom.key: row for atom, row in zip(atoms, rows, strict=True)}


def check_asked(name: str, gives: frozenset[str], prompts: Sequence[RenderedPrompt]) -> None:
    """Refuse what a box does not give, and a grid that asks for labels and for words.

    Raises:
        ConfigError: either.
    """
    # Of pictures a prompt without labels asks for what the model itself says of them.
    wordy = {not prompt.labels for prompt in prompts if prompt.side != "image"}
    if len(wordy) > 1:
        raise ConfigError(
            "some prompts of a grid have labels and others have none; a grid asks for labels or "
            "for words, so all of its prompts must have some or none"
        )
    if True in wordy and "text" not in gives:
        raise ConfigError(
            f"{name} gives {', '.join(sorted(gives))} and no text, and the prompt has no labels; "
            "an answer in words needs a box that gives text"
        )
    if False in wordy and "scores" not in gives:
        raise ConfigError(
            f"{name} gives {', '.join(sorted(gives))} and no scores, and the prompt has labels; "
            "leave them out to ask for an answer in words"
        )
