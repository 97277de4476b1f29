"""From files to examples at clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.config import Config
from fedbbpt.data.load import Table, classes, load, numbers, several
from fedbbpt.data.partition import holdout, shots, split
from fedbbpt.errors import ConfigError, DataError, closest
from fedbbpt.random import stream
from fedbbpt.types import Batch

TESTER = "(test)"
"""Holds the test examples where they belong to no site; takes no part in training."""

EVERYONE = "everyone"
"""The one client that is left when all data are pooled."""

POLES = ("low", "high")
"""What a box chooses between where labels are numbers."""


@dataclass(frozen=True)
class Split:
    """The examples of a federation.

    Attributes:
        classes: class names in class order; the poles where labels are numbers.
        train, holdout, test: batches by client name; the tester has test examples only.
        clients: names of those that train.
    """

    classes: tuple[str, ...]
    train: Mapping[str, Batch]
    holdout: Mapping[str, Batch]
    test: Mapping[str, Batch]
    clients: tuple[str, ...]


def examples(config: Config) -> Split:
    """Read the files and share the examples out.

    Raises:
        DataError, ConfigError: a file or the partition is at fault.
    """
    data = config.data
    for name in several(data.text):
        if name in several(data.label):
            raise ConfigError(f"data.text and data.label both name the column '{name}'")
    train = read_table(config, data.train)
    return share_out(config, train, read_table(config, data.test) if data.test else None)


def read_table(config: Config, path: str) -> Table:
    """A file that is laid out as the config says.

    Raises:
        DataError: it is not.
    """
    data = config.data
    return load(
        Path(path),
        text=data.text,
        label=data.label,
        site=data.site,
        header=data.columns,
        repeats=data.repeats,
        names=data.names,
        blank=data.blank,
    )


def tables(
    clients: Mapping[str, Sequence[tuple[str, str]]], test: Sequence[tuple[str, str]]
) -> tuple[Table, Table | None]:
    """Training and test table from (text, label) pairs; DataError without any.

    Args:
        clients: private examples by client name.
        test: examples for the final pass.
    """
    rows = [(text, label, name) for name, pairs in clients.items() for text, label in pairs]
    if not rows:
        raise DataError("clients hold no examples")
    texts, labels, sites = zip(*rows, strict=True)
    held = Table(tuple(t for t, _ in test), tuple(c for _, c in test), None) if test else None
    return Table(texts, labels, sites), held


def share_out(config: Config, train: Table, test: Table | None) -> Split:
    """Partition tables over clients and hold examples back."""
    if test and 0 < config.data.test_limit < len(test.texts):
        test = _sampled(test, config.data.test_limit)
    coded = _coded(config, train, test)
    seed, partition, strata = config.run.seed, config.partition, coded.strata
    rows = np.arange(len(strata))
    if partition.shots is not None:
        rows = shots(strata, partition.shots, seed, names=coded.names)
    owned = split(
        partition.kind,
        labels=strata,
        rows=rows,
        sites=train.sites,
        clients=partition.clients,
        alpha=partition.alpha,
        labels_per_client=partition.labels_per_client,
        seed=seed,
    )
    everything = Batch(train.texts, coded.train)
    kept: dict[str, Batch] = {}
    back: dict[str, Batch] = {}
    for client, mine in owned.items():
        train_rows, held = holdout(mine, strata, config.rounds.holdout, seed, client)
        kept[client], back[client] = everything.take(train_rows), everything.take(held)
    whole = Split(coded.classes, kept, back, _test(test, coded.test, owned), tuple(owned))
    if partition.only:
        return only(whole, partition.only)
    return _pooled(whole) if config.method.clients == "pooled" else whole


def only(split: Split, client: str) -> Split:
    """One client: its own examples and, where the test belongs to no site, all of the test."""
    if client not in split.clients:
        raise ConfigError(f"partition.only is '{client}'; {closest(client, split.clients)}")
    tested = {name: batch for name, batch in split.test.items() if name in (client, TESTER)}
    return Split(
        split.classes,
        {client: split.train[client]},
        {client: split.holdout[client]},
        tested,
        (client,),
    )


def _pooled(split: Split) -> Split:
    """One client with everybody's examples; the same ones are held back as in the federation."""
    train, back = ({EVERYONE: _joined(part)} for part in (split.train, split.holdout))
    return Split(split.classes, train, back, split.test, (EVERYONE,))


def _joined(batches: Mapping[str, Batch]) -> Batch:
    inputs = tuple(text for batch in batches.values() for text in batch.inputs)
    return Batch(inputs, np.concatenate([batch.targets for batch in batches.values()]))


def _sampled(table: Table, count: int) -> Table:
    rows = sorted(stream(0, "test").permutation(len(table.texts))[:count].tolist())

    def kept(column: Sequence[str]) -> tuple[str, ...]:
        return tuple(column[i] for i in rows)

    sites = None if table.sites is None else kept(table.sites)
    return Table(kept(table.texts), kept(table.labels), sites)


class _Coded(NamedTuple):
    """Labels as targets.

    Attributes:
        classes: as in :class:`Split`.
        train, test: targets.
        strata: (N,) the class of each training example, by which shots and clients are drawn.
        names: of the strata.
    """

    classes: tuple[str, ...]
    train: Array
    test: Array
    strata: Array
    names: tuple[str, ...]


def _coded(config: Config, train: Table, test: Table | None) -> _Coded:
    """Class indices; or numbers in [0, 1], with the nearest integers of the labels as strata."""
    bounds = config.data.range
    if registry.find("tasks", config.task).numbers:
        values = numbers(train, bounds, "training")
        tested = numbers(test, bounds, "test") if test else np.zeros(0)
        assert bounds is not None  # numbers would have refused
        low, high = bounds
        levels, strata = np.unique(np.rint(values).astype(np.int64), return_inverse=True)
        names = tuple(map(str, levels))
        scaled = [(own - low) / (high - low) for own in (values, tested)]
        return _Coded(POLES, scaled[0], scaled[1], strata, names)
    if bounds is not None:
        raise ConfigError(f"data.range is for labels that are numbers, not for '{config.task}'")
    names = classes(train, test)
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[label] for label in train.labels], np.int64)
    wanted = np.array([number[label] for label in test.labels] if test else [], np.int64)
    return _Coded(names, labels, wanted, labels, names)


def _test(test: Table | None, targets: Array, owned: Mapping[str, Array]) -> dict[str, Batch]:
    """Each site's own test examples where the table names the sites, else all in one place."""
    if test is None:
        return {}
    batch = Batch(test.texts, targets)
    if test.sites is None or not set(test.sites) <= set(owned):
        return {TESTER: batch}
    sites = np.array(test.sites)
    return {name: batch.take(np.flatnonzero(sites == name)) for name in owned}
