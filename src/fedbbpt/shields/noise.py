"""Gaussian noise on all that leaves, in units of the norm that updates are clipped to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError, Incompatible, Refused
from fedbbpt.maths.accounting import epsilon_of, multiplier_for
from fedbbpt.maths.secret import Draws
from fedbbpt.shielding import Bound, Shield, Spent, covered, listed, nearest_bound


@dataclass(frozen=True)
class Noise(Shield):
    """The Gaussian mechanism on one client's update (Dwork & Roth 2014, appendix A).

    Every site adds its own noise, so that nobody else need be trusted with a bare update. What a
    run gives away then is in :mod:`fedbbpt.maths.accounting`. Not covered is what is no array:
    that a client took part, how many examples it has, what its queries and seconds were.

    Attributes:
        multiplier: standard deviation over ``norm`` of the shield clip, on every value.
        epsilon: instead of it, what the run is to keep to; the multiplier follows.
        delta: at which an epsilon is told; commonly well below one over the number of clients in
            the world.
        rounds: of the run; in each of which a client may take part.
        among: noises in everything that is seen: 1 where the server sees each client's update;
            behind a secure sum those that nobody can take off again.
        given: what clip passes on; filled in by :meth:`behind`.

    Raises:
        ConfigError: not one of multiplier and epsilon, or one is not above 0 and finite.
    """

    multiplier: float | None = None
    epsilon: float | None = None
    delta: float = 1e-5
    rounds: int = 1
    among: int = 1
    given: Bound | None = None

    stage = 1
    promises = True
    levels = True

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if (self.multiplier is None) == (self.epsilon is None):
            raise ConfigError("the shield noise takes either a multiplier or an epsilon, and one")
        for key, value in (("multiplier", self.multiplier), ("epsilon", self.epsilon)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"noise.{key} is {value}; it must be a finite number above 0")
        if not 0 < self.delta < 1:
            raise ConfigError(f"noise.delta is {self.delta}; it must be between 0 and 1")

    @cached_property
    def scale(self) -> float:
        """The multiplier of each client's own noise."""
        if self.epsilon is None:
            assert self.multiplier is not None
            return self.multiplier
        return multiplier_for(self.epsilon, self.rounds, self.delta) / math.sqrt(self.among)

    def ready(self) -> None:
        """Raise a MissingExtra without the library ``dp-accounting``."""
        self.spent(1)

    def spent(self, rounds: int) -> Spent:
        """What a client gives away in so many rounds, whoever else is looked at."""
        if not rounds:
            return Spent(0.0, self.delta)
        seen = self.scale * math.sqrt(self.among)
        return Spent(epsilon_of(seen, rounds, self.delta), self.delta)

    def behind(self, before: Sequence[Shield]) -> Shield:
        """Noise in units of the norm in front of it."""
        why = "noise is measured in the norm that an update is clipped to"
        return replace(self, given=nearest_bound(before, "noise", why))

    @property
    def std(self) -> float:
        """Standard deviation on every value."""
        return self.scale * self._bound.norm

    @property
    def passes(self) -> Bound:
        """No norm; values beyond 6 standard deviations (2 in 10**9) may be taken for it."""
        return Bound(self._bound.fields, math.inf, self._bound.span + 6 * self.std)

    def apply(self, arrays: Arrays, weight: float, draws: Draws) -> Arrays:
        """Every value with its own noise, of its own type.

        Raises:
            Incompatible: a field leaves that clip does not bound, or that is not floating.
            Refused: a value is not finite, which noise cannot hide.
        """
        names = covered(arrays, self._bound.fields)
        bare = sorted(set(arrays) - set(names))
        if bare:
            raise Incompatible(
                f"noise covers {', '.join(names) or 'nothing'}, but {', '.join(bare)} would leave "
                "as it is; what is sent must be floating and named by clip"
            )
        for name in names:
            if not np.isfinite(arrays[name]).all():
                raise Refused(f"{name} holds a value that is not finite, which noise cannot hide")
        return {name: self._noisy(arrays[name], draws) for name in names}

    def describe(self) -> str:
        """One sentence."""
        which = listed(self._bound.fields)
        epsilon, delta = self.spent(self.rounds)
        of = f"the sum of {self.among} such noises" if self.among > 1 else "it"
        return (
            f"noise: Gaussian noise of standard deviation {self.std:g} is added to {which}; "
            f"{self.rounds} rounds behind {of} are ({epsilon:.3g}, {delta:g})-private for a site "
            "as a whole, but for how many examples it has, its queries and its seconds, which "
            "leave as they are."
        )

    @property
    def _bound(self) -> Bound:
        if self.given is None:
            raise Incompatible("the shield noise has no shield clip before it")
        return self.given

    def _noisy(self, array: Array, draws: Draws) -> Array:
        noisy = array.astype(np.float64) + self.std * draws.standard_normal(array.shape)
        # The last bits of a sum of floats can tell which of two numbers was in it (Mironov 2012),
        # so values are rounded to a grid far coarser than they are, far finer than the noise.
        grid = 2.0 ** (math.floor(math.log2(self.std)) - 20)
        return np.asarray(np.rint(noisy / grid) * grid).astype(array.dtype)
