"""Gaussian-process regression on few, noisy and repeated observations, in double precision.

Numbers in brackets are equations of C. E. Rasmussen & C. K. I. Williams, *Gaussian Processes for
Machine Learning*, MIT Press 2006. An observation of weight w has noise of variance ``noise / w``:
a mean loss over w examples is w times as sure as the loss of one.

Shapes: n observations, u distinct points among them, m points to predict, d dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.spatial.distance import cdist

from fedbbpt.arrays import Array

ROOT5 = math.sqrt(5.0)
JITTERS = (0.0, 1e-10, 1e-8, 1e-6)
"""Shares of the variance that are added to the diagonal, in turn, until it can be factored."""


class Kernel(Protocol):
    """A prior covariance."""

    def __call__(self, a: Array, b: Array) -> Array:
        """(len(a), len(b)) covariances of points (len(a), d) and (len(b), d)."""

    def diagonal(self, a: Array) -> Array:
        """(len(a),) variances."""


@dataclass(frozen=True, eq=False)
class Matern:
    """Matern covariance with smoothness 5/2 (4.17).

    Attributes:
        amplitude: prior variance.
        lengthscale: (1,), or (d,) for automatic relevance determination.
    """

    amplitude: float
    lengthscale: Array

    def __call__(self, a: Array, b: Array) -> Array:
        """Covariances of two sets of points."""
        distance = cdist(a / self.lengthscale, b / self.lengthscale)
        return np.asarray(self.amplitude * matern52(distance))

    def diagonal(self, a: Array) -> Array:
        """The amplitude, everywhere."""
        return np.full(len(a), self.amplitude)


def matern52(distance: Array) -> Array:
    """Correlation at a distance in lengthscales."""
    return np.asarray((1 + ROOT5 * distance + 5 / 3 * distance**2) * np.exp(-ROOT5 * distance))


# --- what was seen -------------------------------------------------------------------------------


class Observed(NamedTuple):
    """Observations, those of one point made into one; nothing that a likelihood needs is lost.

    Attributes:
        points: (u, d) distinct points, in lexicographic order.
        values: (u,) means over the observations of a point, weighted by their precision.
        weights: (u,) sums of weights.
        group: (n,) which point each observation is of.
        scatter: sum of w (y - its point's mean)^2.
        log_weights: half the sum of log w, less that of the sums'.
    """

    points: Array
    values: Array
    weights: Array
    group: Array
    scatter: float
    log_weights: float

    @property
    def repeats(self) -> int:
        """How many observations were of a point seen before."""
        return len(self.group) - len(self.points)


def observe(points: Array, values: Array, weights: Array | None = None) -> Observed:
    """Merge observations of the same point: the posterior stays the same, the matrices shrink.

    Args:
        points: (n, d).
        values: (n,).
        weights: (n,), above 0; left out, all 1.

    Raises:
        ValueError: nothing was observed, a weight is not positive, or a number is not finite.
    """
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if not len(values) or not (np.isfinite(values).all() and np.isfinite(points).all()):
        raise ValueError("a Gaussian process needs one observation or more, all finite")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"weights of observations must be above 0; the least is {weights.min()}")
    distinct, group = np.unique(points, axis=0, return_inverse=True)
    group = group.reshape(-1)
    total = np.bincount(group, weights)
    means = np.bincount(group, weights * values) / total
    scatter = float(weights @ (values - means[group]) ** 2)
    log_weights = 0.5 * float(np.log(weights).sum() - np.log(total).sum())
    return Observed(distinct, means, total, group, scatter, log_weights)


# --- what follows --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Predictions:
    """A posterior at m points.

    Attributes:
        kernel: the prior.
        points: (m, d).
        mean: (m,) expectations; ``variance``: (m,) variances, of the function without noise.
        whitened: (u, m), the prior covariances with what was seen, whitened.
    """

    kernel: Kernel
    points: Array
    mean: Array
    variance: Array
    whitened: Array

    def covariance(self) -> Array:
        """(m, m) joint covariance (2.26)."""
        prior = self.kernel(self.points, self.points)
        return np.asarray(prior - self.whitened.T @ self.whitened)

    def believe(self, chosen: int, noise: float) -> Predictions:
        """After a fantasy: the point ``chosen`` was observed to be what is expected of it.

        No expectation moves (the kriging believer of Ginsbourger et al. 2010), variances shrink as
        they will, whatever the true value.

        Args:
            chosen: position among the points.
            noise: variance of that observation.
        """
        total = float(self.variance[chosen]) + noise
        if not total > 0:
            return self
        column = self.kernel(self.points, self.points[chosen : chosen + 1])[:, 0]
        row = (column - self.whitened.T @ self.whitened[:, chosen]) / math.sqrt(total)
        variance = np.maximum(self.variance - row**2, 0.0)
        whitened = np.vstack([self.whitened, row])
        return Predictions(self.kernel, self.points, self.mean, variance, whitened)


@dataclass(frozen=True, eq=False)
class Posterior:
    """A Gaussian process given observations.

    Attributes:
        kernel, noise, mean: the prior, and the noise of an observation of weight 1.
        seen: the observations.
        factor: (u, u), lower Cholesky factor of their covariance.
        alpha: (u,), that covariance's inverse times (values - mean).
        fitted: (u,), expectations at the points seen.
    """

    kernel: Kernel
    noise: float
    mean: float
    seen: Observed
    factor: Array
    alpha: Array
    fitted: Array

    def at(self, points: Array) -> Predictions:
        """Mean and variance at (m, d) points (2.25, 2.26)."""
        across = self.kernel(self.seen.points, points)
        whitened = solve_triangular(self.factor, across, lower=True, check_finite=False)
        variance = np.maximum(self.kernel.diagonal(points) - (whitened**2).sum(axis=0), 0.0)
        mean = self.mean + across.T @ self.alpha
        return Predictions(self.kernel, points, mean, variance, whitened)

    def log_likelihood(self) -> float:
        """Log marginal likelihood of all observations, repeated ones included (2.30).

        The observations of one point add, given its value, a factor for their scatter.
        """
        seen = self.seen
        quadratic = (seen.values - self.mean) @ self.alpha
        log_det = np.log(np.diag(self.factor)).sum()
        total = -0.5 * quadratic - log_det - 0.5 * len(seen.values) * math.log(2 * math.pi)
        return float(total - scattered(seen, self.noise)) + seen.log_weights


def condition(kernel: Kernel, seen: Observed, noise: float, mean: float | None = None) -> Posterior:
    """The posterior for given hyper-parameters.

    Args:
        kernel: prior covariance.
        seen: from :func:`observe`.
        noise: variance of an observation of weight 1.
        mean: constant prior mean; left out, the most likely one (2.42 for a constant, with a flat
            prior; its own uncertainty is left out).

    Raises:
        numpy.linalg.LinAlgError: the kernel is no covariance, not even with jitter.
    """
    covariance = kernel(seen.points, seen.points)
    factor = cholesky(covariance + np.diag(noise / seen.weights))
    mean = level(factor, seen.values) if mean is None else mean
    alpha = cho_solve((factor, True), seen.values - mean, check_finite=False)
    return Posterior(kernel, noise, mean, seen, factor, alpha, mean + covariance @ alpha)


def cholesky(covariance: Array, scale: float | None = None) -> Array:
    """Lower factor of a covariance, with as little jitter as it takes.

    Args:
        covariance: (n, n).
        scale: what jitter is a share of; the mean variance if left out.

    Raises:
        numpy.linalg.LinAlgError: the most jitter is not enough.
    """
    scale = float(np.trace(covariance)) / len(covariance) if scale is None else scale
    for jitter in JITTERS:
        try:
            return np.linalg.cholesky(covariance + jitter * scale * np.eye(len(covariance)))
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError(f"no covariance, not even with a jitter of {JITTERS[-1] * scale}")


def level(factor: Array, values: Array) -> float:
    """The most likely constant mean of values whose covariance has this lower factor (2.42)."""
    ones = cho_solve((factor, True), np.ones(len(values)), check_finite=False)
    return float(ones @ values / ones.sum())


def scattered(seen: Observed, noise: float) -> float:
    """Minus the log density of the scatter of repeated observations about their means."""
    if not seen.repeats:
        return 0.0
    if not noise > 0:
        return math.inf
    return 0.5 * (seen.scatter / noise + seen.repeats * math.log(2 * math.pi * noise))
