"""The protocols: adding a plug-in is a new file with one of these; shapes as in ``types``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import BoxError
from fedbbpt.maths.metrics import Metric
from fedbbpt.senses import Vision, Vocabulary
from fedbbpt.storage import Till
from fedbbpt.types import Atom, Batch, Grid, Job, RenderedPrompt, Reply, Space, Update

S = TypeVar("S", bound=tuple[Any, ...])


# --- the box -------------------------------------------------------------------------------------


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

    @property
    def hidden(self) -> int:
        """H of its embeddings."""
        return self.vocabulary.hidden if self.vocabulary else 0

    def billed(self, till: Till) -> AtomicBox:
        """The same box, its requests paid by this till; a box without a bill is itself."""
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
        other = copy(self)
        other.inner = self.inner.billed(till)
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


# --- what is searched, and how ---------------------------------------------------------------


class Prompt(ABC):
    """Turns points into prompts of the kinds ``sends``, purely; ``maps``: takes a label mapping."""

    sends: frozenset[str]
    space: Space
    maps: ClassVar[bool] = False

    @classmethod
    def sends_to(cls, box: AtomicBox) -> frozenset[str]:
        """What an instance for this box will send; asked before one is made."""
        return cls.sends

    def read(self, prompt: RenderedPrompt) -> tuple[str, ...]:
        """What a search put into a prompt, one text for all classes or one each, if it is text."""
        return ()

    def mapped(self, mapping: Array) -> Prompt:
        """The same prompt over a (C, S) label mapping."""
        raise NotImplementedError

    @abstractmethod
    def render(self, points: Array) -> list[RenderedPrompt]:
        """K prompts from (K, *shape) points; the zero point is the starting prompt."""


class Optimizer(ABC, Generic[S]):
    """A zeroth-order search as pure functions over a state that is data.

    Attributes:
        spaces: kinds of :class:`Space` it can search.
        state: the NamedTuple of numpy arrays that is its state.
        shares: state fields that the server broadcasts; the others start as ``init`` makes them
            on every client in every round.
        averages: state fields of which a weighted mean over clients makes sense.
    """

    spaces: ClassVar[frozenset[str]]
    state: ClassVar[type[Any]]
    shares: ClassVar[tuple[str, ...]]
    averages: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def init(self, space: Space) -> S:
        """State at the zero point."""

    @abstractmethod
    def ask(self, state: S, rng: np.random.Generator) -> Array:
        """(K, *shape) candidates. K may depend on the options and the space alone."""

    @abstractmethod
    def tell(self, state: S, points: Array, losses: Array) -> S:
        """State after the losses (K,) of those candidates; touches none of its arguments.

        A loss that is not finite means *no answer*: the candidate is left out.
        """

    @abstractmethod
    def best(self, state: S) -> Array:
        """The point to use if the search ended now, of shape ``*shape``."""

    def done(self, state: S) -> bool:
        """Whether nothing is left to try."""
        return False


class Aggregator(ABC):
    """Merges what clients send into the next broadcast.

    Attributes:
        reads: state fields sent up; the rest never leaves a client. Empty means: those that the
            optimiser lists in ``averages``.
        needs: state fields that must exist for the merge to make sense.
        loss: the merge also reads each client's loss at its own best point (one more candidate).
        shared: the merge makes sense only where all clients try the same candidates.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    loss: ClassVar[bool] = False
    shared: ClassVar[bool] = False

    def fields(self, optimizer: Optimizer[Any]) -> tuple[str, ...]:
        """The state fields that leave a client under this merge."""
        return self.reads or optimizer.averages

    @abstractmethod
    def init(self, state: Any) -> Arrays:
        """Memory that the server keeps between rounds."""

    @abstractmethod
    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """Next broadcast state and memory. Must not depend on the order of ``updates``."""

    def best(self, optimizer: Optimizer[Any], state: Any, memory: Arrays) -> Array:
        """The point to use if the run ended now."""
        return optimizer.best(state)


class Task(ABC):
    """What makes an answer good.

    Attributes:
        metric: makes one number of a client's answers, and of all clients' numbers.
        numbers: targets are numbers in [0, 1] between two poles and not class indices.
        words: targets are tuples of reference answers, and it reads replies in words.
        extends: whether the loss needs companions that :meth:`extend` makes.
    """

    metric: Metric
    numbers: ClassVar[bool] = False
    words: ClassVar[bool] = False
    extends: bool = False

    def extend(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The examples to ask about: ``batch`` and behind it the companions."""
        raise NotImplementedError

    @abstractmethod
    def loss(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) losses of the batch before it was extended; lower is better."""

    @abstractmethod
    def plain_loss(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) losses for selection and reports: no companions, no guard."""

    @abstractmethod
    def answers(self, reply: Reply) -> Array:
        """(K, B) answers as the metric compares them with targets."""


class Engine(ABC):
    """Carries jobs to clients and updates back."""

    def prepare(self, job: Job) -> Job:
        """Once before a job is sent: pays for all clients what they would all ask."""
        return job

    def adopt(self, parts: Any, prompts: Mapping[str, Prompt]) -> None:
        """From now on clients work with these parts, and train with their own prompts."""
        raise NotImplementedError

    @abstractmethod
    def map(self, job: Job, clients: Sequence[str]) -> list[Update]:
        """Run the job on the named clients; updates come in the order of ``clients``."""
