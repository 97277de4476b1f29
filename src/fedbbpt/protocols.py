"""The protocols: adding a plug-in is a new file with one of these; shapes as in ``types``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.black_box import AtomicBox
from fedbbpt.maths.metrics import Metric
from fedbbpt.post import Card
from fedbbpt.types import Batch, Job, RenderedPrompt, Reply, Space, Update
from fedbbpt.writing import Writing

S = TypeVar("S", bound=tuple[Any, ...])


class Prompt(ABC):
    """Turns points into prompts of the kinds ``sends``, purely.

    Attributes:
        maps: it takes a label mapping; ``mapping``: the one that it has.
        writing: how a paid model writes what it chooses among, if one does; ``texts``: these.
    """

    sends: frozenset[str]
    space: Space
    maps: ClassVar[bool] = False
    mapping: Array | None = None
    writing: Writing | None = None
    texts: tuple[str, ...] = ()

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

    def grown(self, texts: Sequence[str], points: Array) -> Prompt:
        """The same prompt over N texts with their (N, *shape) points, the known ones first."""
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
        positive: state fields that are never below 0, beside all whole numbers.
        free: averaged and shared state fields in which any real number makes sense, so that a
            shield may scale what a client moved and add noise to it.
        relative: of a step's losses only their differences count, so that a client may send them
            less their mean.
        learns: it makes more of the scores of single examples than of losses; see ``learn``.
    """

    spaces: ClassVar[frozenset[str]]
    state: ClassVar[type[Any]]
    shares: ClassVar[tuple[str, ...]]
    averages: ClassVar[tuple[str, ...]] = ()
    positive: ClassVar[tuple[str, ...]] = ()
    free: ClassVar[tuple[str, ...]] = ()
    relative: ClassVar[bool] = False
    learns: ClassVar[bool] = False

    def sized(self, space: Space, queries: int) -> Optimizer[S]:
        """The same for rounds of about so many queries on behalf of all clients, in atoms of one
        row each, where its options leave that open.
        """
        return self

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

    def plan(self, state: S, rng: np.random.Generator) -> S:
        """At the server, before a state is broadcast: what only it knows enough to decide."""
        return state

    def turns(self, state: S, points: Array) -> Array | None:
        """(K,) the part of its examples on which a client tries each candidate, from 0, where that
        is not the round's; asked between ``ask`` and ``tell``.
        """
        return None

    def earlier(self, state: S) -> list[tuple[bytes, S]]:
        """The states in which candidates were asked, by names that never come twice; the present
        one last. In each ``ask`` asks the same again, whatever the generator.
        """
        raise NotImplementedError

    def study(self, state: S, points: Array, scores: Array) -> Any:
        """What (K, B, C) scores of those candidates tell of a client's examples: a NamedTuple of
        arrays that add up over rounds.
        """
        raise NotImplementedError

    def learn(self, state: S, known: Any, scores: Array, targets: Array) -> S:
        """In the place of ``tell``, at a client: the state after all that it knows.

        Args:
            state: the present one.
            known: sum of what it studied.
            scores: (B, C) at the present point, NaN where there is no answer.
            targets: (B, C) probabilities of the right answers.
        """
        raise NotImplementedError

    def expected(self, state: S) -> Array | None:
        """(N, 3) of the points of a pool: expected loss, its standard error, and the number of
        answers behind it; NaN where there is none.
        """
        return None

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

    @property
    def least(self) -> int:
        """The fewest updates that a merge can be made of; of fewer it refuses to make one."""
        return 1

    @property
    def sums(self) -> bool:
        """The merge reads nothing of many updates but the weighted mean of each field, so that one
        update that holds these stands for all: the server need not hold, or know, any of them.
        """
        return False

    @property
    def bears(self) -> bool:
        """It bears some hostile clients; then the choice among snapshots has to bear them too."""
        return False

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

    def score(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) how right each answer is, from 0 to 1; where a task does not say, exp(-loss)."""
        return np.asarray(np.exp(-np.maximum(0.0, self.plain_loss(reply, batch))))

    def sure(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) from 0 to 1 how near each answer is to a right one, where more can be told."""
        return self.score(reply, batch)


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
        """Run the job on the named clients; updates come in the order of ``clients``, without
        those that gave no answer in time.
        """

    def begin(self, run: str) -> None:  # noqa: B027  (most have no use for it)
        """The run has a name now."""

    def enrol(self) -> list[Card]:
        """Clients that have come since the last time, where they can come and go."""
        return []

    def notices(self) -> list[dict[str, Any]]:
        """What happened to clients since the last time: facts of events ``node``."""
        return []
