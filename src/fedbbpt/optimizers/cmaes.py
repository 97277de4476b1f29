"""CMA-ES: a normal distribution that moves, grows and turns towards the better candidates.

The method of BBT and FedBPT. The maths and its equation numbers are in :mod:`fedbbpt.maths.cma`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths import cma
from fedbbpt.protocols import Optimizer
from fedbbpt.types import Space

StepSize = Literal["csa", "tpa"]


class CmaState(NamedTuple):
    """State of :class:`Cmaes` in n dimensions. Scalars are 0-d arrays.

    Attributes:
        mean: (*shape), the centre of the distribution.
        sigma: (), the step size.
        cov: (n, n), (n,) or (0,): full, separable or isotropic.
        p_sigma: (n,), the path that CSA measures.
        p_c: (n,), the path behind the rank-one update.
        generation: (), generations told since ``init``.
        sigma_sq: (), sum over those generations of the squared step size they were drawn with.
        popsize: (), candidates per generation.
        axes: (n, n), eigenvectors of a recent full ``cov``; (0, 0) means: decompose it first.
        scales: (n,), roots of the eigenvalues; (0,) likewise.
        axes_generation: (), the generation whose ``cov`` has these axes.
        shift: (n,), the last move of the mean, for TPA; zero before there was one.
        trend: (), the running comparison of TPA.
    """

    mean: Array
    sigma: Array
    cov: Array
    p_sigma: Array
    p_c: Array
    generation: Array
    sigma_sq: Array
    popsize: Array
    axes: Array
    scales: Array
    axes_generation: Array
    shift: Array
    trend: Array


@dataclass(frozen=True)
class Cmaes(Optimizer[CmaState]):
    """Covariance matrix adaptation.

    Attributes:
        popsize: candidates per step; 0 means 4 + floor(3 ln n) (48). Under TPA two of them lie on
            both sides of the mean along its last move.
        sigma: step size to start with; 1 as published for BBT and FedBPT.
        covariance: ``"full"`` learns n(n + 1)/2 numbers, which takes many more queries than a
            prompt of hundreds of dimensions ever gets (at n = 500 and 8,000 of them it ends 3%
            away from the identity), and the server sends them all. ``"separable"`` learns and
            sends n, ``"isotropic"`` none.
        step_size: ``"csa"`` measures the path of the mean; ``"tpa"`` compares two candidates, and
            copes better where most dimensions do not matter.
        active: the worse half of the candidates counts too, with negative weights.

    Raises:
        ConfigError: an option is out of range.
    """

    popsize: int = 0
    sigma: float = 1.0
    covariance: cma.Covariance = "separable"
    step_size: StepSize = "csa"
    active: bool = True

    spaces: ClassVar[frozenset[str]] = frozenset({"real"})
    state: ClassVar[type[CmaState]] = CmaState
    shares: ClassVar[tuple[str, ...]] = ("mean", "sigma", "cov")
    averages: ClassVar[tuple[str, ...]] = ("mean", "sigma")
    free: ClassVar[tuple[str, ...]] = ("mean",)
    relative: ClassVar[bool] = True
    positive: ClassVar[tuple[str, ...]] = ("sigma", "sigma_sq")

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        least = 3 if self.step_size == "tpa" else 2
        if self.popsize != 0 and self.popsize < least:
            raise ConfigError(
                f"cmaes popsize is {self.popsize}; it must be at least {least}, or 0 for automatic"
            )
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ConfigError(f"cmaes sigma is {self.sigma}; it must be a positive number")
        for key, value, known in (
            ("covariance", self.covariance, get_args(cma.Covariance)),
            ("step_size", self.step_size, get_args(StepSize)),
        ):
            if value not in known:
                raise ConfigError(f"cmaes {key} is {value!r}; it must be one of {known}")

    def init(self, space: Space) -> CmaState:
        """The distribution N(0, sigma^2 I)."""
        n = math.prod(space.shape)
        cov = {"full": np.eye(n), "separable": np.ones(n), "isotropic": np.ones(0)}
        return CmaState(
            mean=np.zeros(space.shape),
            sigma=np.asarray(self.sigma, dtype=np.float64),
            cov=cov[self.covariance],
            p_sigma=np.zeros(n),
            p_c=np.zeros(n),
            generation=np.asarray(0),
            sigma_sq=np.asarray(0.0),
            popsize=np.asarray(self._popsize(n)),
            axes=np.empty((0, 0)),
            scales=np.empty(0),
            axes_generation=np.asarray(0),
            shift=np.zeros(n),
            trend=np.asarray(0.0),
        )

    def ask(self, state: CmaState, rng: np.random.Generator) -> Array:
        """(popsize, *shape) candidates drawn from the distribution."""
        n = state.mean.size
        z = rng.standard_normal((self._popsize(n), n))  # (38)
        axes = _axes(state)
        y = cma.colour(axes, z)  # (39)
        if self.step_size == "tpa" and state.shift.any():
            # As long as an ordinary candidate, so that the pair may take part in recombination.
            length = np.linalg.norm(z[0]) / np.linalg.norm(cma.whiten(axes, state.shift))
            y[0] = length * state.shift
            y[1] = -y[0]
        points: Array = state.mean + state.sigma * y.reshape(-1, *state.mean.shape)  # (40)
        return points

    def tell(self, state: CmaState, points: Array, losses: Array) -> CmaState:
        """The distribution after a generation.

        Candidates without an answer are left out: ranks, weights and constants are those of the
        generation that was answered. With fewer than two answers nothing is learnt; only
        ``generation`` and ``sigma_sq`` count on.
        """
        told = state._replace(
            generation=np.asarray(state.generation + 1),
            sigma_sq=np.asarray(state.sigma_sq + state.sigma**2),
        )
        answered = np.flatnonzero(np.isfinite(losses))
        if len(answered) < 2:
            return told
        order = answered[np.argsort(losses[answered], kind="stable")]
        c = cma.constants(state.mean.size, len(order), self.covariance, self.active)
        before = _search(state)
        axes = _axes(state)
        after = cma.move(before, axes, points.reshape(len(points), -1)[order], c)
        trend, factor = self._step(state, after, losses, c)
        told = told._replace(
            mean=after.mean.reshape(state.mean.shape),
            sigma=np.asarray(state.sigma * factor),
            cov=after.cov,
            p_sigma=after.p_sigma,
            p_c=after.p_c,
            shift=after.mean - before.mean,
            trend=np.asarray(trend),
        )
        return self._keep(told, state, axes) if self.covariance == "full" else told

    def best(self, state: CmaState) -> Array:
        """The mean: it averages out the luck that the best candidate has had with its batch."""
        return state.mean

    def _popsize(self, n: int) -> int:
        return self.popsize or cma.default_popsize(n)

    def _step(
        self, state: CmaState, after: cma.Search, losses: Array, c: cma.Constants
    ) -> tuple[float, float]:
        """TPA's trend and the factor of the step size.

        The first generation has no pair to compare. pycma then compares two unrelated candidates;
        here the step size waits.
        """
        if self.step_size == "csa":
            return float(state.trend), cma.csa(after.p_sigma, c)
        if not state.shift.any():
            return float(state.trend), 1.0
        answered = losses[np.isfinite(losses)]
        return cma.tpa(
            float(state.trend), answered, float(losses[0]), float(losses[1]), state.mean.size
        )

    def _keep(self, told: CmaState, state: CmaState, axes: cma.Axes) -> CmaState:
        """Carry the axes on, or drop them when the covariance has moved on too far.

        The gap is counted in generations as pycma counts it (its ``updatecovwait``): axes drawn
        before generation g serve until ``lazy_gap`` generations have been told.
        """
        born = state.axes_generation if state.scales.size else state.generation
        n = state.mean.size
        gap = cma.lazy_gap(n, cma.constants(n, self._popsize(n), self.covariance, self.active))
        if told.generation >= born + gap:
            return told._replace(axes=np.empty((0, 0)), scales=np.empty(0))
        return told._replace(axes=axes.basis, scales=axes.scales, axes_generation=np.asarray(born))


def _axes(state: CmaState) -> cma.Axes:
    """The axes carried in the state, or those of its covariance."""
    return cma.Axes(state.axes, state.scales) if state.scales.size else cma.axes_of(state.cov)


def _search(state: CmaState) -> cma.Search:
    return cma.Search(
        state.mean.reshape(-1),
        float(state.sigma),
        state.cov,
        state.p_sigma,
        state.p_c,
        int(state.generation),
    )
