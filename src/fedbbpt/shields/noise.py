"""Gaussian noise on all that leaves, in units of the norm that updates are clipped to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError, Incompatible
from fedbbpt.maths.secret import Draws
from fedbbpt.shields._shield import Bound, Refused, Shield, covered, listed, nearest_bound


@dataclass(frozen=True)
class Noise(Shield):
    """The Gaussian mechanism on one client's update (Dwork & Roth 2014, appendix A).

    Every site adds its own noise, so that nobody else need be trusted with a bare update. What a
    run gives away then is in :mod:`fedbbpt.maths.accounting`. Not covered is the weight, which
    leaves as it is, and that a client took part.

    Attributes:
        multiplier: standard deviation over ``norm`` of the shield clip, on every value.
        given: what clip passes on; filled in by :meth:`behind`.

    Raises:
        ConfigError: the multiplier is not above 0 and finite.
    """

    multiplier: float
    given: Bound | None = None

    stage = 1

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if not 0 < self.multiplier < math.inf:
            raise ConfigError(
                f"noise.multiplier is {self.multiplier}; it must be a finite number above 0"
            )

    def behind(self, before: Sequence[Shield]) -> Shield:
        """Noise in units of the norm in front of it."""
        why = "noise is measured in the norm that an update is clipped to"
        return replace(self, given=nearest_bound(before, "noise", why))

    @property
    def std(self) -> float:
        """Standard deviation on every value."""
        return self.multiplier * self._bound.norm

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
        return f"noise: Gaussian noise of standard deviation {self.std:g} is added to {which}."

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
