"""All clients' observations in one pool: the server's Gaussian process sees what each was told.

For searches whose state is a set of observations (bayes). Averaging their points would make no
sense: the loss is a wild function of them, and what all clients know of it together is the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.protocols import Aggregator
from fedbbpt.random import word
from fedbbpt.types import Update


@dataclass(frozen=True)
class Pool(Aggregator):
    """Appends what clients send: candidates, mean losses, and how many examples are behind them.

    Attributes:
        level: examples of one client may be harder than another's whatever the prompt. In every
            merge these differences are estimated anew, by least squares over all candidates that
            several clients answered, and taken off, weighted so that the mean loss of a candidate
            that all answered stays what it is. Without it they pass for noise, which hides the
            differences between candidates, and a candidate that only some answered looks as good
            as their examples are easy.
    """

    level: bool = True

    reads = ("new_points", "new_losses", "answered")
    needs = ("seen_points", "seen_losses", "seen_weights", *reads)

    def init(self, state: Any) -> Arrays:
        """Of each observation in the state: its loss as it was sent, and a word for its client."""
        nobody = np.zeros(len(state.seen_losses), np.uint64)
        return {"losses": np.array(state.seen_losses, np.float64), "clients": nobody}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """The broadcast with this round's observations behind the others, clients by name.

        Args:
            state: with ``seen_points`` (n, w), ``seen_losses`` (n,) and ``seen_weights`` (n,).
            updates: ``arrays`` holds ``new_points`` (m, w), ``new_losses`` (m,) and ``answered``
                (m,); a loss without an answer gets weight 0, any other the client's.
            memory: as made by :meth:`init`.
        """
        if not updates:
            return state, memory
        ordered = sorted(updates, key=lambda update: update.client)
        points, losses, answered = (
            np.concatenate([update.arrays[name] for update in ordered]) for name in self.reads
        )
        sizes = [len(update.arrays["answered"]) for update in ordered]
        names = np.array([word(update.client) for update in ordered], np.uint64)
        weights = np.repeat([float(update.weight) for update in ordered], sizes) * answered
        merged = state._replace(
            seen_points=np.concatenate([state.seen_points, points]),
            seen_weights=np.concatenate([state.seen_weights, weights]),
        )
        memory = {
            "losses": np.concatenate([memory["losses"], np.where(answered, losses, 0.0)]),
            "clients": np.concatenate([memory["clients"], np.repeat(names, sizes)]),
        }
        return merged._replace(seen_losses=self._levelled(merged, memory)), memory

    def _levelled(self, state: Any, memory: Arrays) -> Array:
        losses = memory["losses"]
        if not self.level:
            return losses
        _, clients = np.unique(memory["clients"], return_inverse=True)
        off = offsets(state.seen_points, losses, state.seen_weights, clients.reshape(-1))
        return np.where(state.seen_weights > 0, losses - off, 0.0)


def offsets(points: Array, losses: Array, weights: Array, clients: Array) -> Array:
    """By how much each client's losses lie above those of the others on the same candidates.

    The model is loss = candidate + client + noise. What cannot be told stays 0: of a client that
    shares no candidate with another, and the mean over clients, weighted as their losses are.

    Args:
        points: (n, w); ``losses``: (n,); ``weights``: (n,), 0 for no answer.
        clients: (n,) numbers of the clients, 0 to m - 1.

    Returns:
        (n,) the offset of each observation's client.
    """
    kept = np.flatnonzero(weights > 0)
    every = int(clients.max()) + 1 if len(clients) else 0
    sizes = np.bincount(clients, weights, every)
    if np.count_nonzero(sizes) < 2:
        return np.zeros(len(losses))
    _, group = np.unique(points[kept], axis=0, return_inverse=True)
    group, own = group.reshape(-1), weights[kept]
    total = np.bincount(group, own)
    # Weighted least squares within candidates: both sides less their candidate's mean.
    members = np.eye(every)[clients[kept]]
    shares = np.zeros((len(total), every))
    np.add.at(shares, (group, clients[kept]), own / total[group])
    target = losses[kept] - (np.bincount(group, own * losses[kept]) / total)[group]
    root = np.sqrt(own)
    # The shortest solution in units of 1 / sqrt(size) has a weighted mean of 0.
    unit = 1 / np.sqrt(np.where(sizes > 0, sizes, 1.0))
    system = root[:, None] * (members - shares[group]) * unit
    solved = np.linalg.lstsq(system, root * target, rcond=1e-10)[0] * unit
    return np.asarray(solved[clients])
