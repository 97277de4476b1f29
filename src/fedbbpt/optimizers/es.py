"""Antithetic evolution strategy: a gradient estimate from pairs of mirrored candidates.

g = 1/n sum_i (f(x + sigma e_i) - f(x - sigma e_i)) / (2 sigma) e_i, with e_i ~ N(0, I)
(Nesterov & Spokoiny 2017, two-sided oracle; Salimans et al. 2017, section 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.protocols import Optimizer
from fedbbpt.types import Space


class EsState(NamedTuple):
    """Where the search stands.

    Attributes:
        mean: the current point, of the space's shape.
        rows: number of rows that are tried one at a time, 0 where all move together.
    """

    mean: Array
    rows: Array


@dataclass(frozen=True)
class Es(Optimizer[EsState]):
    """One gradient step per ask/tell.

    In a separable space every row is moved alone while the others stay at the mean: a row's
    candidates cost one atom each and the unmoved rows are paid once for all of them.

    Attributes:
        pairs: mirrored pairs per step (and per row in a separable space). Few pairs and more
            steps beat the reverse at equal queries.
        sigma: distance of the candidates from the mean, per coordinate.
        lr: step along the negative gradient. 1 hands the server the bare gradient, for
            optimisers there that scale it themselves (``adam``).
        shaping: ``"none"``, or ``"rank"``: losses are replaced by their centred ranks in
            [-1/2, 1/2], so that one outlier cannot dominate (Salimans et al. 2017).
        decay: pull towards the starting prompt, as the gradient of decay/2 * |x|^2.
    """

    pairs: int = 5
    sigma: float = 1.0
    lr: float = 1.0
    shaping: str = "none"
    decay: float = 0.0

    spaces = frozenset({"real"})
    state = EsState
    shares = ("mean",)
    averages = ("mean",)
    free = ("mean",)
    relative = True

    def __post_init__(self) -> None:
        if self.pairs < 1 or not 0 < self.sigma < math.inf:
            raise ConfigError("es needs pairs >= 1 and a finite sigma > 0")
        if not 0 < self.lr < math.inf or not 0 <= self.decay < math.inf:
            raise ConfigError("es needs a finite lr > 0 and decay >= 0")
        if self.shaping not in ("none", "rank"):
            raise ConfigError(f"es.shaping is '{self.shaping}'; known: none, rank")

    def init(self, space: Space) -> EsState:
        """State at the starting prompt."""
        rows = space.shape[0] if space.separable else 0
        return EsState(np.zeros(space.shape), np.array(rows, np.int64))

    def ask(self, state: EsState, rng: np.random.Generator) -> Array:
        """(K, *shape) with K = 2 pairs, or 2 pairs * rows where rows are tried alone.

        The second half mirrors the first.
        """
        rows = int(state.rows)
        if rows:
            moves = np.zeros((self.pairs, rows, *state.mean.shape))
            each = np.arange(rows)
            size = (self.pairs, rows, *state.mean.shape[1:])
            moves[:, each, each] = self.sigma * rng.standard_normal(size)
            moves = moves.reshape(-1, *state.mean.shape)
        else:
            moves = self.sigma * rng.standard_normal((self.pairs, *state.mean.shape))
        return np.concatenate([state.mean + moves, state.mean - moves])

    def tell(self, state: EsState, points: Array, losses: Array) -> EsState:
        """One step along the estimated gradient; a pair with an unanswered side is left out."""
        half = len(points) // 2
        answered = np.isfinite(losses[:half]) & np.isfinite(losses[half:])
        if not answered.any():
            return state
        pairs = np.concatenate([losses[:half][answered], losses[half:][answered]])
        if self.shaping == "rank":
            pairs = _centred_ranks(pairs)
        slope = np.zeros(half)
        slope[answered] = (pairs[: len(pairs) // 2] - pairs[len(pairs) // 2 :]) / (2 * self.sigma)
        moves = (points[:half] - points[half:]) / (2 * self.sigma)
        # Pairs of one row alone estimate that row's gradient, so each row divides by its own.
        rows = max(1, int(state.rows))
        count = answered.reshape(-1, rows).sum(axis=0).clip(min=1)
        gradient = np.tensordot(slope / np.tile(count, half // rows), moves, axes=1)
        return state._replace(mean=state.mean - self.lr * (gradient + self.decay * state.mean))

    def best(self, state: EsState) -> Array:
        """The mean."""
        return state.mean


def _centred_ranks(losses: Array) -> Array:
    """Ranks scaled to [-1/2, 1/2]; unanswered losses rank last and are left out by the caller."""
    ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable")
    return ranks / max(1, len(losses) - 1) - 0.5
