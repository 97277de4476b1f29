"""Search by a linear model of every score that was paid so far (surrogate-assisted search).

An evolution strategy keeps one number of each candidate, its loss, and forgets it after one step.
Here a client keeps what the box said of each of its examples, fits a linear model of the logits
(:mod:`fedbbpt.maths.linear_model`), and goes where its own loss is lowest by that model, not too
far from where everybody was: FedProx (Li et al., MLSys 2020) with a model instead of gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths.linear_model import Moments, logits, lowest, moments, slopes
from fedbbpt.protocols import Optimizer
from fedbbpt.types import Space

FEWEST = 8
"""Candidates of a round, where nothing says how many the budget allows."""


class LinearState(NamedTuple):
    """Where the search stands and where it was.

    Attributes:
        mean: the current point, of the space's shape.
        centres: (T, *shape) float32, points around which candidates were tried, the last being the
            current one; they travel every round, so that a client needs no memory but its ledger.
        keys: (T,) uint64, from which the candidates around each are drawn.
        rows: number of rows that are tried one at a time, 0 where all move together.
    """

    mean: Array
    centres: Array
    keys: Array
    rows: Array


@dataclass(frozen=True)
class Linear(Optimizer[LinearState]):
    """Tries candidates around the current point, fits, and moves to the lowest point of the model.

    Attributes:
        candidates: per round, and per row in a separable space; 0 for as many as the budget allows
            over ``rounds.max`` rounds where a candidate costs the same whatever a client holds, and
            ``FEWEST`` elsewhere.
        sigma: distance of the candidates from the point, per coordinate. Near ones keep the model
            linear; answers come with all their digits, so they need not be far.
        ridge: of the fit, in candidates.
        decay: pull towards the starting prompt, as the gradient of decay/2 * |x|^2.
        prox: pull of a client towards where everybody was. Few rounds want a weak one.
        memory: centres that are remembered.

    Raises:
        ConfigError: an option is out of range.
    """

    candidates: int = 0
    sigma: float = 0.3
    ridge: float = 0.1
    decay: float = 3e-4
    prox: float = 3e-3
    memory: int = 32

    spaces = frozenset({"real"})
    state = LinearState
    shares = ("mean", "centres", "keys")
    averages = ("mean",)
    free = ("mean",)
    relative = True
    learns = True

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.candidates < 0 or self.memory < 1:
            raise ConfigError("linear needs candidates >= 0 and memory >= 1")
        if not (0 < self.sigma < math.inf and 0 < self.ridge < math.inf):
            raise ConfigError("linear needs a finite sigma > 0 and ridge > 0")
        if not (0 <= self.decay < math.inf and 0 < self.prox < math.inf):
            raise ConfigError("linear needs a finite decay >= 0 and prox > 0")

    def sized(self, space: Space, queries: int) -> Linear:
        """With as many candidates as a round can pay for, if that was left open."""
        rows = space.shape[0] if space.separable else 1
        many = max(1, queries // rows - 1)  # the point itself is asked about as well
        return self if self.candidates else replace(self, candidates=many)

    def init(self, space: Space) -> LinearState:
        """State at the starting prompt."""
        rows = space.shape[0] if space.separable else 0
        return LinearState(
            np.zeros(space.shape),
            np.zeros((0, *space.shape), np.float32),
            np.zeros(0, np.uint64),
            np.array(rows, np.int64),
        )

    def plan(self, state: LinearState, rng: np.random.Generator) -> LinearState:
        """The current point becomes one that is tried, unless it is already."""
        here = state.mean[None].astype(np.float32)
        if len(state.keys) and (state.centres[-1:] == here).all():
            return state
        key = rng.integers(2**63, size=1).astype(np.uint64)
        centres = np.concatenate([state.centres, here])
        keys = np.concatenate([state.keys, key])
        return state._replace(centres=centres[-self.memory :], keys=keys[-self.memory :])

    def ask(self, state: LinearState, rng: np.random.Generator) -> Array:
        """(1 + K, *shape): the point itself and K = candidates around it, or candidates * rows.

        Once planned they depend on the state alone, so that they can be asked about again.
        """
        state = self.plan(state, rng)
        rng = np.random.default_rng(state.keys[-1:])
        # What travels later as a centre, to the bit.
        centre = state.mean.astype(np.float32).astype(np.float64)
        many, rows = self.candidates or FEWEST, int(state.rows)
        if rows:
            moves = np.zeros((many, rows, *centre.shape))
            each = np.arange(rows)
            moves[:, each, each] = rng.standard_normal((many, *centre.shape))
            moves = moves.reshape(-1, *centre.shape)
        else:
            moves = rng.standard_normal((many, *centre.shape))
        return np.concatenate([centre[None], centre + self.sigma * moves])

    def tell(self, state: LinearState, points: Array, losses: Array) -> LinearState:
        """Where there are losses alone: a step along the gradient of a linear model of these."""
        if not np.isfinite(losses[0]) or not np.isfinite(losses[1:]).any():
            return state
        slope = slopes(self._moments(state, points, losses[:, None, None]), self.ridge)
        slope = slope.reshape(state.mean.shape) + self.decay * points[0]
        return state._replace(mean=points[0] - slope)

    def earlier(self, state: LinearState) -> list[tuple[bytes, LinearState]]:
        """One for each centre."""
        each = [slice(i, i + 1) for i in range(len(state.keys))]
        then = [state._replace(centres=state.centres[i], keys=state.keys[i]) for i in each]
        return [(s.keys.tobytes(), s._replace(mean=s.centres[0].astype(np.float64))) for s in then]

    def study(self, state: LinearState, points: Array, scores: Array) -> Moments:
        """What a reply tells of the slope."""
        return self._moments(state, points, logits(scores))

    def learn(
        self, state: LinearState, known: Moments, scores: Array, targets: Array
    ) -> LinearState:
        """The state at the lowest point of the model."""
        slope = slopes(known, self.ridge)
        centre = state.mean.astype(np.float32).astype(np.float64).reshape(len(slope), -1)
        found = lowest(logits(scores), slope, targets, centre, self.decay, self.prox)
        return state._replace(mean=found.reshape(state.mean.shape))

    def best(self, state: LinearState) -> Array:
        """The point."""
        return state.mean

    def _moments(self, state: LinearState, points: Array, answers: Array) -> Moments:
        """Of (1 + K) candidates, the point itself first, and their (1 + K, B, C) answers."""
        moves, changes = points[1:] - points[0], answers[1:] - answers[0]
        rows = int(state.rows)
        if not rows:
            return moments(moves.reshape(1, len(moves), -1), changes[None])
        each, many = np.arange(rows), len(moves) // rows
        own = moves.reshape(many, rows, rows, -1)[:, each, each]
        told = changes.reshape(many, rows, *changes.shape[1:])
        return moments(own.swapaxes(0, 1), told.swapaxes(0, 1))
