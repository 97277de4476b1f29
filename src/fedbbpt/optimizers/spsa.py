"""SPSA with gradient correction: all coordinates of a point move at once, by random signs.

Simultaneous perturbation stochastic approximation (Spall 1992) with BlackVIP's gradient
correction (Oh et al., CVPR 2023, arXiv 2303.14773), the search of Fed-BBPT's image instance (Lin,
Sun et al., arXiv 2310.03123). In step s = 1, 2, ... at the point w:

    a_s = a / (s + o)^alpha,  c_s = c / s^gamma
    g   = mean over draws of (L(w + c_s D) - L(w - c_s D)) / (2 c_s D), element by element
    m  <- beta m + g
    w  <- w - a_s (g + beta m)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.protocols import Optimizer
from fedbbpt.types import Space

Directions = Literal["rademacher", "segmented-uniform"]


class SpsaState(NamedTuple):
    """State of :class:`Spsa`.

    Attributes:
        mean: (*shape), the current point w.
        momentum: (*shape), m.
        step: (), int64, the steps s behind it. A merge may make it a float: see ``_steps``.
        previous: (*shape), the point before the last step; (0,) without ``blocking``.
    """

    mean: Array
    momentum: Array
    step: Array
    previous: Array


@dataclass(frozen=True)
class Spsa(Optimizer[SpsaState]):
    """One step of SPSA-GC per ask/tell; in a separable space, too, all rows move at once.

    The server keeps momentum and step counter: under the aggregator ``mean`` all of the state is
    averaged, so that gains go on falling from round to round. With one local step that *is* one
    step of SPSA-GC with the draws of all clients. A merge that reads the mean alone (``adam``)
    leaves the counter at 0: every round then starts with a_1, c_1 and no momentum.

    All defaults but the directions are those of BlackVIP, tuned for CLIP and its generator: the one
    point that is published. For another task its authors tune ``a`` and ``alpha`` first, then
    ``beta``; for another kind of prompt ``c`` has to suit the size of its numbers as well.

    Attributes:
        a, alpha: gain of the step and its decay. Over many steps the gradient correction makes
            the step 1 / (1 - beta) times as long.
        o: stability; delays the decay of a_s.
        c, gamma: distance of the candidates and its decay. Close candidates have losses that
            differ little, so these are subtracted in float64 (the public code: half precision).
        beta: momentum of the gradient correction, in Nesterov's form; 0 for plain SPSA.
        draws: pairs per step; five as published.
        directions: ``"rademacher"``: D of -1 and 1, which of all symmetric laws gives the
            estimate its least variance; it grows with E[D^2] E[1/D^2] >= 1. ``"segmented-uniform"``
            as published: a sign times U[1/2, 1], for which that is 7/6.
        blocking: nothing, or a tolerance: a step that made the loss worse by more is taken back,
            together with the momentum that led there, and the search goes on from the point
            before it (Spall 2000 blocks such steps; momentum is dropped as in O'Donoghue & Candes
            2015). Take some two standard deviations of a loss's noise, and 0 where there is none.
            Both points are asked beside the next pairs, on the same examples, so that luck with
            an earlier minibatch cannot hold up the search. That is two candidates more; between
            local steps on all of a client's examples one, as the other was paid a step ago. The
            verdict comes a step late, hence ``best`` is the point before the last step. Under a
            merge every client judges for itself and the server averages what they kept.

    Raises:
        ConfigError: an option is out of range.
    """

    a: float = 0.01
    c: float = 0.01
    alpha: float = 0.4
    gamma: float = 0.1
    o: float = 1.0
    beta: float = 0.9
    draws: int = 5
    directions: Directions = "rademacher"
    blocking: float | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"real"})
    state: ClassVar[type[SpsaState]] = SpsaState
    shares: ClassVar[tuple[str, ...]] = SpsaState._fields
    averages: ClassVar[tuple[str, ...]] = SpsaState._fields
    free: ClassVar[tuple[str, ...]] = ("mean", "momentum")
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        for key, value in (("a", self.a), ("c", self.c)):
            if not 0 < value < math.inf:
                raise ConfigError(f"spsa {key} is {value}; it must be a positive number")
        for key, value in (
            ("alpha", self.alpha),
            ("gamma", self.gamma),
            ("o", self.o),
            ("blocking", self.blocking or 0.0),
        ):
            if not 0 <= value < math.inf:
                raise ConfigError(f"spsa {key} is {value}; it must be 0 or more")
        if not 0 <= self.beta < 1:
            raise ConfigError(f"spsa beta is {self.beta}; it must be at least 0 and below 1")
        if self.draws < 1:
            raise ConfigError(f"spsa draws is {self.draws}; it must be at least 1")
        if self.directions not in get_args(Directions):
            raise ConfigError(
                f"spsa directions is {self.directions!r}; it must be one of {get_args(Directions)}"
            )

    def init(self, space: Space) -> SpsaState:
        """At the starting prompt, without momentum."""
        previous = np.zeros(0 if self.blocking is None else space.shape)
        return SpsaState(
            np.zeros(space.shape), np.zeros(space.shape), np.array(0, np.int64), previous
        )

    def ask(self, state: SpsaState, rng: np.random.Generator) -> Array:
        """(2 draws, *shape), the second half mirroring the first.

        With ``blocking`` two more behind them: the current point and the one before it.
        """
        moves = self._drawn(rng, (self.draws, *state.mean.shape))
        moves *= self.c / (_steps(state) + 1) ** self.gamma
        asked = [state.mean + moves, state.mean - moves]
        if self.blocking is not None:
            asked.append(np.stack([state.mean, self.best(state)]))
        return np.concatenate(asked)

    def tell(self, state: SpsaState, points: Array, losses: Array) -> SpsaState:
        """One step. A pair with an unanswered side is left out; without any pair none is taken.

        The step before is not taken back unless both of its ends were answered.
        """
        n, losses = self.draws, np.asarray(losses, np.float64)
        answered = np.isfinite(losses[:n]) & np.isfinite(losses[n : 2 * n])
        if not answered.any():
            return state
        s = _steps(state) + 1
        kept = self.best(state)
        if self.blocking is not None and _worse(losses[2 * n :], self.blocking):
            still = np.zeros_like(state.momentum)
            return SpsaState(kept.copy(), still, np.array(s, np.int64), kept.copy())
        slope = losses[:n][answered] - losses[n : 2 * n][answered]
        apart = (points[:n] - points[n : 2 * n])[answered]  # 2 c_s D
        slope = slope.reshape(-1, *[1] * state.mean.ndim)
        # Far out, a point may swallow a c_s: no difference, no slope.
        each = np.divide(slope, apart, out=np.zeros_like(apart), where=apart != 0)
        gradient = each.mean(axis=0)
        momentum = self.beta * state.momentum + gradient
        mean = state.mean - self.a / (s + self.o) ** self.alpha * (gradient + self.beta * momentum)
        previous = state.previous if self.blocking is None else state.mean.copy()
        return SpsaState(mean, momentum, np.array(s, np.int64), previous)

    def best(self, state: SpsaState) -> Array:
        """The mean; with ``blocking`` the point before the last step, which alone was judged."""
        # No step counted, no point before: at the start, and under a merge that forgets both.
        return state.mean if self.blocking is None or not _steps(state) else state.previous

    def _drawn(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        signs = 2.0 * rng.integers(0, 2, shape) - 1
        return signs if self.directions == "rademacher" else signs * rng.uniform(0.5, 1, shape)


def _steps(state: SpsaState) -> int:
    """Steps behind a state, as an integer whatever a merge made of the counter.

    Clients that got fewer answers counted fewer steps. Rounded up: where some got none at all, a
    mean rounded down would stand still. A thousandth is left to the rounding of the mean itself.
    """
    return math.ceil(float(state.step) - 1e-3)


def _worse(losses: Array, tolerance: float) -> bool:
    now, before = losses
    return bool(np.isfinite(losses).all() and now > before + tolerance)
