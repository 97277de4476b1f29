"""Best-arm identification: every candidate of a pool is an arm, and embeddings are not looked at.

The rival that a model of the embeddings has to beat. LUCB (Kalyanakrishnan, Tewari, Auer & Stone,
*PAC Subset Selection in Stochastic Multi-armed Bandits*, ICML 2012) with the bounds of KL-LUCB
(Kaufmann & Kalyanakrishnan, *Information Complexity in Bandit Subset Selection*, COLT 2013), in
batches. Clients' answers are merged by the aggregator ``pool``, as they are for ``bayes``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
from scipy.special import rel_entr

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers._design import cover
from fedbbpt.optimizers._observed import (
    ObservedState,
    Observing,
    Standing,
    history,
    planned,
    refuse_bad_racing,
    standing,
)

HALVINGS = 40
"""Of [0, 1] in the search for a bound; 2^-40 is far below any difference of means."""


@dataclass(frozen=True)
class Bandit(Observing):
    """First every arm once, then the leader and those whose lower bounds are the most promising.

    LUCB pulls two arms at a time, the one of lowest mean and, of the others, the one of lowest
    lower bound; with a batch of K the others are the K - 1 of lowest bounds. For losses in [0, 1].

    Attributes:
        batch: arms per step (at most the distinct ones of the pool).
        delta: risk of the bounds, with the rate log((1 + log n) / delta) after n answers, which is
            the one used in practice and not the proven one; and, proven, the risk that racing ever
            drops the best arm (see :class:`fedbbpt.optimizers.bayes.Bayes`).
        examples: behind one observation, at least.
        pick: ``"bounds"``, as above; or ``"random"``, any arms that have examples left: random
            search, the rival of every search.

    Raises:
        ConfigError: an option is out of range.
    """

    batch: int = 4
    delta: float = 0.05
    examples: int = 1
    pick: Literal["bounds", "random"] = "bounds"

    spaces: ClassVar[frozenset[str]] = frozenset({"pool"})

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.batch < 1 or not self.delta > 0:
            raise ConfigError(
                f"bandit batch is {self.batch} and delta {self.delta}; they must be at least 1 "
                "and above 0"
            )
        refuse_bad_racing("bandit", self.delta, self.examples)
        picks = get_args(Literal["bounds", "random"])
        if self.pick not in picks:
            raise ConfigError(f"bandit pick is {self.pick!r}; it must be one of {picks}")

    def plan(self, state: ObservedState, rng: np.random.Generator) -> ObservedState:
        """With the next batch of distinct arms, behind what is planned already."""
        if len(state.next_points) >= self.batch:
            return state
        now = self._standing(state)
        count = min(self.batch, len(now.rows)) - len(state.next_points)
        if count < 1:
            return state
        taken = np.isin(now.rows, state.next_points[:, 0].astype(np.int64))
        ranks = np.where(now.closed, 2, np.where(now.tried, 1, 0))
        ranks[taken] = 3
        if self.pick == "random":
            order = np.lexsort((rng.permutation(len(ranks)), ranks.clip(1)))
            return planned(state, now.rows[order[:count], None], now.turns[order[:count]])
        fresh = min(count, int((ranks == 0).sum()))
        chosen = cover(now.points, now.tried, taken, ranks, fresh, rng)
        if fresh < count:
            ranks[ranks == 0] = 3
            promise = _arms(state, self.examples).lower(self.delta)[now.rows]
            leader = self._leader(state, now)
            if leader is not None:
                promise[leader] = -np.inf
            order = np.lexsort((promise, ranks))
            chosen = np.concatenate([chosen, order[: count - fresh]])
        return planned(state, now.rows[chosen, None], now.turns[chosen])

    def done(self, state: ObservedState) -> bool:
        """Whether no arm may be pulled that could still be the best."""
        return self._standing(state).exhausted(repeats=True)

    def best(self, state: ObservedState) -> Array:
        """The leader; before any answer the first arm."""
        now = self._standing(state)
        leader = self._leader(state, now)
        return np.array(state.pool[0 if leader is None else now.rows[leader]])

    def expected(self, state: ObservedState) -> Array:
        """(N, 3) of the arms: mean loss, most that its standard error can be, number of answers;
        NaN where there is none.
        """
        arms = _arms(state, self.examples)
        mean = np.where(arms.answers > 0, arms.mean, np.nan)
        inside = np.clip(mean, 0.0, 1.0)
        error = np.sqrt(inside * (1 - inside) / np.maximum(arms.examples, 1))
        return np.stack([mean, error, arms.answers], axis=1)

    def _standing(self, state: ObservedState) -> Standing:
        return standing(state, self._risk, self.examples)

    @property
    def _risk(self) -> float:
        """Of the racing; random search leaves none out."""
        return 0.0 if self.pick == "random" else self.delta

    def _leader(self, state: ObservedState, now: Standing) -> int | None:
        """Which of the distinct arms has the lowest mean; of several the one with most answers."""
        arms = _arms(state, self.examples)
        mean, answers = arms.mean[now.rows], arms.answers[now.rows]
        mean[(answers == 0) | (now.out & ~now.out.all())] = np.inf
        leader = int(np.lexsort((-answers, mean))[0])
        return leader if np.isfinite(mean[leader]) else None


class _Arms(NamedTuple):
    """Rows of the pool as arms.

    Attributes:
        mean: (N,) mean losses, weighted by clients' examples; 0 without an answer.
        examples: (N,) as how many examples of equal weight they are worth, at least.
        answers: (N,) how many.
    """

    mean: Array
    examples: Array
    answers: Array

    def lower(self, delta: float) -> Array:
        """(N,) the least expectation that an arm's answers do not contradict."""
        rate = math.log((1 + math.log(max(1.0, float(self.examples.sum())))) / delta)
        mean = np.clip(self.mean, 0.0, 1.0)
        low, high = np.zeros(len(mean)), mean.copy()
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            entropy = rel_entr(mean, middle) + rel_entr(1 - mean, 1 - middle)
            far = self.examples * entropy > rate
            low, high = np.where(far, middle, low), np.where(far, high, middle)
        return high


def _arms(state: ObservedState, examples: int) -> _Arms:
    told = history(state).answers
    rows, count = told.points[:, 0].astype(np.int64), len(state.pool)
    total, squares, losses = (
        np.bincount(rows, value, count)
        for value in (told.weights, told.weights**2, told.weights * told.losses)
    )
    none = total == 0
    worth = examples * total**2 / np.where(none, 1.0, squares)
    return _Arms(losses / np.where(none, 1.0, total), worth, np.bincount(rows, minlength=count))
