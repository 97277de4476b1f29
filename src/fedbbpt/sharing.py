"""From files to examples at clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.config import Config
from fedbbpt.data import answers, pictures
from fedbbpt.data._readers import Form, Row
from fedbbpt.data.load import Table, load, several
from fedbbpt.data.partition import holdout, shots, split
from fedbbpt.errors import ConfigError, DataError, closest
from fedbbpt.random import stream
from fedbbpt.sections import Data
from fedbbpt.targets import coded
from fedbbpt.types import Batch, Picture

TESTER = "(test)"
"""Holds the test examples where they belong to no site; takes no part in training."""
EVERYONE = "everyone"
"""The one client that is left when all data are pooled."""


@dataclass(frozen=True)
class Split:
    """The examples of a federation.

    Attributes:
        classes: class names in class order; the poles where labels are numbers; none where answers
            are words.
        train, holdout, test: batches by client name; the tester has test examples only.
        clients: names of those that train.
        notes: what was left out and what is lacking, a sentence each.
    """

    classes: tuple[str, ...]
    train: Mapping[str, Batch]
    holdout: Mapping[str, Batch]
    test: Mapping[str, Batch]
    clients: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> bool:
        """Whether examples are images."""
        return any(isinstance(x, Picture) for batch in self.train.values() for x in batch.inputs)


def examples(config: Config) -> Split:
    """Read the files and share the examples out.

    Raises:
        DataError, ConfigError: a file or the partition is at fault.
    """
    data = config.data
    if not data.train:
        raise ConfigError("the config lacks data.train; on many machines each node has its own")
    for name in several(data.image or data.text):
        if name in several(data.label):
            key = "data.image" if data.image else "data.text"
            raise ConfigError(f"{key} and data.label both name the column '{name}'")
    named = [path for path in (data.train, data.test) if path]
    if data.image and all(pictures.holds_files(Path(path)) for path in named):
        raise ConfigError(
            f"data.image names the column '{data.image}', but {' and '.join(named)} hold images "
            "by class; leave data.image away"
        )
    train = read_table(config, data.train, training=True)
    return share_out(config, train, read_table(config, data.test) if data.test else None)


def read_table(config: Config, path: str, training: bool = False) -> Table:
    """A file, or a folder of images, that is laid out as the config says.

    Args:
        config: says how.
        path: of the file, the folder, or the archive.
        training: every class and site must have an image.

    Raises:
        DataError: it is not.
    """
    data, place = config.data, Path(path)
    if pictures.holds_files(place):
        return pictures.load_folder(
            place,
            layout=data.layout,
            pixels=data.pixels,
            corrupt=data.corrupt,
            names=data.names,
            training=training,
        )
    table = _read(config, place)
    if not data.image:
        return table
    return pictures.load_listed(table, place, data.pixels, data.corrupt, training)


def sources(config: Config, path: str) -> list[Path]:
    """The files that a table is read from: one, or all images and the table that names them."""
    place = Path(path)
    if pictures.holds_files(place):
        return pictures.sources(place)
    if not config.data.image:
        return [place]
    return [place, *(place.parent / name for name in _read(config, place).inputs)]


def _read(config: Config, path: Path) -> Table:
    data = config.data
    if registry.find("tasks", config.task).words:
        if data.image or data.names:
            raise ConfigError("data.image and data.names are not for answers in words")
        # Where the config names no column, a file may call them by what they hold.
        plain, labelled = data.text == "text", data.label == "label"
        return answers.load(
            path,
            text=answers.INPUTS if plain else several(data.text),
            label=answers.OUTPUTS if labelled else several(data.label),
            site=data.site,
            header=data.columns,
            repeats=data.repeats,
            blank=data.blank,
            separator=data.separator,
        )
    if data.separator:
        raise ConfigError(f"data.separator is for answers in words, not for '{config.task}'")
    return load(
        path,
        text=data.image or data.text,
        label=data.label,
        site=data.site,
        header=data.columns,
        repeats=data.repeats,
        names=data.names,
        blank=data.blank,
    )


def tables(
    clients: Mapping[str, Sequence[tuple[Any, Any]]],
    test: Sequence[tuple[Any, Any]],
    data: Data | None = None,
    task: str = "classify",
) -> tuple[Table, Table | None]:
    """Training and test table from (input, label) pairs; DataError without any.

    Args:
        clients: private examples by client name: texts, or images in any form that
            :func:`fedbbpt.data.pictures.picture` takes (a path to one is a ``pathlib.Path``).
        test: examples for the final pass.
        data: how large images may be, and what to do with broken files.
        task: where its answers are words, a label is one, or a list of all that are right.
    """
    data = data or Data(train="")
    if not any(clients.values()):
        raise DataError("clients hold no examples")
    if registry.find("tasks", task).words:
        own = [row for site, pairs in clients.items() for row in _rows(pairs, f"of {site}")]
        sites = tuple(site for site, pairs in clients.items() for _ in pairs)
        train = answers.tabled(own)._replace(sites=sites)
        return train, answers.tabled(_rows(test, "of the test")) if test else None
    rows = [
        _example(data, input, label, site, f"image {number} of {site}")
        for site, pairs in clients.items()
        for number, (input, label) in enumerate(pairs, start=1)
    ]
    train = pictures.tabled(rows, "training", data.corrupt, (set(), set()))
    tested = [
        _example(data, input, label, None, f"test image {number}")
        for number, (input, label) in enumerate(test, start=1)
    ]
    return train, pictures.tabled(tested, "test", data.corrupt) if tested else None


def _rows(pairs: Sequence[tuple[Any, Any]], where: str) -> list[Row]:
    """Inputs with answers in words, as if they stood in a file."""
    cells = [{"input": x, "answer": list(y) if isinstance(y, tuple) else y} for x, y in pairs]
    form = Form.parse("input")
    return [Row(f"example {i} {where}", c, form, "answer") for i, c in enumerate(cells, 1)]


def _example(data: Data, input: Any, label: str, site: str | None, name: str) -> pictures.Example:
    if isinstance(input, str):
        return pictures.Example(name, label, site, input)
    if isinstance(input, Path):
        (file,) = pictures.listed([str(input)], Path())
        return pictures.Example(file.name, label, site, *file.open(data.pixels))
    return pictures.Example(name, label, site, pictures.picture(input, name, data.pixels))


def share_out(config: Config, train: Table, test: Table | None) -> Split:
    """Partition tables over clients and hold examples back."""
    notes = tuple(_notes(config, train, test))
    test = test and sampled(test, config.data.test_limit)
    code = coded(config, train, test)
    seed, partition, strata = config.run.seed, config.partition, code.strata
    rows = np.arange(len(strata))
    if partition.shots is not None:
        rows = shots(strata, partition.shots, seed, names=code.names)
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
    everything = Batch(train.inputs, code.train)
    kept: dict[str, Batch] = {}
    back: dict[str, Batch] = {}
    for client, mine in owned.items():
        train_rows, held = holdout(mine, strata, config.rounds.holdout, seed, client)
        kept[client], back[client] = everything.take(train_rows), everything.take(held)
    if not code.classes:
        notes += tuple(answers.lonely(owned))
    tested = _test(test, code.test, owned)
    whole = Split(code.classes, kept, back, tested, tuple(owned), notes)
    if partition.only:
        return only(whole, partition.only)
    return _pooled(whole) if config.method.clients == "pooled" else whole


def only(split: Split, client: str) -> Split:
    """One client: its own examples and, where the test belongs to no site, all of the test."""
    if client not in split.clients:
        raise ConfigError(f"partition.only is '{client}'; {closest(client, split.clients)}")
    tested = {name: batch for name, batch in split.test.items() if name in (client, TESTER)}
    return replace(
        split,
        train={client: split.train[client]},
        holdout={client: split.holdout[client]},
        test=tested,
        clients=(client,),
    )


def _pooled(split: Split) -> Split:
    """One client with everybody's examples; the same ones are held back as in the federation."""
    train, back = ({EVERYONE: _joined(part)} for part in (split.train, split.holdout))
    return replace(split, train=train, holdout=back, clients=(EVERYONE,))


def _joined(batches: Mapping[str, Batch]) -> Batch:
    inputs = tuple(input for batch in batches.values() for input in batch.inputs)
    return Batch(inputs, np.concatenate([batch.targets for batch in batches.values()]))


def sampled(table: Table, count: int) -> Table:
    """So many test examples, always the same random ones; all for 0, or if there are no more."""
    if not 0 < count < len(table.inputs):
        return table
    rows = sorted(stream(0, "test").permutation(len(table.inputs))[:count].tolist())

    def kept(column: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(column[i] for i in rows)

    sites = None if table.sites is None else kept(table.sites)
    right = None if table.references is None else kept(table.references)
    return Table(kept(table.inputs), kept(table.labels), sites, references=right)


def _notes(config: Config, train: Table, test: Table | None) -> Iterator[str]:
    """Images that were left out, and sites that lack classes which others have."""
    for what, table in (("training", train), ("test", test)):
        if table and table.skipped:
            total = len(table.inputs) + len(table.skipped)
            yield pictures.left_out(table.skipped, total, what)
    if train.sites and config.partition.kind == "column" and isinstance(train.inputs[0], Picture):
        held: dict[str, set[str]] = {}
        for site, label in zip(train.sites, train.labels, strict=True):
            held.setdefault(site, set()).add(label)
        every = set(train.labels)
        few = [f"{site} ({_few(sorted(every - had))})" for site, had in held.items() if had < every]
        if few:
            yield f"{len(few)} of {len(held)} sites hold no images of some classes: {_few(few)}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


def _test(test: Table | None, targets: Array, owned: Mapping[str, Array]) -> dict[str, Batch]:
    """Each site's own test examples where the table names the sites, else all in one place."""
    if test is None:
        return {}
    batch = Batch(test.inputs, targets)
    if test.sites is None or not set(test.sites) <= set(owned):
        return {TESTER: batch}
    sites = np.array(test.sites)
    return {name: batch.take(np.flatnonzero(sites == name)) for name in owned}
