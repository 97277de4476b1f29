"""Merges that a few hostile clients cannot carry off.

Everywhere ``values`` is (K, ...), one row per client, and ``weights`` (K,), all above 0; only their
ratios count. All arithmetic is in float64. A client's weight is its own word, so who believes it
has to bound it first: where a promise below speaks of shares of weight, a client that claims half
of all is half of all.
"""

from __future__ import annotations

import numpy as np

from fedbbpt.arrays import Array

SNAP = 1e-9
"""Shares of weight that differ by less are the same: .3 of ten clients are three of them."""


def median(values: Array, weights: Array) -> Array:
    """Coordinate-wise weighted median (Yin et al., ICML 2018, definition 1, with weights).

    Where the lower half of the weight ends exactly between two values, their midpoint; so with
    equal weights it is the plain median. The order of the rows does not matter to the bit.

    Breakdown: as long as hostile rows hold less than half of the weight, every coordinate lies
    between the least and the largest honest value.

    Returns:
        (...), float64.

    Raises:
        ValueError: there is no row, a number is not finite, or a weight is not above 0.
    """
    rows, shares = _in_order(values, weights)
    shares = _snapped(shares, 0.5)
    lower = _at(rows, (shares >= 0.5).argmax(axis=0))
    upper = _at(rows, (shares > 0.5).argmax(axis=0))
    # Halved first, so that large values do not overflow.
    return np.where(lower == upper, lower, lower / 2 + upper / 2)


def trimmed_mean(values: Array, weights: Array, trim: float) -> Array:
    """Coordinate-wise weighted mean without the ``trim`` share of the weight at each end.

    Yin et al., ICML 2018, definition 2, with weights. A row that the cut goes through counts with
    the part of its weight that is left, so where ``trim * K`` is not a whole number more is cut
    off than by those who round it down: of four clients .2 is less than one, not none. The order
    of the rows does not matter to the bit.

    Breakdown: as long as hostile rows hold at most ``trim`` of the weight, every coordinate lies
    between the least and the largest honest value.

    Args:
        values, weights: see above.
        trim: at least 0, which gives the mean, and below .5.

    Returns:
        (...), float64.

    Raises:
        ValueError: as :func:`median`, or trim is out of range.
    """
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim is {trim}; it must be at least 0 and below 0.5")
    rows, shares = _in_order(values, weights)
    ends = _snapped(_snapped(shares, trim), 1 - trim)
    edges = np.concatenate([np.zeros_like(ends[:1]), ends])
    kept = np.diff(np.clip(edges, trim, 1 - trim), axis=0)
    mean = (kept / kept.sum(axis=0) * rows).sum(axis=0)
    # Rounding must not carry it out of what was kept either.
    least = np.where(kept > 0, rows, np.inf).min(axis=0)
    largest = np.where(kept > 0, rows, -np.inf).max(axis=0)
    return np.asarray(np.clip(mean, least, largest))


def fewest(bad: int, keep: int = 1) -> int:
    """The least K of which :func:`krum` can keep its promise: 2 bad + 2 < K and keep <= K - bad."""
    return max(2 * bad + 3, keep + bad)


def krum(values: Array, bad: int, keep: int = 1) -> Array:
    """Which rows Krum keeps, best first (Blanchard et al., NeurIPS 2017, section 4).

    A row's score is the sum of its squared distances to the K - bad - 2 rows next to it, and the
    lowest scores win: Krum for ``keep = 1``, Multi-Krum for more. How much a row weighs does not
    count; whoever averages those that are kept may weigh them. Scores depend on no order; of
    equal ones the row that comes first wins.

    Breakdown: with at most ``bad`` hostile rows, every row that is kept lies within
    sqrt((K - bad - 2) / (K - 2 bad - 1)) honest diameters of an honest row; so a hostile row that
    is farther out is never kept, whatever it holds.

    Args:
        values: (K, ...).
        bad: hostile rows that are tolerated.
        keep: from 1 to K - bad, since of more one would have to be hostile.

    Returns:
        (keep,) row numbers.

    Raises:
        ValueError: a number is not finite, bad or keep is out of range, or there are fewer rows
            than :func:`fewest`.
    """
    rows = np.asarray(values, np.float64)
    if bad < 0 or keep < 1 or len(rows) < fewest(bad, keep):
        raise ValueError(
            f"krum got {len(rows)} rows; bad = {bad} (at least 0) and keep = {keep} (at least 1) "
            f"need {fewest(bad, keep)}"
        )
    if not np.isfinite(rows).all():
        raise ValueError("krum got numbers that are not finite")
    # A power of two, so exact; the largest numbers there are keep finite distances.
    rows = rows.reshape(len(rows), -1) * 2.0**-64
    near = len(rows) - bad - 2
    scores = [_norm(np.sort(np.delete(_norm(rows - row), k))[:near]) for k, row in enumerate(rows)]
    return np.argsort(scores, kind="stable")[:keep]


def _norm(rows: Array) -> Array:
    """Euclidean norms over the last axis; squares neither overflow nor vanish."""
    scale = np.abs(rows).max(axis=-1, keepdims=True, initial=0.0)
    parts = np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)
    return np.asarray(scale[..., 0] * np.sqrt((parts**2).sum(axis=-1)))


def _in_order(values: Array, weights: Array) -> tuple[Array, Array]:
    """Rows sorted in every coordinate, and the share of weight up to each, both (K, ...)."""
    rows, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if not len(rows) or weights.shape != rows.shape[:1]:
        raise ValueError(f"values {rows.shape} and weights {weights.shape} do not fit")
    if not (np.isfinite(rows).all() and np.isfinite(weights.sum()) and (weights > 0).all()):
        raise ValueError("values and weights must be finite, and weights above 0")
    each = np.broadcast_to(weights.reshape(-1, *[1] * (rows.ndim - 1)), rows.shape)
    # By value and then by weight: equal values add up their weights in one order only.
    order = np.lexsort((each, rows), axis=0)
    total = np.take_along_axis(each, order, 0).cumsum(axis=0)
    # Zeros of either sign are equal; adding one leaves the positive.
    return np.take_along_axis(rows, order, 0) + 0.0, total / total[-1:]


def _snapped(shares: Array, mark: float) -> Array:
    return np.where(np.abs(shares - mark) <= SNAP, mark, shares)


def _at(rows: Array, which: Array) -> Array:
    return np.asarray(np.take_along_axis(rows, which[None], 0)[0])
