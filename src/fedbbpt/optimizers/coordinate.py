"""Coordinate search over categorical prompts: one slot at a time, every candidate in it.

Where a prompt is a handful of tokens from a short list, trying all of them in one slot costs no
more than a few steps of a policy gradient and says exactly which is best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers._tried import TriedState, keep_best, start
from fedbbpt.protocols import Optimizer
from fedbbpt.types import Space


@dataclass(frozen=True)
class Coordinate(Optimizer[TriedState]):
    """Slots take turns; in a step every other candidate of one slot is tried, or ``width`` of them.

    In a separable space the classes take turns first, then the slots: every class gets its first
    token before one gets a second, and each is chosen with the others as they are by then.

    Attributes:
        width: most candidates per step, drawn at random where the slot has more; 0 for all.

    Raises:
        ConfigError: an option is out of range.
    """

    width: int = 0

    spaces = frozenset({"categorical"})
    state = TriedState
    shares = ("point", "step", "idle")

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.width < 0:
            raise ConfigError(f"coordinate.width is {self.width}; it must be 0 (all) or more")

    def init(self, space: Space) -> TriedState:
        """State at the starting prompt."""
        return start(space)

    def ask(self, state: TriedState, rng: np.random.Generator) -> Array:
        """(1 + width, *shape) one-hot rows: the point itself, then it with one row changed."""
        *blocks, slots, size = state.point.shape
        classes, step = int(np.prod(blocks)), int(state.step)
        row = (step % classes) * slots + (step // classes) % slots
        others = np.flatnonzero(state.point.reshape(-1, size)[row] == 0)
        if self.width and self.width < len(others):
            others = np.sort(rng.permutation(others)[: self.width])
        tried = np.repeat(state.point.reshape(1, -1, size), 1 + len(others), axis=0)
        tried[1:, row] = np.eye(size)[others]
        return tried.reshape(-1, *state.point.shape)

    def tell(self, state: TriedState, points: Array, losses: Array) -> TriedState:
        """The best of the candidates."""
        return keep_best(state, points, losses)

    def done(self, state: TriedState) -> bool:
        """Whether everything was tried since the point last moved (twice over, if drawn)."""
        *rows, size = state.point.shape
        draws = 2 * math.ceil((size - 1) / self.width) if 0 < self.width < size - 1 else 1
        return bool(state.idle >= np.prod(rows) * draws)

    def best(self, state: TriedState) -> Array:
        """The point kept."""
        return state.point
