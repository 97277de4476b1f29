"""FedAvg: the n_k-weighted mean of what clients send (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.protocols import Aggregator
from fedbbpt.types import Update


@dataclass(frozen=True)
class Mean(Aggregator):
    """Averages every state field that the optimiser lists in ``averages``."""

    def init(self, state: Any) -> Arrays:
        """No memory."""
        return {}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """Weighted means in place of the broadcast's fields; without any update, no change."""
        fields = updates[0].arrays if updates else {}
        means = {name: _like(getattr(state, name), weighted_mean(updates, name)) for name in fields}
        return state._replace(**means), memory


def _like(field: Array, mean: Array) -> Array:
    """The mean as the field's type; a count that not all clients have reached counts as reached."""
    if not np.issubdtype(np.asarray(field).dtype, np.integer):
        return mean
    return np.asarray(np.ceil(mean - 1e-6), np.asarray(field).dtype)
