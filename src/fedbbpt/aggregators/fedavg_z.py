"""Every client searches alone and the server averages their points: the naive baseline.

The scheme of *Efficient Federated Prompt Tuning for Black-box Large Pre-trained Models* (Lin et
al., arXiv:2310.03123), clients search and the server averages what they found, taken literally for
instructions. It makes no sense there and is meant to show it: the map from a point to the words
that a model writes from it, or to the nearest candidate of a pool, is wildly nonlinear, so what
lies between two good points need not be good at all; and nothing that clients were told about
other points is put together. The aggregator ``pool`` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.protocols import Aggregator, Optimizer
from fedbbpt.types import Update


@dataclass(frozen=True)
class FedavgZ(Aggregator):
    """The mean of each client's best point, weighted by examples; in a pool the nearest candidate.

    A client's best is its point of lowest mean loss in this round. The mean is the first candidate
    that all clients try in the next round, and the best of the run; from it they go on alone, for
    rounds.steps steps. No client's observations are kept, so a search begins anew in every round,
    and every candidate's first turn is its first in that round.
    """

    reads = ("new_points", "new_losses", "answered")
    needs = ("pool", "finite", "next_points", "next_turns", *reads)

    def init(self, state: Any) -> Arrays:
        """The mean, of the space's shape: at first the starting prompt."""
        return {
            "point": np.array(state.pool[0] if state.finite else np.zeros(state.pool.shape[1:]))
        }

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """The broadcast with the mean to be tried next; nothing changes if nobody had an answer."""
        ordered = sorted(updates, key=lambda update: update.client)
        heard = [update for update in ordered if update.arrays["answered"].any()]
        if not heard:
            return state, memory
        best = np.array([_best(update.arrays) for update in heard])
        weights = np.array([update.weight for update in heard], np.float64)
        where = state.pool[best[:, 0].astype(np.int64)] if state.finite else best
        mean = np.tensordot(weights / weights.sum(), where, 1)
        kept = mean[None]
        if state.finite:
            row = int(((state.pool - mean) ** 2).reshape(len(state.pool), -1).sum(axis=1).argmin())
            mean, kept = state.pool[row], np.array([[float(row)]])
        state = state._replace(next_points=kept, next_turns=np.zeros(1, np.int64))
        return state, {"point": mean.reshape(state.pool.shape[1:]).copy()}

    def best(self, optimizer: Optimizer[Any], state: Any, memory: Arrays) -> Array:
        """The mean."""
        return memory["point"]


def _best(arrays: Arrays) -> Array:
    """(w,) the point of lowest mean loss among a client's own."""
    answered = arrays["answered"]
    points, group = np.unique(arrays["new_points"][answered], axis=0, return_inverse=True)
    group = group.reshape(-1)
    losses = np.bincount(group, arrays["new_losses"][answered]) / np.bincount(group)
    return np.asarray(points[losses.argmin()])
