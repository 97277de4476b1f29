"""Bayesian optimisation: a Gaussian process of the loss says which candidates to pay for.

The search of InstructZero (Chen et al., ICML 2024, arXiv:2306.03082) over soft prompts in a box,
and over a finite pool of candidates in the space of their embeddings. The maths is in
:mod:`fedbbpt.maths.gp`, :mod:`fedbbpt.maths.gp_coupled` and :mod:`fedbbpt.maths.acquisition`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths.acquisition import (
    believe_batch,
    expected_improvement,
    log_expected_improvement,
    thompson_batch,
)
from fedbbpt.maths.gp import Posterior
from fedbbpt.optimizers._design import cautious, climb, cover, sobol
from fedbbpt.optimizers._observed import (
    ObservedState,
    Observing,
    Standing,
    flat,
    history,
    planned,
    refuse_bad_racing,
    standing,
)
from fedbbpt.optimizers._process import process

Acquisition = Literal["ei", "thompson"]
Lengthscale = Literal["median", "gamma"]
Covariance = Literal["matern", "coupled"]
TIE = 1e-6
"""Losses that differ by less differ by what the process adds up in another order."""
TAKEN, TRIED, CLOSED = 3, 1, 2
"""Ranks of candidates that are in the batch, were tried, or should not be tried again."""


@dataclass(frozen=True)
class Bayes(Observing):
    """Gaussian-process search in the box [-bound, bound]^d, or over the rows of a pool.

    The server plans each round's first batch from all that clients told, and broadcasts that batch
    alone; in a pool with the turn of each candidate, so that all are compared on the same examples
    in the same order. A client that takes more steps goes on from what it was told itself in this
    round: let it take one, unless it is to search alone.

    Attributes:
        batch: candidates per step (at most the distinct ones of a pool). Few, so that each batch
            knows what the last one brought.
        initial: distinct candidates to try before the process is asked, in whole batches: the
            starting prompt, then in a box a scrambled Sobol sequence over all of it, in a pool
            always the candidate farthest from those tried.
        acquisition: ``"ei"``, expected improvement with fantasies, or ``"thompson"``, minima of
            functions drawn from the posterior.
        kernel: ``"matern"`` of points, or ``"coupled"``, the published one: candidates are alike
            if they did alike on the same examples. It reads each client's mean loss over the first
            part of its examples (rounds.batch of them), which clients send in any case; the
            published form sends the loss of every single example. Until three candidates are
            answered it is ``"matern"``.
        residual: of the coupled kernel, see :class:`fedbbpt.maths.gp_coupled.Coupled`; 0 as
            published, which leaves nothing to explore far from what was tried.
        ard: a lengthscale for every dimension. A pool's embeddings have too many of them for that.
        lengthscale: what is expected of it before anything is seen: ``"median"``, about the
            typical distance of two points; ``"gamma"``, the published Gamma(3, 6).
        repeats: candidates of a pool may be asked again while others are untried. Worth its price
            only where a second answer comes from other examples: other clients, or rounds.batch.
        bound: half-width of the box, as published; not used in a pool.
        tolerance: in a pool the search ends when no candidate is expected to be better than the
            best by this much, in units of the loss, which is never below 0; 0 as published, where
            the budget ends it.
        delta: in a pool, candidates that another one beats beyond doubt are never asked again and
            cannot be the best; at most with this probability the truly best one ever suffers that
            (:mod:`fedbbpt.maths.racing`). For losses in [0, 1]; 0 lets every candidate stay.
        examples: behind one observation, at least: the fewest that a client has or rounds.batch
            gives it. Doubt ends sooner where it is said; 1 is always safe.

    Raises:
        ConfigError: an option is out of range.
    """

    batch: int = 4
    initial: int = 8
    acquisition: Acquisition = "ei"
    kernel: Covariance = "matern"
    residual: float = 1.0
    ard: bool = False
    lengthscale: Lengthscale = "median"
    repeats: bool = False
    bound: float = 1.0
    tolerance: float = 0.0
    delta: float = 0.05
    examples: int = 1

    spaces: ClassVar[frozenset[str]] = frozenset({"pool", "real"})

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.batch < 1 or self.initial < 2:
            raise ConfigError(
                f"bayes batch is {self.batch} and initial {self.initial}; they must be at least "
                "1 and 2"
            )
        if not 0 < self.bound < math.inf:
            raise ConfigError(f"bayes bound is {self.bound}; it must be a positive number")
        for key, number in (
            ("residual", self.residual),
            ("tolerance", self.tolerance),
        ):
            if not 0 <= number < math.inf:
                raise ConfigError(f"bayes {key} is {number}; it must be 0 or more")
        refuse_bad_racing("bayes", self.delta, self.examples)
        for key, value, known in (
            ("acquisition", self.acquisition, get_args(Acquisition)),
            ("lengthscale", self.lengthscale, get_args(Lengthscale)),
            ("kernel", self.kernel, get_args(Covariance)),
        ):
            if value not in known:
                raise ConfigError(f"bayes {key} is {value!r}; it must be one of {known}")
        if self.ard and self.kernel == "coupled":
            raise ConfigError(
                "bayes ard is on; the coupled kernel has one lengthscale: turn it off"
            )

    def plan(self, state: ObservedState, rng: np.random.Generator) -> ObservedState:
        """With the next batch, behind what is planned already; in a pool distinct rows."""
        count = self.batch - len(state.next_points)
        if count < 1:
            return state
        if not state.finite:
            return planned(state, self._places(state, count, rng))
        now = self._standing(state)
        count = min(self.batch, len(now.rows)) - len(state.next_points)
        if count < 1:
            return state
        chosen = self._rows(state, now, count, rng)
        return planned(state, now.rows[chosen, None], now.turns[chosen])

    def done(self, state: ObservedState) -> bool:
        """Whether in a pool nothing may be tried that could still be the best, or is expected to be
        better by as much as the tolerance.
        """
        if not state.finite:
            return False
        now = self._standing(state)
        return now.exhausted(self.repeats) or self._settled(state, now)

    def _settled(self, state: ObservedState, now: Standing) -> bool:
        model = self._model(state) if self.tolerance and self._covered(state) else None
        if model is None:
            return False
        there = model.at(now.points[~now.closed])
        gains = expected_improvement(there.mean, there.variance, float(model.fitted.min()))
        best = model.at(model.seen.points[[np.argmin(model.fitted)]])
        again = now.turns[(now.points == best.points[0]).all(axis=1)] > 1
        # No loss is below 0, which the process does not know: the best leaves so much room. One
        # turn may have been luck.
        room = expected_improvement(-best.mean, best.variance, 0.0)[0] if again.all() else np.inf
        return bool(min(gains.max(), room) < self.tolerance)

    def best(self, state: ObservedState) -> Array:
        """Of the candidates answered the one of lowest expectation; at first the start.

        One that is worse than another beyond doubt is not taken.
        """
        model = self._model(state)
        if model is None:
            return state.pool[0].copy() if state.finite else np.zeros(state.pool.shape[1:])
        feared = model.fitted.copy()
        if state.finite:
            now = self._standing(state)
            losers = {row.tobytes() for row in now.points[now.out]}
            out = np.array([row.tobytes() in losers for row in model.seen.points])
            feared[out & ~out.all()] = np.inf
        # In a tie the start, the zero point, is kept.
        start = (model.seen.points == 0).all(axis=1)
        row = np.argmin(feared - TIE * start)
        return np.asarray(model.seen.points[row].reshape(state.pool.shape[1:]))

    def expected(self, state: ObservedState) -> Array | None:
        """(N, 3) of a pool's candidates: expected loss, its standard deviation, and the number of
        answers. NaN before the first answer.
        """
        if not state.finite:
            return None
        model = self._model(state)
        told = history(state).answers.points[:, 0].astype(np.int64)
        count = np.bincount(told, minlength=len(state.pool)).astype(np.float64)
        nothing = np.full(len(count), np.nan)
        if model is None:
            return np.stack([nothing, nothing, count], axis=1)
        there = model.at(flat(state.pool))
        return np.stack([there.mean, np.sqrt(there.variance), count], axis=1)

    # --- the model -------------------------------------------------------------------------------

    def _standing(self, state: ObservedState) -> Standing:
        return standing(state, self.delta, self.examples)

    def _covered(self, state: ObservedState) -> bool:
        """Whether the first design is done."""
        wanted = self.initial
        if state.finite:
            wanted = min(wanted, len(np.unique(flat(state.pool), axis=0)))
        return len(np.unique(history(state).points, axis=0)) >= wanted

    def _model(self, state: ObservedState) -> Posterior | None:
        """The process given all answers, or ``None`` if there is none."""
        options = (self.kernel, self.residual, self.ard, self.lengthscale, self.bound)
        return process(state, *options)

    # --- candidates ------------------------------------------------------------------------------

    def _rows(
        self, state: ObservedState, now: Standing, count: int, rng: np.random.Generator
    ) -> Array:
        """(count,) positions among the distinct candidates of a pool."""
        model = self._model(state) if self._covered(state) else None
        again = 0 if self.repeats and model is not None else TRIED
        ranks = np.where(now.closed, CLOSED, np.where(now.tried, again, 0))
        taken = np.isin(now.rows, state.next_points[:, 0].astype(np.int64))
        ranks[taken] = TAKEN
        if model is None:
            return cover(now.points, now.tried, taken, ranks, count, rng)
        return self._chosen(model, now.points, ranks, count, rng)

    def _places(self, state: ObservedState, count: int, rng: np.random.Generator) -> Array:
        """(count, d) points of the box."""
        dimensions = state.seen_points.shape[1]
        model = self._model(state) if self._covered(state) else None
        if model is None:
            points = sobol(count, dimensions, self.bound, rng)
            if not len(history(state).points) and not len(state.next_points):
                points[0] = 0.0
            return points

        wary = cautious(history(state), model)
        lowest = float(wary.fitted.min())

        def gain(points: Array) -> Array:
            there = wary.at(points)
            return log_expected_improvement(there.mean, there.variance, lowest)

        centre = wary.seen.points[np.argmin(wary.fitted)]
        points = climb(gain, centre, self.bound, rng)
        ranks = np.zeros(len(points), np.int64)
        return np.asarray(points[self._chosen(wary, points, ranks, count, rng)])

    def _chosen(
        self, model: Posterior, points: Array, ranks: Array, count: int, rng: np.random.Generator
    ) -> Array:
        """Which of some points to try, by the acquisition."""
        there, noise = model.at(points), model.noise / float(np.median(model.seen.weights))
        if self.acquisition == "thompson":
            return thompson_batch(there, count, ranks, rng)
        return believe_batch(there, float(model.fitted.min()), noise, count, ranks)
