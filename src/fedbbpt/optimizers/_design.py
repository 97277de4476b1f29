"""Where a model-based search looks: first points that cover a space, later ones near the best."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import numpy as np
from scipy.spatial.distance import cdist, pdist

from fedbbpt.arrays import Array
from fedbbpt.maths.gp import Posterior, condition, observe
from fedbbpt.optimizers._observed import History

SPREAD, CLIMBERS, NEAR = 256, 8, 16
"""Candidates over the whole box; how many of them climb, with how many neighbours per step."""
REACHES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
"""Standard deviations of a climber's neighbours, as shares of the box's half-width."""
SAMPLE = 200


def sobol(count: int, dimensions: int, bound: float, rng: np.random.Generator) -> Array:
    """(count, dimensions) points of a scrambled Sobol sequence over all of [-bound, bound]^d.

    The public InstructZero code draws them in [0, 1]^d and searches [-1, 1]^d: in ten dimensions
    its design sees a thousandth of the box.
    """
    from scipy.stats import qmc

    # scipy renamed the argument in 1.15, and spawns from a generator, which a keyed one cannot.
    name = "rng" if "rng" in signature(qmc.Sobol).parameters else "seed"
    number = int(rng.integers(2**31))
    sequence = qmc.Sobol(dimensions, scramble=True, **{name: number})
    # Fewer than a power of two are the beginning of one, which keeps them balanced.
    unit = sequence.random_base2(max(0, (count - 1).bit_length()))[:count]
    return np.asarray(bound * (2 * unit - 1))


def cover(
    points: Array,
    tried: Array,
    planned: Array,
    ranks: Array,
    count: int,
    rng: np.random.Generator,
) -> Array:
    """Candidates of a pool that cover it: see :func:`farthest`, from those tried and planned.

    Where nothing was tried and something is planned all the same, it is because a merge that keeps
    no observations put it there. They are drawn then, as the farthest would be the same in every
    round.
    """
    if planned.any() and not tried.any():
        return np.lexsort((rng.random(len(points)), ranks))[:count]
    return farthest(points, tried | planned, ranks, count)


def farthest(points: Array, taken: Array, ranks: Array, count: int) -> Array:
    """Points one after the other, each as far as can be from those taken (Gonzalez 1985).

    Its largest distance from any point to the next one chosen is at most twice the least possible.

    Args:
        points: (N, d).
        taken: (N,) bool; if none is, the first point is chosen first.
        ranks: (N,), of the points left the ones of lowest rank are chosen first.
        count: how many, at most N.

    Returns:
        (count,) rows.
    """
    left, chosen = np.ones(len(points), np.bool_), []
    gap = np.full(len(points), np.inf)
    if taken.any():
        gap = cdist(points, points[taken]).min(axis=1)
    for _ in range(count):
        open_ = np.flatnonzero(left & (ranks == ranks[left].min()))
        row = int(open_[np.argmax(gap[open_])])
        chosen.append(row)
        left[row] = False
        gap = np.minimum(gap, cdist(points, points[row : row + 1])[:, 0])
    return np.array(chosen, np.int64)


def climb(
    gain: Callable[[Array], Array], centre: Array, bound: float, rng: np.random.Generator
) -> Array:
    """Candidates in a box: over all of it, about the best point so far, and uphill from there.

    Args:
        gain: (m, d) points to what is to be large, (m,).
        centre: (d,) the best point so far.
        bound: half-width of the box.

    Returns:
        (m, d) distinct points; all that were looked at.
    """
    dimensions = len(centre)
    near = centre + bound * REACHES[0] * rng.standard_normal((SPREAD // 4, dimensions))
    points = np.concatenate([sobol(SPREAD, dimensions, bound, rng), near]).clip(-bound, bound)
    seen, best = [points], points[np.argsort(-gain(points), kind="stable")[:CLIMBERS]]
    for reach in REACHES:
        moves = bound * reach * rng.standard_normal((len(best), NEAR, dimensions))
        tried = np.concatenate([best[:, None], (best[:, None] + moves).clip(-bound, bound)], axis=1)
        gains = gain(tried.reshape(-1, dimensions)).reshape(len(best), -1)
        best = tried[np.arange(len(best)), gains.argmax(axis=1)]
        seen.append(tried[:, 1:].reshape(-1, dimensions))
    return np.unique(np.concatenate(seen), axis=0)


def cautious(every: History, model: Posterior) -> Posterior:
    """The process in a box if what was never answered were as bad as the worst that was.

    Else the surroundings of such a place look as promising in every step to come (the constant
    liar of Ginsbourger et al. 2010 serves points that are still to be answered in the same way).
    """
    distinct, group = np.unique(every.points, axis=0, return_inverse=True)
    holes = distinct[np.bincount(group.reshape(-1), every.weights, len(distinct)) == 0]
    if not len(holes):
        return model
    seen, count = model.seen, len(holes)
    merged = observe(
        np.concatenate([seen.points, holes]),
        np.concatenate([seen.values, np.full(count, seen.values.max())]),
        np.concatenate([seen.weights, np.full(count, np.median(seen.weights))]),
    )
    return condition(model.kernel, merged, model.noise, model.mean)


def typical_distance(points: Array) -> float:
    """Median distance between points, of up to ``SAMPLE`` of them; 1 if they are all the same."""
    rows = np.linspace(0, len(points) - 1, min(len(points), SAMPLE)).astype(np.int64)
    distances = pdist(points[rows])
    distances = distances[distances > 0]
    return float(np.median(distances)) if len(distances) else 1.0
