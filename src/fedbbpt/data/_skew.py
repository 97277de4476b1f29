"""Shares of classes: the arithmetic behind label skew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedbbpt.errors import DataError

IntArray = NDArray[np.int64]

FLAT = 1e100  # beyond it Dirichlet draws overflow, and the proportions are equal anyway


def by_class(labels: IntArray, rows: IntArray, rng: np.random.Generator) -> list[IntArray]:
    """The rows of each class that occurs, in class order, shuffled within."""
    own = labels[rows]
    return [rng.permutation(rows[own == number]) for number in np.unique(own)]


def cut(own: IntArray, clients: int, alpha: float, rng: np.random.Generator) -> list[IntArray]:
    """One class in a piece per client, of proportions from Dirichlet(alpha)."""
    proportions = rng.dirichlet(np.full(clients, min(alpha, FLAT)))
    pieces = np.split(own, np.rint(np.cumsum(proportions)[:-1] * own.size).astype(np.int64))
    # In random order, or near-equal proportions would round in favour of the same clients always.
    return [pieces[i] for i in rng.permutation(clients)]


def fill_empty(
    parts: Sequence[Sequence[IntArray]], rng: np.random.Generator
) -> list[list[IntArray]]:
    """Parts of which none is empty; as they were if none was.

    What the draw gave to some client stays there but for the examples given away, so the skew
    stays: an example comes from the largest part (of equals the first), of one of its classes.

    Args:
        parts: for each client its rows by class; not fewer rows than clients in all.
        rng: chooses the classes.
    """
    filled = [list(own) for own in parts]
    sizes = np.array([sum(rows.size for rows in own) for own in filled])
    least = 2 if sizes.sum() >= 2 * sizes.size else 1
    for client in np.flatnonzero(sizes == 0):
        while sizes[client] < least:
            giver = int(np.argmax(sizes))
            given = rng.choice([c for c, rows in enumerate(filled[giver]) if rows.size])
            filled[client][given] = np.append(filled[client][given], filled[giver][given][-1])
            filled[giver][given] = filled[giver][given][:-1]
            sizes[giver] -= 1
            sizes[client] += 1
    return filled


def shards_of(sizes: IntArray, clients: int, each: int) -> IntArray:
    """(C,) shards of every class, ``clients * each`` in all and as even in size as may be.

    Raises:
        DataError: too few examples, a client having at most one shard of a class.
    """
    most = np.minimum(sizes, clients)
    if most.sum() < clients * each:
        raise DataError(
            f"{clients} clients with {each} classes each need {clients * each} shares, and the "
            f"selected examples give {most.sum()}; take fewer clients, fewer labels_per_client "
            "or more shots"
        )
    shards = np.ones_like(sizes)
    for _ in range(clients * each - sizes.size):
        # One more shard for the class whose shards are largest (D'Hondt's rule).
        shards[np.argmax(np.where(shards < most, sizes / shards, 0.0))] += 1
    return shards


def owners(
    shards: IntArray, clients: int, each: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(clients, C) who holds which class: row sums are ``each``, column sums ``shards``.

    Client after client draws classes, weighted by the shards they have left. A class with as many
    shards left as clients are left must be taken; with that rule the rest always fits.
    """
    left = shards.astype(np.float64)
    held = np.zeros((clients, shards.size), dtype=np.bool_)
    for client in range(clients):
        clock = np.full(left.size, np.inf)  # the first to ring are taken: sampling by weight
        np.divide(rng.exponential(size=left.size), left, out=clock, where=left > 0)
        clock[left == clients - client] = -1.0
        held[client, np.argsort(clock)[:each]] = True
        left -= held[client]
    return held
