"""FedAvg: the n_k-weighted mean of what clients send (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedbbpt.aggregators._merged import merged
from fedbbpt.arrays import Arrays
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.protocols import Aggregator
from fedbbpt.types import Update


@dataclass(frozen=True)
class Mean(Aggregator):
    """Averages every state field that the optimiser lists in ``averages``."""

    @property
    def sums(self) -> bool:
        """It does."""
        return True

    def init(self, state: Any) -> Arrays:
        """No memory."""
        return {}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """Weighted means in place of the broadcast's fields; without any update, no change."""
        return merged(state, updates, lambda name: weighted_mean(updates, name)), memory
