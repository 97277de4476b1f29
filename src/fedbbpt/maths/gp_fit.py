"""Hyper-parameters of a Gaussian process: the most likely ones, by gradient and a few restarts.

Equation (5.9) of C. E. Rasmussen & C. K. I. Williams, *Gaussian Processes for Machine Learning*,
MIT Press 2006; shapes as in :mod:`fedbbpt.maths.gp`. All searches are for logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from fedbbpt.arrays import Array
from fedbbpt.maths.gp import ROOT5, Matern, Observed, cholesky, level, scattered

RANGE = {"lengthscale": 100.0, "amplitude": 1e3, "noise": 1e5}
"""Factors by which hyper-parameters may leave the median of their prior, both ways."""
STEPS = 60
"""Most iterations of a start; a search in three logarithms takes 10 to 30."""


class Prior(NamedTuple):
    """What is known of the hyper-parameters of values that have mean 0 and variance 1.

    Each is log-normal: (median, standard deviation of the logarithm), ``inf`` for nothing known.
    The most likely value is that of the logarithm. The defaults keep 3 to 10 observations from
    being explained by noise alone or by none.

    Attributes:
        lengthscale, amplitude, noise: of the logarithm of each.
        gamma: in place of ``lengthscale``'s standard deviation: shape and rate of a Gamma density
            of every lengthscale; InstructZero has (3, 6), for points in [-1, 1]^d.
    """

    lengthscale: tuple[float, float] = (1.0, 1.0)
    amplitude: tuple[float, float] = (1.0, 1.0)
    noise: tuple[float, float] = (0.1, 1.5)
    gamma: tuple[float, float] | None = None

    def penalty(self, theta: Array, lengths: int) -> tuple[float, Array]:
        """Minus the log density, but for a constant, of log (amplitude, lengthscales.., noise).

        Returns:
            It and its gradient.
        """
        known = np.array([self.amplitude, *[self.lengthscale] * lengths, self.noise])
        spread = known[:, 1].copy()
        if self.gamma is not None:
            spread[1:-1] = np.inf
        z = (theta - np.log(known[:, 0])) / spread
        value, slope = 0.5 * float(z @ z), z / spread
        if self.gamma is not None:
            shape, rate = self.gamma
            length = np.exp(theta[1:-1])
            value += float((rate * length - (shape - 1) * theta[1:-1]).sum())
            slope[1:-1] += rate * length - (shape - 1)
        return value, slope

    def start(self, lengths: int) -> Array:
        """Where a search begins: the medians, or the Gamma's mode."""
        length = self.lengthscale[0]
        if self.gamma is not None:
            length = max(self.gamma[0] - 1, 0.1) / self.gamma[1]
        return np.log([self.amplitude[0], *[length] * lengths, self.noise[0]])


def fit(
    seen: Observed,
    prior: Prior | None = None,
    *,
    ard: bool = False,
    mean: float | None = None,
    restarts: int = 1,
    rng: np.random.Generator | None = None,
) -> tuple[Matern, float]:
    """The most probable Matern kernel and noise.

    Args:
        seen: observations; their values are brought to mean 0 and variance 1 for the search.
        prior: of the hyper-parameters after that.
        ard: one lengthscale for every dimension, and not one for all.
        mean: constant prior mean; left out, the most likely one for every kernel tried.
        restarts: starts besides the prior's medians, drawn about them by ``rng``; none without.

    Returns:
        Kernel, and the noise variance of an observation of weight 1, in the values' own units.
    """
    prior = Prior() if prior is None else prior
    lengths = seen.points.shape[1] if ard else 1
    scaled, scale = standardised(seen, mean)
    # One lengthscale only stretches the distances, which are then measured once.
    distance = None if ard else cdist(seen.points, seen.points)
    fixed = None if mean is None else 0.0

    def objective(theta: Array) -> tuple[float, Array]:
        value, slope = _likelihood(theta, scaled, distance, fixed)
        penalty, pull = prior.penalty(theta, lengths)
        return value + penalty, slope + pull

    theta = search(objective, prior, lengths, restarts, rng)
    amplitude, noise = np.exp(theta[[0, -1]]) * scale**2
    return Matern(float(amplitude), np.exp(theta[1:-1])), float(noise)


def standardised(seen: Observed, mean: float | None = None) -> tuple[Observed, float]:
    """The observations with mean 0 (or less ``mean``) and variance 1, and their old deviation."""
    centre = float(np.average(seen.values, weights=seen.weights)) if mean is None else mean
    scale = float(np.std(seen.values)) or 1.0
    values, scatter = (seen.values - centre) / scale, seen.scatter / scale**2
    return seen._replace(values=values, scatter=scatter), scale


def search(
    objective: Callable[[Array], tuple[float, Array]],
    prior: Prior,
    lengths: int,
    restarts: int,
    rng: np.random.Generator | None,
) -> Array:
    """The lowest end of L-BFGS-B from the prior's medians and from starts drawn about them.

    Args:
        objective: value and gradient, of log (amplitude, lengthscales.., noise).
        prior, lengths, restarts, rng: see :func:`fit`.
    """
    first = prior.start(lengths)
    starts = [first]
    if rng is not None:
        starts += [first + rng.standard_normal(len(first)) for _ in range(restarts)]
    room = np.log([RANGE["amplitude"], *[RANGE["lengthscale"]] * lengths, RANGE["noise"]])
    bounds = list(zip(first - room, first + room, strict=True))
    options = {"maxiter": STEPS}
    ends = [
        minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for start in starts
    ]
    return np.asarray(min(ends, key=lambda end: float(end.fun)).x)


def _likelihood(
    theta: Array, seen: Observed, distance: Array | None, mean: float | None
) -> tuple[float, Array]:
    """Minus the log marginal likelihood, and its gradient by the logarithms (5.9).

    With s the slope of a covariance by log r^2, a lengthscale's own gradient needs only sums of
    s (x_i - x_j)^2, which are those of s x_i^2 less twice those of s x_i x_j.
    """
    amplitude, length, noise = math.exp(theta[0]), np.exp(theta[1:-1]), math.exp(theta[-1])
    points = seen.points / length
    r = cdist(points, points) if distance is None else distance / length
    decay = amplitude * np.exp(-ROOT5 * r)
    kernel = (1 + ROOT5 * r + 5 / 3 * r**2) * decay
    value, inner, by_noise = evidence(kernel, noise, seen, mean)
    slope = inner * (5 / 3 * (1 + ROOT5 * r) * decay)
    if distance is None:
        by_length = -(slope.sum(axis=1) @ points**2 - ((slope @ points) * points).sum(axis=0))
    else:
        by_length = np.array([-0.5 * float((slope * r**2).sum())])
    return value, np.array([-0.5 * float((inner * kernel).sum()), *by_length, by_noise])


def evidence(
    covariance: Array, noise: float, seen: Observed, mean: float | None = None
) -> tuple[float, Array, float]:
    """Minus the log marginal likelihood of a covariance of the points seen, and its slopes (5.9).

    Args:
        covariance: (u, u).
        noise: variance of an observation of weight 1.
        seen: observations.
        mean: constant prior mean; left out, the most likely one.

    Returns:
        The value; G, (u, u), of which -1/2 sum(G * slope) is the slope by anything that moves the
        covariance; the slope by log noise.
    """
    own = noise / seen.weights
    factor = cholesky(covariance + np.diag(own))
    # The most likely mean has no slope of its own, so the gradient may take it as fixed.
    residual = seen.values - (level(factor, seen.values) if mean is None else mean)
    inverse = cho_solve((factor, True), np.eye(len(residual)), check_finite=False)
    alpha = inverse @ residual
    value = 0.5 * float(residual @ alpha) + float(np.log(np.diag(factor)).sum())
    value += 0.5 * len(residual) * math.log(2 * math.pi) + scattered(seen, noise)
    inner = np.outer(alpha, alpha) - inverse
    by_noise = -0.5 * float(np.diag(inner) @ own)
    if seen.repeats:
        by_noise += 0.5 * (seen.repeats - seen.scatter / noise)
    return value, inner, by_noise
