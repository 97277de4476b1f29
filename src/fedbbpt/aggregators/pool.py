"""All clients' observations in one pool: the server's Gaussian process sees what each was told.

For searches whose state is a set of observations (bayes, bandit). Averaging their points would
make no sense: the loss is a wild function of them, and what all clients know of it is the sum.
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
        level: some examples are harder than others whatever the prompt: one client's, and in one
            turn those of one part. In every merge these differences are estimated anew, by least
            squares over all candidates that were tried on them, and taken off, weighted so that
            the mean loss of a candidate that all answered stays what it is. Without it they pass
            for noise, which hides the differences between candidates, and a candidate that only
            some answered looks as good as their examples are easy.
    """

    level: bool = True

    reads = ("new_points", "new_losses", "new_turns", "answered")
    needs = ("seen_points", "seen_losses", "seen_weights", "seen_turns", "seen_clients", *reads)

    def init(self, state: Any) -> Arrays:
        """Of each observation in the state: its loss as it was sent."""
        return {"losses": np.array(state.seen_losses, np.float64)}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """The broadcast with this round's observations behind the others, clients by name.

        Args:
            state: with ``seen_points`` (n, w) and what else is known of each, (n,). What was
                planned is dropped.
            updates: ``arrays`` holds ``new_points`` (m, w), ``new_losses``, ``new_turns`` and
                ``answered`` (m,); a loss without an answer gets weight 0, any other the client's.
            memory: as made by :meth:`init`.
        """
        if not updates:
            return state, memory
        ordered = sorted(updates, key=lambda update: update.client)
        points, losses, turns, answered = (
            np.concatenate([update.arrays[name] for update in ordered]) for name in self.reads
        )
        sizes = [len(update.arrays["answered"]) for update in ordered]
        names = np.array([word(update.client) for update in ordered], np.uint64)
        weights = np.repeat([float(update.weight) for update in ordered], sizes) * answered
        merged = state._replace(
            seen_points=np.concatenate([state.seen_points, points]),
            seen_weights=np.concatenate([state.seen_weights, weights]),
            seen_turns=np.concatenate([state.seen_turns, turns]),
            seen_clients=np.concatenate([state.seen_clients, np.repeat(names, sizes)]),
            next_points=state.next_points[:0],
            next_turns=state.next_turns[:0],
        )
        raw = np.concatenate([memory["losses"], np.where(answered, losses, 0.0)])
        return merged._replace(seen_losses=self._levelled(merged, raw)), {"losses": raw}

    def _levelled(self, state: Any, losses: Array) -> Array:
        if not self.level:
            return losses
        _, clients = np.unique(state.seen_clients, return_inverse=True)
        known = state.seen_points, losses, state.seen_weights, clients.reshape(-1)
        off = offsets(*known, state.seen_turns)
        return np.where(state.seen_weights > 0, losses - off, 0.0)


def offsets(points: Array, losses: Array, weights: Array, clients: Array, turns: Array) -> Array:
    """By how much the losses of one client's part of examples lie above those on other ones.

    The model is loss = candidate + client + part + noise, with a part's own effect as uncertain as
    the noise of one observation on it (a random effect: Henderson, *Biometrics* 1975). Were it
    left free, as a client's is, then a part on which a single candidate was tried would explain
    away whatever that candidate did there, and its luck on the parts before could never be found
    out. What cannot be told stays 0: of a client that shares no candidate with another, and the
    mean over clients, weighted as their losses are.

    Args:
        points: (n, w); ``losses``: (n,); ``weights``: (n,), 0 for no answer.
        clients: (n,) numbers of the clients, 0 to m - 1.
        turns: (n,) which part of its examples.

    Returns:
        (n,) the offset of each observation.
    """
    off, kept = np.zeros(len(losses)), np.flatnonzero(weights > 0)
    own, clients = weights[kept], clients[kept]
    _, client = np.unique(clients, return_inverse=True)
    _, part = np.unique(np.stack([clients, turns[kept]], axis=1), axis=0, return_inverse=True)
    client, part = client.reshape(-1), part.reshape(-1)
    if not len(kept) or not part.max():
        return off
    _, group = np.unique(points[kept], axis=0, return_inverse=True)
    group = group.reshape(-1)
    members = np.concatenate([np.eye(client.max() + 1)[client], np.eye(part.max() + 1)[part]], 1)
    # Weighted least squares within candidates: both sides less their candidate's mean.
    total, root = np.bincount(group, own), np.sqrt(own)[:, None]
    shares = np.zeros((len(total), members.shape[1]))
    np.add.at(shares, group, members * (own / total[group])[:, None])
    target = losses[kept] - (np.bincount(group, own * losses[kept]) / total)[group]
    # The shortest solution in units of 1 / sqrt(size) has a weighted mean of 0 over clients.
    sizes = own @ members
    unit = 1 / np.sqrt(sizes)
    system = root * (members - shares[group]) * unit
    normal, clients_only = system.T @ system, np.arange(len(sizes)) <= client.max()
    # A part's prior: weight of one observation.
    count = members.sum(axis=0)
    normal[np.diag_indices_from(normal)] += np.where(clients_only, 0.0, 1 / count)
    solved = np.linalg.lstsq(normal, system.T @ (root[:, 0] * target), rcond=1e-10)[0] * unit
    off[kept] = members @ solved
    return off
