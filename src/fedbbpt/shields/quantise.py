"""Values in 1 to 16 bits, rounded up or down at random so that they are right on average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError, Incompatible, Refused
from fedbbpt.maths.secret import Draws
from fedbbpt.shielding import Bound, Shield, covered, listed, nearest_bound

MARK = ".quantised"


@dataclass(frozen=True)
class Quantise(Shield):
    """Stochastic rounding to a grid over a known range (Alistarh et al. 2017, without their norm).

    A value becomes one of 2**bits numbers, evenly spaced over the range that clip leaves,
    [-norm, norm]. It is off by less than one step, 2 norm / (2**bits - 1), with mean 0 and a
    variance of at most step**2 / 4. Behind noise the range is 6 of its standard deviations wider
    at both ends; the 2 values in 10**9 beyond it become its ends.

    What leaves is the number's place in the grid, in a field marked with ``.quantised``; the
    server reads it, or a weighted mean of such, by :meth:`open`.

    Attributes:
        bits: 1 to 16. Up to 8 take one byte a value, more take two.
        given: what is known of the values in front; filled in by :meth:`behind`.

    Raises:
        ConfigError: another number of bits.
    """

    bits: int = 8
    given: Bound | None = None

    stage = 2

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if not 1 <= self.bits <= 16:
            raise ConfigError(f"quantise.bits is {self.bits}; it must be from 1 to 16")

    def behind(self, before: Sequence[Shield]) -> Shield:
        """Rounding within the range in front of it."""
        why = "a grid must have ends"
        return replace(self, given=nearest_bound(before, "quantise", why))

    @property
    def step(self) -> float:
        """Distance of neighbours in the grid."""
        return 2 * self._bound.span / float(2**self.bits - 1)

    def apply(self, arrays: Arrays, weight: float, draws: Draws) -> Arrays:
        """Fields under their marked names as uint8 or uint16; other fields as they are.

        Raises:
            Refused: a value is not finite, for which the grid has no place.
        """
        kept = dict(arrays)
        for name in covered(arrays, self._bound.fields):
            if not np.isfinite(arrays[name]).all():
                raise Refused(f"{name} holds a value that is not finite; quantise has none such")
            kept[name + MARK] = self._places(kept.pop(name), draws)
        return kept

    def open(self, arrays: Arrays) -> Arrays:
        """Marked fields as float64 values. A mean of places is the place of the mean."""
        opened = {}
        for name, array in arrays.items():
            if name.endswith(MARK):
                name = name.removesuffix(MARK)
                array = array.astype(np.float64) * self.step - self._bound.span
            opened[name] = array
        return opened

    def describe(self) -> str:
        """One sentence."""
        return (
            f"quantise: {listed(self._bound.fields)} leave as one of {2**self.bits} numbers from "
            f"{-self._bound.span:g} to {self._bound.span:g}, each off by less than {self.step:g}."
        )

    @property
    def _bound(self) -> Bound:
        if self.given is None:
            raise Incompatible("the shield quantise has no shield clip before it")
        return self.given

    def _places(self, array: Array, draws: Draws) -> Array:
        place = (array.astype(np.float64) + self._bound.span) / self.step
        place = np.floor(np.clip(place, 0, 2**self.bits - 1) + draws.random(array.shape))
        # A value at the upper end may be rounded up only by an error of the division.
        kind = np.uint8 if self.bits <= 8 else np.uint16
        return np.asarray(np.minimum(place, 2**self.bits - 1)).astype(kind)
