"""Which client holds which training examples.

A partition maps client names to sorted row numbers of the training table, in a fixed order of
clients. It depends on the seed and on which rows take part, not on their order. Every row goes to
exactly one client and no client is empty: what cannot be divided so is refused.
N: rows of the table; n: selected rows; C: classes among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedbbpt.data._skew import IntArray, by_class, cut, fill_empty, owners, shards_of
from fedbbpt.errors import ConfigError, DataError, closest
from fedbbpt.random import stream

Partition = dict[str, IntArray]

KINDS = ("column", "iid", "dirichlet", "pathological")


def shots(
    labels: IntArray, per_class: int, seed: int, *, names: Sequence[str] | None = None
) -> IntArray:
    """Rows of a k-shot sample: the same number of examples of every class.

    For one seed the sample of a smaller ``per_class`` is part of that of a larger one.

    Args:
        labels: (N,) class indices.
        per_class: examples of each class, k.
        seed: the run's seed.
        names: the classes by index, for the message and to notice a class with no example.

    Returns:
        (k * C,) sorted row numbers.

    Raises:
        ConfigError: ``per_class`` is below 1.
        DataError: a class has fewer examples than ``per_class``.
    """
    if per_class < 1:
        raise ConfigError(f"shots is {per_class}; it must be 1 or more, or left out for all data")
    rng = stream(seed, "shots")
    kept = []
    for number in range(len(names)) if names else np.unique(labels):
        rows = np.flatnonzero(labels == number)
        if rows.size < per_class:
            name = names[number] if names else int(number)
            raise DataError(
                f"class {name!r} has {rows.size} training examples and shots asks for {per_class} "
                "of each class; lower shots or add examples of it"
            )
        kept.append(rng.permutation(rows)[:per_class])
    return _sorted(np.concatenate(kept))


def split(
    kind: str,
    *,
    labels: IntArray,
    rows: IntArray,
    sites: Sequence[str] | None,
    clients: int,
    alpha: float,
    labels_per_client: int,
    seed: int,
) -> Partition:
    """Divide the selected rows among clients; options that a kind does not use are ignored.

    Args:
        kind: ``"column"``, ``"iid"``, ``"dirichlet"`` or ``"pathological"``.
        labels: (N,) class indices of the whole table.
        rows: (n,) selected row numbers, all different.
        sites: N site names, or ``None``; used by ``column``.
        clients: number of clients; used by all but ``column``.
        alpha: concentration, ``inf`` allowed; used by ``dirichlet``.
        labels_per_client: classes that each client holds; used by ``pathological``.
        seed: the run's seed.

    Raises:
        ConfigError: unknown kind, or an option out of range.
        DataError: the rows cannot be divided like this.
    """
    if kind == "column":
        return by_column(rows, sites)
    if kind == "iid":
        return iid(rows, clients, seed)
    if kind == "dirichlet":
        return dirichlet(labels, rows, clients, alpha, seed)
    if kind == "pathological":
        return pathological(labels, rows, clients, labels_per_client, seed)
    raise ConfigError(f"no partition kind {kind!r}; {closest(kind, KINDS)}")


def by_column(rows: IntArray, sites: Sequence[str] | None) -> Partition:
    """One client per site, in alphabetical order.

    Raises:
        DataError: no site column, or a site of which no row is selected (too few shots).
    """
    if sites is None:
        others = ", ".join(KINDS[1:])
        raise DataError(f"the training data has no site column; add one, or partition by {others}")
    rows, names = _sorted(rows), sorted(set(sites))
    number = {name: k for k, name in enumerate(names)}
    owners = np.array([number[sites[row]] for row in rows], np.int64)
    sizes = np.bincount(owners, minlength=len(names))
    for name, size in zip(names, sizes, strict=True):
        if not size:
            raise DataError(
                f"site {name!r} has none of the {rows.size} selected training examples; "
                "raise shots, or take the site out of the data"
            )
    # One pass for all: there may be thousands of sites.
    each = np.split(rows[np.argsort(owners, kind="stable")], np.cumsum(sizes)[:-1])
    return dict(zip(names, each, strict=True))


def iid(rows: IntArray, clients: int, seed: int) -> Partition:
    """Shuffle and cut: sizes differ by at most one."""
    _check(rows, clients)
    rng = stream(seed, "partition")
    return _named(np.array_split(rng.permutation(_sorted(rows)), clients))


def dirichlet(labels: IntArray, rows: IntArray, clients: int, alpha: float, seed: int) -> Partition:
    """Label skew: each class is shared out in proportions drawn from Dirichlet(alpha).

    One draw per class over the clients, the form that Li et al. (2022) gave to the law of Hsu et
    al. (2019). Small alpha: a class sits with few clients. Infinite: all is dealt out evenly.

    Small alphas leave clients empty nearly always. Such a client gets two examples (so that one
    can be held back), or one where there are fewer than two for each, from whoever then holds most.

    Raises:
        ConfigError: fewer than one client, or ``alpha`` not above 0.
        DataError: fewer rows than clients.
    """
    _check(rows, clients)
    if not alpha > 0:
        raise ConfigError(f"alpha is {alpha}; it must be above 0 (inf for no skew)")
    rng = stream(seed, "partition")
    classes = by_class(labels, _sorted(rows), rng)
    if math.isinf(alpha):
        # Dealt like cards, class after class: even, and no client goes without.
        dealt = np.concatenate(classes)
        return _named([dealt[i::clients] for i in rng.permutation(clients)])
    shares = [cut(own, clients, alpha, rng) for own in classes]
    filled = fill_empty(list(zip(*shares, strict=True)), rng)
    return _named([np.concatenate(own) for own in filled])


def pathological(
    labels: IntArray, rows: IntArray, clients: int, labels_per_client: int, seed: int
) -> Partition:
    """Each client holds exactly ``labels_per_client`` classes, and every class is somewhere.

    The shards of McMahan et al. (2017), except that none straddles two classes; their sizes are as
    even as the classes allow.

    Raises:
        ConfigError: fewer than one client, or ``labels_per_client`` outside 1..C or too few.
        DataError: fewer rows than clients or than shards.
    """
    _check(rows, clients)
    rng = stream(seed, "partition")
    classes = by_class(labels, _sorted(rows), rng)
    if not 1 <= labels_per_client <= len(classes):
        limits = f"between 1 and the number of classes, {len(classes)}"
        raise ConfigError(f"labels_per_client is {labels_per_client}; it must lie {limits}")
    if clients * labels_per_client < len(classes):
        raise ConfigError(
            f"{clients} clients with {labels_per_client} classes each cannot hold all "
            f"{len(classes)} classes; raise clients or labels_per_client"
        )
    sizes = np.array([own.size for own in classes])
    shards = shards_of(sizes, clients, labels_per_client)
    held = owners(shards, clients, labels_per_client, rng)
    parts: list[list[IntArray]] = [[] for _ in range(clients)]
    for own, holders in zip(classes, held.T, strict=True):
        for client, shard in zip(
            np.flatnonzero(holders), np.array_split(own, holders.sum()), strict=True
        ):
            parts[client].append(shard)
    return _named([np.concatenate(part) for part in parts])


def holdout(
    rows: IntArray, labels: IntArray, share: float, seed: int, client: str
) -> tuple[IntArray, IntArray]:
    """Hold back part of one client's examples, for choosing among snapshots.

    Every class gives its proportional number, rounded down or up.

    Args:
        rows: (n,) row numbers of the client, all different.
        labels: (N,) class indices of the whole table.
        share: part to hold back, in [0, 1). Above 0 at least one example is held back and one
            kept; a client's only example is kept.
        seed: the run's seed.
        client: the client's name.

    Returns:
        (kept for training, held back), both sorted.

    Raises:
        ConfigError: ``share`` is outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ConfigError(f"holdout is {share}; it must be 0 or more and below 1")
    rows = _sorted(rows)
    if share == 0 or rows.size < 2:
        return rows, rows[:0]
    rng = stream(seed, "holdout", client=client)
    lined_up = np.concatenate(by_class(labels, rows, rng))
    count = min(max(round(share * rows.size), 1), rows.size - 1)
    # Systematic sampling: every (n / count)-th in the line of classes, from a random start.
    places = (rng.integers(rows.size) + np.arange(count) * rows.size) // count
    return _sorted(np.delete(lined_up, places)), _sorted(lined_up[places])


def _check(rows: IntArray, clients: int) -> None:
    """ConfigError if there is no client, DataError if there are more clients than rows."""
    if clients < 1:
        raise ConfigError(f"clients is {clients}; it must be 1 or more")
    if rows.size < clients:
        raise DataError(
            f"{rows.size} training examples cannot be divided among {clients} clients; "
            "take fewer clients or more shots"
        )


def _named(parts: Sequence[IntArray]) -> Partition:
    """Clients ``client-00``, ``client-01``, ... with their sorted rows."""
    width = max(2, len(str(len(parts) - 1)))
    return {f"client-{i:0{width}}": _sorted(part) for i, part in enumerate(parts)}


def _sorted(rows: IntArray) -> IntArray:
    """The row numbers in ascending order."""
    return np.sort(np.asarray(rows, dtype=np.int64))
