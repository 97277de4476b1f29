"""Sums over clients that do not depend on the order in which replies arrive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.types import Update


def stacked(updates: Sequence[Update], name: str) -> tuple[Array, Array]:
    """One field (K, ...) and the weights (K,) of K updates, float64, clients by name."""
    ordered = sorted(updates, key=lambda update: update.client)
    weights = np.array([update.weight for update in ordered], np.float64)
    return np.array([update.arrays[name] for update in ordered], np.float64), weights


def weighted_mean(updates: Sequence[Update], name: str) -> Array:
    """sum_k n_k a_k / sum_k n_k of one field (McMahan et al. 2017, algorithm 1).

    Floating-point sums depend on their order, so this one follows the clients' names.
    """
    values, weights = stacked(updates, name)
    return np.asarray(np.tensordot(weights / weights.sum(), values, axes=1))
