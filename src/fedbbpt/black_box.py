"""The box: a model that can only be asked, as wrappers and everybody else see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol, runtime_checkable

from fedbbpt.arrays import Array
from fedbbpt.errors import BoxError
from fedbbpt.senses import Vision, Vocabulary
from fedbbpt.storage import Till
from fedbbpt.types import Atom, Grid, RenderedPrompt, Reply


@runtime_checkable
class BlackBox(Protocol):
    """A model that can only be asked. Structural: a user's class fits without importing us.

    Attributes:
        name: model, revision and decoding; part of every cache key.
        accepts: kinds of prompts taken, of {"text", "tokens", "soft", "image"}.
        sides: where a prompt may stand, of {"label", "text", "image"}.
        gives: of {"scores", "embeddings", "text"}; "classes" if embeddings are log-probabilities of
            classes of its own; "gradients" if it runs in this process.
        vocabulary: the box's tokens, or ``None``.
    """

    name: str
    accepts: frozenset[str]
    sides: frozenset[str]
    gives: frozenset[str]
    vocabulary: Vocabulary | None

    def __call__(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Reply:
        """Answer the grid; without examples (or prompts), what depends on the other alone."""


class AtomicBox(ABC):
    """A box whose work is a list of atoms: what caches, meters and retries can wrap.

    A leaf implements :meth:`split` and :meth:`evaluate`. A wrapper holds another box and
    overrides :meth:`evaluate`; everything else it passes on.

    Attributes:
        vision: how the box sees pictures, or ``None``.
        max_tokens: a prompted text longer than this is cut; ``None`` where nobody knows.
        steady: a row does not depend on what else is asked with it, so that what one client paid
            for may answer another at once.
        priced: what a request costs is known.
        writer: what the config names in ``[writer]``, if it is made already.
    """

    name: str
    accepts: frozenset[str]
    sides: frozenset[str]
    gives: frozenset[str]
    vocabulary: Vocabulary | None = None
    vision: Vision | None = None
    max_tokens: int | None = None
    steady: bool = False
    priced: bool = True
    writer: AtomicBox | None = None

    @property
    def hidden(self) -> int:
        """H of its embeddings."""
        return self.vocabulary.hidden if self.vocabulary else 0

    def billed(self, till: Till) -> AtomicBox:
        """The same box, its requests paid by this till; a box without a bill is itself."""
        return self

    def at_length(self, tokens: int) -> AtomicBox:
        """The same box with replies in words of up to so many tokens, if it bills for them and its
        are shorter.
        """
        return self

    def prepare(self, prompt: RenderedPrompt) -> None:  # noqa: B027 - most boxes take any
        """Raise a ConfigError if this prompt cannot be used; asked before anything is paid."""

    @abstractmethod
    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """The grid as distinct atoms. Pure and unpaid."""

    @abstractmethod
    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the wanted atoms, in their order. Floating-point rows change with their batch,
        so a box that batches must form its batches from all ``atoms`` and not from the wanted
        ones: a cached row never regroups the others.

        Args:
            atoms: every atom of the call, wanted or not.
            wanted: positions in ``atoms`` to evaluate.

        Raises:
            TransientError: asking again may work.
            BoxError: asking again will not work.
        """

    def __call__(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Reply:
        """Answer the grid (see :class:`BlackBox`)."""
        grid = self.split(prompts, examples)
        return grid.assemble(self.evaluate(grid.atoms, range(len(grid.atoms))))

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """What a white-box method sees; only of a box that lists "gradients" in ``gives``.

        Of a soft prompt, B examples and their (B,) class indices: the mean cross-entropy of the
        box's scores, and its gradient by the prompt: (len(prompt.soft), T, H) float64.
        """
        raise BoxError(f"{self.name} gives no gradients")


class Wrapper(AtomicBox):
    """A box around a box: same call, one concern. Subclasses override ``evaluate``."""

    def __init__(self, inner: AtomicBox) -> None:
        self.inner = inner
        self.name, self.accepts, self.gives = inner.name, inner.accepts, inner.gives
        self.sides, self.vocabulary, self.vision = inner.sides, inner.vocabulary, inner.vision
        self.max_tokens, self.steady, self.priced = inner.max_tokens, inner.steady, inner.priced

    @property
    def hidden(self) -> int:
        """The inner box's."""
        return self.inner.hidden

    def billed(self, till: Till) -> AtomicBox:
        """The same wrapper around the inner box with its till."""
        inner = self.inner.billed(till)
        if inner is self.inner:
            return self
        other = copy(self)
        other.inner = inner
        return other

    def at_length(self, tokens: int) -> AtomicBox:
        """The same wrapper around the inner box with longer replies."""
        inner = self.inner.at_length(tokens)
        if inner is self.inner:
            return self
        other = copy(self)
        other.inner, other.name = inner, inner.name
        return other

    def prepare(self, prompt: RenderedPrompt) -> None:
        """What the inner box refuses."""
        self.inner.prepare(prompt)

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """The inner box's atoms."""
        return self.inner.split(prompts, examples)

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """The inner box's."""
        return self.inner.gradient(prompt, examples, targets)
