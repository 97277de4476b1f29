"""The weighted median of what clients send, coordinate by coordinate (Yin et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedbbpt.aggregators._merged import merged
from fedbbpt.arrays import Arrays
from fedbbpt.maths import robust
from fedbbpt.maths.merge import stacked
from fedbbpt.protocols import Aggregator
from fedbbpt.types import Update


@dataclass(frozen=True)
class Median(Aggregator):
    """Takes the median of every state field that the optimiser lists in ``averages``.

    Clients weigh by their examples, as under ``mean``. While hostile clients claim less than half
    of all examples, no coordinate leaves the range of the honest ones. It does not know which
    clients to look at together: rows that lie on a simplex do so no more, and where honest clients
    differ much (few labels each) a median is far from their mean.
    """

    @property
    def bears(self) -> bool:
        """It does."""
        return True

    def init(self, state: Any) -> Arrays:
        """No memory."""
        return {}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """Medians in place of the broadcast's fields; without any update, no change.

        Raises:
            ValueError: a number is not finite.
        """
        return merged(state, updates, lambda name: robust.median(*stacked(updates, name))), memory
