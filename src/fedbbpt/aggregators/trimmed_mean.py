"""The weighted mean without the ends, coordinate by coordinate (Yin et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedbbpt.aggregators._merged import check_trim, merged
from fedbbpt.arrays import Arrays
from fedbbpt.maths import robust
from fedbbpt.maths.merge import stacked
from fedbbpt.protocols import Aggregator
from fedbbpt.types import Update


@dataclass(frozen=True)
class TrimmedMean(Aggregator):
    """Trims every state field that the optimiser lists in ``averages``.

    Attributes:
        trim: share of the clients' examples that is cut off at each end. While hostile clients
            claim at most that, no coordinate leaves the range of the honest ones. .2, one client
            of five at each end, is what the literature assumes of them and leaves more than half.

    Raises:
        ConfigError: trim is not within [0, .5).
    """

    trim: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        check_trim("trimmed_mean", self.trim)

    @property
    def bears(self) -> bool:
        """It does."""
        return True

    def init(self, state: Any) -> Arrays:
        """No memory."""
        return {}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """Trimmed means in place of the broadcast's fields; without any update, no change.

        Raises:
            ValueError: a number is not finite.
        """

        def rule(name: str) -> Any:
            return robust.trimmed_mean(*stacked(updates, name), self.trim)

        return merged(state, updates, rule), memory
