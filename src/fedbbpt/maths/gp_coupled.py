"""InstructZero's kernel: two soft prompts are alike if their instructions answer alike.

Chen et al., *InstructZero: Efficient Instruction Optimization for Black-Box Large Language
Models*, ICML 2024, arXiv:2306.03082, section 3.3. With l a Matern correlation of latent points, L
that of the u points seen, and S a Matern correlation of their score vectors,

    A(z) = l(z, Z) [L + eps I]^-1
    k(z, z') = s^2 { A(z) S A(z')' + rho [l(z, z') - A(z) l(Z, z')] }

The published kernel has rho = 0. It is of rank u, and where l(z, Z) is 0 so is its variance: far
from all points seen nothing would be uncertain and nothing worth trying. The second term, with
rho = 1 here, is what the first interpolation leaves unexplained. The published code draws other
examples for every score vector, so that S compares different examples; here they must be the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_solve
from scipy.spatial.distance import cdist

from fedbbpt.arrays import Array
from fedbbpt.maths.gp import ROOT5, Observed, cholesky, matern52
from fedbbpt.maths.gp_fit import Prior, evidence, search, standardised

EPS = 1e-4
"""On the diagonal of L, as published."""
PUBLISHED = Prior(gamma=(3.0, 6.0))
"""Gamma(3, 6) on both lengthscales, as published."""


@dataclass(frozen=True, eq=False)
class Coupled:
    """The instruction-coupled kernel of u seen points.

    Attributes:
        latent: (u, d) points Z that were scored.
        scores: (u, B) scores of their instructions on the same B examples.
        amplitude: s^2.
        lengthscale: (1,) or (d,), of latent points.
        score_lengthscale: (1,) or (B,), of score vectors.
        residual: rho, at least 0; 0 is the published kernel.
        eps: on the diagonal of L.

    Raises:
        ValueError: a score is missing, or there is not one vector for every point.
    """

    latent: Array
    scores: Array
    amplitude: float
    lengthscale: Array
    score_lengthscale: Array
    residual: float = 1.0
    eps: float = EPS

    def __post_init__(self) -> None:
        """Refuse score vectors that cannot be compared."""
        if len(self.scores) != len(self.latent) or not np.isfinite(self.scores).all():
            raise ValueError(
                f"the coupled kernel needs one whole score vector for each of {len(self.latent)} "
                f"points, on the same examples; {len(self.scores)} came, "
                f"{int((~np.isfinite(self.scores)).any(axis=-1).sum())} of them with gaps"
            )

    @cached_property
    def _factor(self) -> Array:
        return cholesky(self._near(self.latent, self.latent) + self.eps * np.eye(len(self.latent)))

    @cached_property
    def _alike(self) -> Array:
        scaled = self.scores / self.score_lengthscale
        return matern52(cdist(scaled, scaled))

    def _near(self, a: Array, b: Array) -> Array:
        return matern52(cdist(a / self.lengthscale, b / self.lengthscale))

    def _weights(self, a: Array) -> tuple[Array, Array]:
        """A(a), (len(a), u), and l(a, Z)."""
        near = self._near(a, self.latent)
        return cho_solve((self._factor, True), near.T, check_finite=False).T, near

    def __call__(self, a: Array, b: Array) -> Array:
        """Covariances of two sets of latent points."""
        (left, _), (right, near) = self._weights(a), self._weights(b)
        rest = self._near(a, b) - left @ near.T
        return np.asarray(self.amplitude * (left @ self._alike @ right.T + self.residual * rest))

    def diagonal(self, a: Array) -> Array:
        """Variances."""
        left, near = self._weights(a)
        explained = ((left @ self._alike) * left).sum(axis=1)
        rest = 1 - (left * near).sum(axis=1)
        return np.asarray(self.amplitude * (explained + self.residual * rest))


def aligned(scores: Array, means: Array) -> Array:
    """Score vectors without gaps: a missing one is what the point's mean and the group's say.

    Args:
        scores: (u, B) of points on groups of examples, NaN where there is none.
        means: (u,) of all that is known of each point.

    Returns:
        (u, B'), without the groups that nobody was scored on.
    """
    there = np.isfinite(scores)
    used = there.any(axis=0)
    scores, there = scores[:, used], there[:, used]
    above = np.where(there, scores - means[:, None], 0.0).sum(axis=0) / there.sum(axis=0)
    return np.where(there, scores, means[:, None] + above)


def fit_coupled(
    seen: Observed,
    scores: Array,
    prior: Prior = PUBLISHED,
    *,
    residual: float = 1.0,
    restarts: int = 1,
    rng: np.random.Generator | None = None,
) -> tuple[Coupled, float]:
    """The most probable coupled kernel with two lengthscales, and the noise.

    Args:
        seen: observations of latent points.
        scores: (u, B), a score vector for each of ``seen.points``, in their order.
        prior, restarts, rng: as for :func:`fedbbpt.maths.gp_fit.fit`.
        residual: see :class:`Coupled`.

    Returns:
        Kernel, and the noise variance of an observation of weight 1, in the values' own units.
    """
    scaled, scale = standardised(seen)
    # One lengthscale only stretches the distances, which are then measured once.
    near, alike = cdist(seen.points, seen.points), cdist(scores, scores)

    def objective(theta: Array) -> tuple[float, Array]:
        value, slope = _likelihood(theta, scaled, near, alike, residual)
        penalty, pull = prior.penalty(theta, 2)
        return value + penalty, slope + pull

    theta = search(objective, prior, 2, restarts, rng)
    amplitude, noise = np.exp(theta[[0, -1]]) * scale**2
    own, other = np.exp(theta[1:3, None])
    return Coupled(seen.points, scores, float(amplitude), own, other, residual), float(noise)


def _likelihood(
    theta: Array, seen: Observed, near: Array, alike: Array, residual: float
) -> tuple[float, Array]:
    """Minus the log marginal likelihood, and its gradient by log (amplitude, lengths, noise).

    With P = [L + eps I]^-1, A = L P and R = I - A, the covariance of the points seen is
    s^2 [A S A' + rho R L]; where L moves, A moves by R dL P and R L by R dL R'.
    """
    amplitude, noise = math.exp(theta[0]), math.exp(theta[-1])
    latent, latent_slope = _matern(near, math.exp(theta[1]))
    score, score_slope = _matern(alike, math.exp(theta[2]))
    eye = np.eye(len(latent))
    inverse = cho_solve((cholesky(latent + EPS * eye), True), eye, check_finite=False)
    weights = latent @ inverse
    rest = eye - weights
    explained = weights @ score @ weights.T
    left = rest @ latent
    covariance = amplitude * (explained + residual * 0.5 * (left + left.T))
    value, inner, by_noise = evidence(covariance, noise, seen)
    moved = rest.T @ inner
    by_latent = 2 * moved @ weights @ score @ inverse + residual * moved @ rest
    by_score = weights.T @ inner @ weights
    slopes = [
        (inner * covariance).sum(),
        amplitude * (by_latent * latent_slope).sum(),
        amplitude * (by_score * score_slope).sum(),
    ]
    return value, np.array([*(-0.5 * np.array(slopes)), by_noise])


def _matern(distance: Array, length: float) -> tuple[Array, Array]:
    """Correlations, and their slopes by the logarithm of the lengthscale."""
    r = distance / length
    return matern52(r), 5 / 3 * r**2 * (1 + ROOT5 * r) * np.exp(-ROOT5 * r)
