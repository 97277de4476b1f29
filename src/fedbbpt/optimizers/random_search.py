"""Random search: candidates drawn around the starting prompt, the best one so far is kept.

What every search has to beat (Bergstra & Bengio, JMLR 2012).
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
class RandomSearch(Optimizer[TriedState]):
    """The best of all candidates; the present best is asked again beside every batch.

    Attributes:
        samples: fresh candidates per step.
        sigma: standard deviation of every coordinate in a real space. In a categorical one every
            row is drawn uniformly, and sigma is not used.

    Raises:
        ConfigError: an option is out of range.
    """

    samples: int = 9
    sigma: float = 1.0

    spaces = frozenset({"real", "categorical"})
    state = TriedState
    shares = ("point", "step", "idle")

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.samples < 1 or not 0 < self.sigma < math.inf:
            raise ConfigError("random_search needs samples >= 1 and a finite sigma > 0")

    def init(self, space: Space) -> TriedState:
        """State at the starting prompt."""
        return start(space)

    def ask(self, state: TriedState, rng: np.random.Generator) -> Array:
        """(1 + samples, *shape): the point itself, then fresh ones."""
        shape = (self.samples, *state.point.shape)
        if state.categorical:
            fresh = np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
        else:
            fresh = self.sigma * rng.standard_normal(shape)
        return np.concatenate([state.point[None], fresh])

    def tell(self, state: TriedState, points: Array, losses: Array) -> TriedState:
        """The best of the candidates."""
        return keep_best(state, points, losses)

    def best(self, state: TriedState) -> Array:
        """The point kept."""
        return state.point
