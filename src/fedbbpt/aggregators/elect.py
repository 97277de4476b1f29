"""All clients judge the same candidates; the federation moves to the one that is surely better.

A few dozen private examples rank a hundred candidates by luck as much as by merit: the winner looks
better than it is. How much better it really is can be measured without a further query, since every
client's losses of all candidates are known: leave one client out, let the others elect, and see
what their choice does for the one left out (cross-validation over clients; Stone 1974).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError
from fedbbpt.protocols import Aggregator
from fedbbpt.types import Update


@dataclass(frozen=True)
class Elect(Aggregator):
    """Merges searches that keep a point and try the same candidates on every client.

    Attributes:
        z: standard errors by which the elected candidate must be better on clients that had no
            vote. 0 asks for any improvement, ``-inf`` for none: the lowest mean loss wins. On
            development data 2 gave away most of the gain on ten classes and 0 lost nothing.

    Raises:
        ConfigError: z is not a number.
    """

    z: float = 0.0

    reads = ("tried", "losses", "answered")
    needs = ("point", "step", "idle", *reads)
    shared = True

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if math.isnan(self.z):
            raise ConfigError("elect.z is nan; it must be a number of standard errors")

    def init(self, state: Any) -> Arrays:
        """No memory."""
        return {}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """The next point: the elected candidate, or the present one if none is surely better."""
        if not updates:
            return state, memory
        ordered = sorted(updates, key=lambda update: update.client)
        tried = ordered[0].arrays["tried"]
        losses = np.array([update.arrays["losses"] for update in ordered])
        losses[~np.array([update.arrays["answered"] for update in ordered])] = np.nan
        weights = np.array([update.weight for update in ordered], np.float64)
        chosen = elect(losses, weights / weights.sum(), self.z)
        idle = np.asarray(0 if chosen else state.idle + 1)
        step = np.asarray(state.step + 1)
        return state._replace(point=tried[chosen].copy(), step=step, idle=idle), memory


def elect(losses: Array, weights: Array, z: float) -> int:
    """Which of K candidates wins; 0, the present point, if none is surely better.

    Args:
        losses: (m, K) of m clients; a candidate that one of them got no answer for cannot win.
        weights: (m,), of sum 1.
        z: see :class:`Elect`. A single client cannot be left out and is taken at its word.
    """
    answered = np.flatnonzero(np.isfinite(losses).all(axis=0))
    gains = losses[:, :1] - losses[:, answered]
    mean = weights @ gains
    if not answered.size or answered[0] or not mean.max() > 0:
        return 0
    best = int(answered[np.argmax(mean)])
    if len(losses) == 1 or z == -math.inf:
        return best
    others = mean - weights[:, None] * gains  # the vote without each client
    unseen = gains[np.arange(len(losses)), others.argmax(axis=1)]
    gain = float(weights @ unseen)
    error = math.sqrt(weights @ (unseen - gain) ** 2 / (len(losses) - 1))
    return best if gain > max(0.0, z * error) else 0
