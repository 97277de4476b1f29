"""The Gaussian process behind a search, from all that the search remembers."""

from __future__ import annotations

import math

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.maths.gp import Observed, Posterior, condition, observe
from fedbbpt.maths.gp_coupled import aligned, fit_coupled
from fedbbpt.maths.gp_fit import Prior, fit
from fedbbpt.maths.racing import by_turn
from fedbbpt.optimizers._design import typical_distance
from fedbbpt.optimizers._observed import History, ObservedState, coordinates, flat, history
from fedbbpt.random import stream

FEWEST = 3
"""Candidates seen before score vectors say anything about which of them are alike."""


def process(
    state: ObservedState, kernel: str, residual: float, ard: bool, lengthscale: str, bound: float
) -> Posterior | None:
    """The process given all answers, or ``None`` if there is none.

    Args:
        state: what was observed.
        kernel, residual, ard, lengthscale, bound: see :class:`fedbbpt.optimizers.bayes.Bayes`.
    """
    answers = history(state).answers
    if not len(answers.losses):
        return None
    where = coordinates(state, answers.points)
    seen = observe(where, answers.losses, answers.weights)
    # Two points of a box are about as far apart as their coordinates' variances add up to.
    spread = bound * math.sqrt(2 / 3 * where.shape[1])
    typical = typical_distance(flat(state.pool)) if state.finite else spread
    # Where it starts is no choice of a step: best must see the process that plan has seen.
    rng = stream(0, "bayes fit")
    if lengthscale == "gamma":
        prior = Prior(gamma=(3.0, 6.0))
    else:
        prior = Prior(lengthscale=(typical, 1.0))
    if kernel == "coupled" and len(seen.points) >= FEWEST:
        scores = _scores(seen, answers)
        if lengthscale == "median":
            scores *= typical / typical_distance(scores)
        coupled, noise = fit_coupled(seen, scores, prior, residual=residual, rng=rng)
        return condition(coupled, seen, noise)
    matern, noise = fit(seen, prior, ard=ard, rng=rng)
    return condition(matern, seen, noise)


def _scores(seen: Observed, answers: History) -> Array:
    """(u, clients) mean losses of the points seen on the first part of each client's examples."""
    table = by_turn(seen.group, answers.clients, answers.turns, answers.losses)
    return np.asarray(aligned(table[:, :, 0], seen.values))
