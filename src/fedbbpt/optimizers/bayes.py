"""Bayesian optimisation: a Gaussian process of the loss says which candidates to pay for.

The search of InstructZero (Chen et al., ICML 2024, arXiv:2306.03082) over soft prompts in a box,
and over a finite pool of candidates in the space of their embeddings. The maths is in
:mod:`fedbbpt.maths.gp` and :mod:`fedbbpt.maths.acquisition`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths.acquisition import believe_batch, log_expected_improvement, thompson_batch
from fedbbpt.maths.gp import Posterior, condition, observe
from fedbbpt.maths.gp_fit import Prior, fit
from fedbbpt.optimizers._design import climb, farthest, sobol, typical_distance
from fedbbpt.protocols import Optimizer
from fedbbpt.random import stream
from fedbbpt.types import Space

Acquisition = Literal["ei", "thompson"]
Lengthscale = Literal["median", "gamma"]
UNANSWERED = 2
"""Rank of candidates that were tried in vain: behind all that is untried or has an answer."""


class BayesState(NamedTuple):
    """Observations; the process is fitted to them whenever it is asked.

    A point is kept as w numbers: its row in the pool (w = 1), or all its coordinates.

    Attributes:
        pool: (N, *shape) candidates, the first being the starting prompt; rows may be added at
            the end. (0, *shape) in a box, and in a pool until somebody puts it here.
        seen_points: (n, w), what all clients know to have been asked; repeats are welcome.
        seen_losses: (n,) of those, 0 where there was no answer.
        seen_weights: (n,) examples behind each loss, 0 where there was no answer.
        new_points: (m, w), what was told since; it does not travel down.
        new_losses: (m,) likewise, 0 where there was no answer.
        answered: (m,), bool.
        finite: (), bool, whether the space is a pool; follows from it and does not travel.
    """

    pool: Array
    seen_points: Array
    seen_losses: Array
    seen_weights: Array
    new_points: Array
    new_losses: Array
    answered: Array
    finite: Array


@dataclass(frozen=True)
class Bayes(Optimizer[BayesState]):
    """Gaussian-process search in the box [-bound, bound]^d, or over the rows of a pool.

    A pool is put into the state: ``init(space)._replace(pool=embeddings)``; from then on it
    travels with the observations, 8 N d bytes a round. Where clients do not run in one process,
    let them send their observations and not their losses alone (method.wire = "state"): another
    machine's last bits may lead the server's copy of their search to other candidates.

    Attributes:
        batch: candidates per step (at most the distinct ones of a pool). Few, so that each batch
            knows what the last one brought.
        initial: distinct candidates to try before the process is asked, in whole batches: the
            starting prompt, then in a box a scrambled Sobol sequence over all of it, in a pool
            always the candidate farthest from those tried.
        acquisition: ``"ei"``, expected improvement with fantasies, or ``"thompson"``, minima of
            functions drawn from the posterior.
        ard: a lengthscale for every dimension. A pool's embeddings have too many of them for that.
        lengthscale: what is expected of it before anything is seen: ``"median"``, about the
            typical distance of two points; ``"gamma"``, the published Gamma(3, 6).
        repeats: candidates of a pool may be asked again while others are untried. Worth its price
            only where a second answer comes from other examples: other clients, or rounds.batch.
        bound: half-width of the box, as published; not used in a pool.

    Raises:
        ConfigError: an option is out of range.
    """

    batch: int = 4
    initial: int = 8
    acquisition: Acquisition = "ei"
    ard: bool = False
    lengthscale: Lengthscale = "median"
    repeats: bool = False
    bound: float = 1.0

    spaces: ClassVar[frozenset[str]] = frozenset({"pool", "real"})
    state: ClassVar[type[BayesState]] = BayesState
    shares: ClassVar[tuple[str, ...]] = ("pool", "seen_points", "seen_losses", "seen_weights")

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.batch < 1 or self.initial < 2:
            raise ConfigError(
                f"bayes batch is {self.batch} and initial {self.initial}; they must be at least "
                "1 and 2"
            )
        if not 0 < self.bound < math.inf:
            raise ConfigError(f"bayes bound is {self.bound}; it must be a positive number")
        for key, value, known in (
            ("acquisition", self.acquisition, get_args(Acquisition)),
            ("lengthscale", self.lengthscale, get_args(Lengthscale)),
        ):
            if value not in known:
                raise ConfigError(f"bayes {key} is {value!r}; it must be one of {known}")

    def init(self, space: Space) -> BayesState:
        """Nothing observed; a pool's candidates are still to be put in."""
        finite = space.kind == "pool"
        width, none = 1 if finite else math.prod(space.shape), np.zeros(0)
        return BayesState(
            pool=np.zeros((0, *space.shape)),
            seen_points=np.zeros((0, width)),
            seen_losses=none,
            seen_weights=none.copy(),
            new_points=np.zeros((0, width)),
            new_losses=none.copy(),
            answered=np.zeros(0, np.bool_),
            finite=np.asarray(finite),
        )

    def ask(self, state: BayesState, rng: np.random.Generator) -> Array:
        """(batch, *shape) candidates, distinct rows in a pool.

        Raises:
            ConfigError: the space is a pool, and its candidates were never put in.
        """
        model = self._model(state) if self._covered(state) else None
        if state.finite:
            return state.pool[self._rows(state, model, rng)]
        return self._places(state, model, rng).reshape(-1, *state.pool.shape[1:])

    def tell(self, state: BayesState, points: Array, losses: Array) -> BayesState:
        """The observations behind the others; a candidate without an answer is only noted.

        Raises:
            ValueError: a point is not in the pool.
        """
        answered = np.isfinite(losses)
        kept = _rows_of(state.pool, points) if state.finite else points.reshape(len(points), -1)
        told = (kept, np.where(answered, losses, 0.0), answered)
        before = (state.new_points, state.new_losses, state.answered)
        after = [np.concatenate(pair) for pair in zip(before, told, strict=True)]
        return state._replace(new_points=after[0], new_losses=after[1], answered=after[2])

    def best(self, state: BayesState) -> Array:
        """Of the candidates answered the one of lowest expected loss; at first the start."""
        model = self._model(state)
        if model is not None:
            lowest = model.seen.points[np.argmin(model.fitted)]
            return np.asarray(lowest.reshape(state.pool.shape[1:]))
        return state.pool[0].copy() if len(state.pool) else np.zeros(state.pool.shape[1:])

    # --- the model -------------------------------------------------------------------------------

    def _covered(self, state: BayesState) -> bool:
        """Whether the first design is done."""
        return len(np.unique(_history(state)[0], axis=0)) >= self.initial

    def _model(self, state: BayesState) -> Posterior | None:
        """The process given all answers, or ``None`` if there is none."""
        points, losses, weights = _history(state)
        answered = weights > 0
        if not answered.any():
            return None
        where = _coordinates(state, points[answered])
        seen = observe(where, losses[answered], weights[answered])
        if self.lengthscale == "gamma":
            prior = Prior(gamma=(3.0, 6.0))
        else:
            # Two points of a box are about as far apart as their coordinates' variances add up to.
            spread = self.bound * math.sqrt(2 / 3 * where.shape[1])
            typical = typical_distance(_flat(state.pool)) if state.finite else spread
            prior = Prior(lengthscale=(typical, 1.0))
        # Where it starts is no choice of a step: best must see the process that ask has seen.
        rng = stream(0, "bayes fit")
        kernel, noise = fit(seen, prior, ard=self.ard, rng=rng)
        return condition(kernel, seen, noise)

    # --- candidates ------------------------------------------------------------------------------

    def _rows(self, state: BayesState, model: Posterior | None, rng: np.random.Generator) -> Array:
        """(K,) rows of the pool."""
        if not len(state.pool):
            raise ConfigError(
                "bayes searches a pool without candidates; put them into the state, as its 'pool'"
            )
        pool, (points, _, weights) = _flat(state.pool), _history(state)
        tried, answered = np.zeros((2, len(pool)), np.bool_)
        tried[points[:, 0].astype(np.int64)] = True
        answered[points[weights > 0, 0].astype(np.int64)] = True
        rows = np.sort(np.unique(pool, axis=0, return_index=True)[1])  # a text may be in it twice
        pool, tried, answered = pool[rows], tried[rows], answered[rows]
        count = min(self.batch, len(rows))
        again = 0 if self.repeats and model is not None else 1
        ranks = np.where(tried, np.where(answered, again, UNANSWERED), 0)
        if model is None:
            return np.asarray(rows[farthest(pool, tried, ranks, count)])
        return np.asarray(rows[self._chosen(model, pool, ranks, count, rng)])

    def _places(
        self, state: BayesState, model: Posterior | None, rng: np.random.Generator
    ) -> Array:
        """(K, d) points of the box."""
        dimensions = state.seen_points.shape[1]
        if model is None:
            points = sobol(self.batch, dimensions, self.bound, rng)
            if not len(_history(state)[0]):
                points[0] = 0.0
            return points

        wary = _wary(state, model)
        lowest = float(wary.fitted.min())

        def gain(points: Array) -> Array:
            there = wary.at(points)
            return log_expected_improvement(there.mean, there.variance, lowest)

        centre = wary.seen.points[np.argmin(wary.fitted)]
        points = climb(gain, centre, self.bound, rng)
        ranks = np.zeros(len(points), np.int64)
        return np.asarray(points[self._chosen(wary, points, ranks, self.batch, rng)])

    def _chosen(
        self, model: Posterior, points: Array, ranks: Array, count: int, rng: np.random.Generator
    ) -> Array:
        """Which of some points to try, by the acquisition."""
        there, noise = model.at(points), model.noise / float(np.median(model.seen.weights))
        if self.acquisition == "thompson":
            return thompson_batch(there, count, ranks, rng)
        return believe_batch(there, float(model.fitted.min()), noise, count, ranks)


def _history(state: BayesState) -> tuple[Array, Array, Array]:
    """All observations: (n, w) points, (n,) losses, (n,) weights with mean 1, 0 if unanswered.

    How many examples are behind a client's own new losses is not its business to know: they count
    as much as others do on average.
    """
    known = state.seen_weights[state.seen_weights > 0]
    weights = state.seen_weights / (known.mean() if len(known) else 1.0)
    points = np.concatenate([state.seen_points, state.new_points])
    losses = np.concatenate([state.seen_losses, state.new_losses])
    return points, losses, np.concatenate([weights, state.answered.astype(np.float64)])


def _coordinates(state: BayesState, points: Array) -> Array:
    """(n, d) of points as they are kept."""
    return _flat(state.pool)[points[:, 0].astype(np.int64)] if state.finite else points


def _wary(state: BayesState, model: Posterior) -> Posterior:
    """The process in a box if what was never answered were as bad as the worst that was.

    Else the surroundings of such a place look as promising in every step to come (the constant
    liar of Ginsbourger et al. 2010 serves points that are still to be answered in the same way).
    """
    points, _, weights = _history(state)
    distinct, group = np.unique(points, axis=0, return_inverse=True)
    holes = distinct[np.bincount(group.reshape(-1), weights, len(distinct)) == 0]
    if not len(holes):
        return model
    seen, count = model.seen, len(holes)
    merged = observe(
        np.concatenate([seen.points, holes]),
        np.concatenate([seen.values, np.full(count, seen.values.max())]),
        np.concatenate([seen.weights, np.full(count, np.median(seen.weights))]),
    )
    return condition(model.kernel, merged, model.noise, model.mean)


def _flat(pool: Array) -> Array:
    return pool.reshape(len(pool), -1)


def _rows_of(pool: Array, points: Array) -> Array:
    """(K, 1) rows of the pool that some points are."""
    flat, rows = _flat(pool), []
    for point in points.reshape(len(points), -1):
        found = np.flatnonzero((flat == point).all(axis=1))
        if not len(found):
            raise ValueError(f"a candidate was told that is none of the {len(pool)} of the pool")
        rows.append([float(found[0])])
    return np.array(rows).reshape(-1, 1)
