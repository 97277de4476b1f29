"""Sums over clients that do not depend on the order in which replies arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.types import Update

BLOCK = 64
"""Updates whose fields are held at a time; a mean of so many is one product of matrices."""


def stacked(updates: Sequence[Update], name: str) -> tuple[Array, Array]:
    """One field (K, ...) and the weights (K,) of K updates, float64, clients by name."""
    ordered = sorted(updates, key=lambda update: update.client)
    weights = np.array([update.weight for update in ordered], np.float64)
    return np.array([update.arrays[name] for update in ordered], np.float64), weights


def weighted_mean(updates: Sequence[Update], name: str) -> Array:
    """sum_k n_k a_k / sum_k n_k of one field (McMahan et al. 2017, algorithm 1).

    Floating-point sums depend on their order, so this one follows the clients' names.
    """
    return _means(updates, lambda update: {name: update.arrays[name]})[name]


def pooled(updates: Sequence[Update], read: Callable[[Update], Update]) -> Update:
    """One update with the weighted mean of every field, and the weight of all.

    Args:
        updates: at least one, small as they came.
        read: what is to be averaged of one, which may be large: at most ``BLOCK`` are held.
    """
    means = _means(updates, lambda update: read(update).arrays)
    weight = float(np.sum([update.weight for update in updates]))
    return replace(updates[0], client="", weight=weight, arrays=means)


def _means(updates: Sequence[Update], read: Callable[[Update], Arrays]) -> Arrays:
    ordered = sorted(updates, key=lambda update: update.client)
    weights = np.array([update.weight for update in ordered], np.float64)
    shares, means = weights / weights.sum(), Arrays()
    for start in range(0, len(ordered), BLOCK):
        some = slice(start, start + BLOCK)
        for name, part in _sums([*map(read, ordered[some])], shares[some]).items():
            means[name] = means[name] + part if name in means else part
    return means


def _sums(rows: Sequence[Arrays], shares: Array) -> Arrays:
    values = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    return {name: np.asarray(np.tensordot(shares, v, axes=1)) for name, v in values.items()}
