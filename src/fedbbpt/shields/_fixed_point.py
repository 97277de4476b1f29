"""Weighted values as whole numbers modulo 2**64, whose sums do not depend on any order."""

from __future__ import annotations

import math

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import Refused
from fedbbpt.shielding import Layout


def limit(bits: int, clients: int) -> float:
    """The largest magnitude at one client with which the sum over all still fits."""
    return 2.0 ** (62 - bits) / clients


def to_words(arrays: Arrays, weight: float, bits: int, clients: int) -> Array:
    """(1 + values,) uint64: the weight, then weight times every value, fields by name.

    Args:
        arrays: numbers of any type.
        weight: 0 or more.
        bits: behind the binary point: everything is rounded to a multiple of 2**-bits.
        clients: over how many it may be summed.

    Raises:
        Refused: a number is not finite or beyond :func:`limit`.
    """
    most = limit(bits, clients)
    words = [_fixed(np.array([weight]), bits, most, "the weight")]
    for name in sorted(arrays):
        array = np.asarray(arrays[name], np.float64).reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            words.append(_fixed(weight * array, bits, most, f"{name} times the weight"))
    return np.concatenate(words)


def from_words(words: Array, layout: Layout, bits: int) -> tuple[Arrays, float]:
    """Sums of the weighted values, float64, and the sum of the weights.

    Raises:
        Refused: there are not as many words as the layout has numbers.
    """
    counts = {name: math.prod(layout[name]) for name in sorted(layout)}
    if words.shape != (1 + sum(counts.values()),):
        raise Refused(
            f"the masked sum has {words.size} numbers; the fields {', '.join(counts)} and the "
            f"weight make {1 + sum(counts.values())}"
        )
    values = words.view(np.int64) * 2.0**-bits
    pieces = np.split(values[1:], np.cumsum(list(counts.values()))[:-1])
    sums = {name: piece.reshape(layout[name]) for name, piece in zip(counts, pieces, strict=True)}
    return sums, float(values[0])


def _fixed(values: Array, bits: int, most: float, what: str) -> Array:
    if not np.isfinite(values).all():
        raise Refused(f"{what} is not finite, which a masked sum cannot hold")
    largest = float(np.abs(values).max(initial=0))
    if largest > most:
        raise Refused(
            f"{what} is {largest:g}; with {bits} bits behind the point a masked sum takes at most "
            f"{most:g} from each site (fewer bits: more room)"
        )
    # A power of two times a float is exact, and the sum of the roundings is all that is lost.
    return np.rint(values * 2.0**bits).astype(np.int64).view(np.uint64)
