"""Which points to try next, given a Gaussian process of the loss: lower is better everywhere.

Expected improvement over the lowest *expectation* among the points seen, since no loss is seen
without noise (the plug-in rule of Picheny et al., *Structural and Multidisciplinary
Optimization* 2013); its logarithm after Ament et al., *Unexpected Improvements to Expected
Improvement for Bayesian Optimization*, NeurIPS 2023, arXiv:2310.20708, equation (9). Batches by
fantasies (kriging believer: Ginsbourger et al. 2010) or by Thompson sampling.

Points have ranks: of those left the ones of lowest rank are taken first, none is taken twice.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, ndtr

from fedbbpt.arrays import Array
from fedbbpt.maths.gp import Predictions, cholesky

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_HALF_LOG_PI_OVER_2 = 0.5 * math.log(math.pi / 2)


def expected_improvement(mean: Array, variance: Array, best: float) -> Array:
    """E max(best - f, 0) for normal f, of any shape; certain values improve by what they are."""
    deviation = np.sqrt(variance)
    sure = deviation == 0
    z = (best - mean) / np.where(sure, 1.0, deviation)
    density = np.exp(-0.5 * z**2 - _HALF_LOG_2PI)
    return np.where(sure, np.maximum(best - mean, 0.0), deviation * (density + z * ndtr(z)))


def log_expected_improvement(mean: Array, variance: Array, best: float) -> Array:
    """Its logarithm, which still tells points apart where the improvement is below 1e-308."""
    deviation = np.sqrt(variance)
    sure = deviation == 0
    z = (best - mean) / np.where(sure, 1.0, deviation)
    with np.errstate(divide="ignore"):
        certain = np.log(np.maximum(best - mean, 0.0))
        return np.where(sure, certain, np.log(deviation) + _log_h(z))


def _log_h(z: Array) -> Array:
    """log(phi(z) + z Phi(z))."""
    near = np.maximum(z, -1.0)
    plain = np.log(np.exp(-0.5 * near**2 - _HALF_LOG_2PI) + near * ndtr(near))
    far = -np.minimum(z, -1.0)
    # Beyond 1e4 rounding spoils the difference below more than -2 log |z| is away from it.
    middle = np.minimum(far, 1e4)
    ratio = np.log(erfcx(middle / math.sqrt(2)) * middle) + _HALF_LOG_PI_OVER_2
    small = np.where(far < 1e4, np.log(-np.expm1(ratio)), -2 * np.log(far))
    tail = -0.5 * far**2 - _HALF_LOG_2PI + small
    return np.where(z > -1.0, plain, tail)


def believe_batch(
    predictions: Predictions, best: float, noise: float, count: int, ranks: Array
) -> Array:
    """Points one after the other by expected improvement, each believed to be as expected.

    Args:
        predictions: of m candidates.
        best: lowest expectation among the points seen.
        noise: variance of one more observation.
        count: how many to choose, at most m.
        ranks: (m,) see above.

    Returns:
        (count,) positions, in the order in which they were chosen.
    """
    left, chosen = np.ones(len(ranks), np.bool_), []
    for _ in range(count):
        gains = log_expected_improvement(predictions.mean, predictions.variance, best)
        pick = _lowest(-gains, left, ranks)
        chosen.append(pick)
        left[pick] = False
        best = min(best, float(predictions.mean[pick]))
        predictions = predictions.believe(pick, noise)
    return np.array(chosen, np.int64)


def thompson_batch(
    predictions: Predictions, count: int, ranks: Array, rng: np.random.Generator
) -> Array:
    """The lowest point of each of ``count`` functions drawn from the joint posterior.

    A point that an earlier draw has taken is passed over, so the later draw's next one is taken.

    Returns:
        (count,) positions.
    """
    # Rounding errors are as large as the prior makes them, however sure the posterior is.
    prior = float(predictions.kernel.diagonal(predictions.points).mean())
    factor = cholesky(predictions.covariance(), prior)
    left, chosen = np.ones(len(ranks), np.bool_), []
    for _ in range(count):
        drawn = predictions.mean + factor @ rng.standard_normal(len(ranks))
        chosen.append(_lowest(drawn, left, ranks))
        left[chosen[-1]] = False
    return np.array(chosen, np.int64)


def _lowest(values: Array, left: Array, ranks: Array) -> int:
    """Position of the lowest value among those left of lowest rank."""
    open_ = np.flatnonzero(left & (ranks == ranks[left].min()))
    return int(open_[np.argmin(values[open_])])
