"""Means over a few seeds: intervals and paired tests."""

from __future__ import annotations

import numpy as np

from fedbbpt.arrays import Array

SAME = 1e-12
"""Differences between scores that are rounding and nothing else."""


def mean_interval(values: Array) -> tuple[float, float]:
    """Mean of n numbers and half the width of its 95 % interval by Student's t; 0 for n = 1."""
    n = len(values)
    if n < 2:
        return float(values[0]), 0.0
    from scipy import stats  # takes 40 MB, and most runs end without one

    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return float(np.mean(values)), float(half)


def paired_p(one: Array, other: Array) -> float | None:
    """Two-sided p-value of the paired t-test; ``None`` for fewer than two pairs.

    Pairs that all differ by the same amount leave no variance: 1 where that is nothing, else 0.
    """
    change = np.asarray(one) - np.asarray(other)
    if len(change) < 2:
        return None
    if np.ptp(change) < SAME:
        return 1.0 if abs(change[0]) < SAME else 0.0
    from scipy import stats

    return float(stats.ttest_rel(one, other).pvalue)
