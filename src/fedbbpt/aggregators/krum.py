"""Krum: only clients that lie close to most others are merged (Blanchard et al., NeurIPS 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedbbpt.aggregators._merged import check_krum, merged, trusted
from fedbbpt.arrays import Arrays
from fedbbpt.maths import robust
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.protocols import Aggregator
from fedbbpt.types import Update


@dataclass(frozen=True)
class Krum(Aggregator):
    """Averages the state fields in ``averages`` over the clients that Krum keeps.

    Clients are judged by all of these fields together, each as large as it is, so that nobody is
    followed in one and not in another. Examples weigh in the average and not in the choice.

    It takes 2 bad + 3 clients to tell ``bad`` hostile ones, in every round (:attr:`least`). Too
    small a federation can be refused before it begins; that too few have answered is known only
    in the round. Then nothing is merged, and nothing is put in Krum's place without a word: whoever
    plays rounds waits for ``least`` of them or leaves the round out, and a merge of fewer raises.

    Attributes:
        bad: hostile clients that are tolerated.
        keep: clients that are averaged: 1 for Krum, more for Multi-Krum, 0 for all but ``bad``.
            One client's few examples make a noisy step, so 0 learns faster; 1 is as published.

    Raises:
        ConfigError: bad or keep is negative.
    """

    bad: int = 1
    keep: int = 1

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        check_krum("krum", self.bad, self.keep)

    @property
    def least(self) -> int:
        """2 bad + 3, or keep + bad if that is more."""
        return robust.fewest(self.bad, self.keep)

    @property
    def bears(self) -> bool:
        """It does."""
        return True

    def init(self, state: Any) -> Arrays:
        """No memory."""
        return {}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """Means over those that are kept; without any update, no change.

        Raises:
            ConfigError: there are fewer than :attr:`least` updates.
            ValueError: a number is not finite.
        """
        if not updates:
            return state, memory
        kept = trusted(updates, updates[0].arrays, self.bad, self.keep, "krum")
        return merged(state, kept, lambda name: weighted_mean(kept, name)), memory
