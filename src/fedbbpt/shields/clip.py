"""Scales an update down to a largest L2 norm, so that no site can move the merge further."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError
from fedbbpt.maths.secret import Draws
from fedbbpt.shielding import Bound, Shield, covered, listed


@dataclass(frozen=True)
class Clip(Shield):
    """Bounds the L2 norm of some fields together (McMahan et al. 2018, flat clipping).

    A weighted sum of clipped updates changes by at most ``weight * norm`` when a client is added
    or removed, and by at most twice that when its examples are replaced: its sensitivity, which
    noise is measured in. A value that is not finite means *no answer*: it stays, and does not
    count.

    Attributes:
        norm: the largest norm. What is clipped is what is sent: a difference from the broadcast
            should be sent as one, since the norm of a whole state says little about one round.
        fields: those whose norm is taken, together; empty for every floating field. Others
            leave as they are.

    Raises:
        ConfigError: the norm is not above 0 and finite.
    """

    norm: float
    fields: tuple[str, ...] = ()

    stage = 0

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if not 0 < self.norm < math.inf:
            raise ConfigError(f"clip.norm is {self.norm}; it must be a finite number above 0")

    @property
    def passes(self) -> Bound:
        """The norm; no single value can be above it either."""
        return Bound(self.fields, self.norm, self.norm)

    def apply(self, arrays: Arrays, weight: float, draws: Draws) -> Arrays:
        """The fields times ``min(1, norm / their norm)``, of their own types."""
        names = covered(arrays, self.fields)
        total = _norm([arrays[name] for name in names])
        if total <= self.norm:
            return dict(arrays)
        scaled = {name: _scaled(arrays[name], self.norm / total) for name in names}
        return {**arrays, **scaled}

    def describe(self) -> str:
        """One sentence."""
        which = listed(self.fields)
        return f"clip: {which} are scaled down together to an L2 norm of at most {self.norm:g}."


def _norm(arrays: list[Array]) -> float:
    flat = [array[np.isfinite(array)].astype(np.float64) for array in arrays]
    values = np.concatenate([np.zeros(1), *flat])
    # Squares of large values overflow, those of small ones vanish.
    largest = float(np.abs(values).max())
    with np.errstate(over="ignore"):
        return largest * float(np.sqrt(np.sum((values / largest) ** 2))) if largest else 0.0


def _scaled(array: Array, factor: float) -> Array:
    # A little less, so that no rounding leads above the norm.
    factor *= 1 - 4 * float(np.finfo(array.dtype).eps) - 1e-14
    with np.errstate(invalid="ignore"):
        return np.asarray(array.astype(np.float64) * factor).astype(array.dtype)
