"""Labelled examples from a file: CSV, TSV, JSONL or Parquet, chosen by the suffix, also gzipped.

Nothing is repaired silently: a file is read as it stands, or refused with one sentence that names
the file, the line (as an editor counts, from 1) or the Parquet row (from 1, without a header), what
was seen and what would be right. Such a sentence never quotes a text: texts are private.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.data._cells import filled, kept, text_of, word_of
from fedbbpt.data._readers import Columns, Form, read
from fedbbpt.data._table import Table as Table
from fedbbpt.errors import ConfigError, DataError, closest


def load(
    path: Path,
    *,
    text: str | Sequence[str] = "text",
    label: str | Sequence[str] = "label",
    site: str = "site",
    header: Sequence[str] = (),
    repeats: str = "",
    names: Mapping[str, str] | None = None,
    blank: str = "refuse",
) -> Table:
    """Read a file of labelled examples.

    Labels and sites become strings, numbers as ``str`` writes them. CSV is quoted as spreadsheets
    do it: a quoted field may hold separators, line ends and doubled quotes. TSV is read so too
    where the file was plainly written so; else, as in GLUE, a quote is a character like others.

    Args:
        path: a ``.csv``, ``.tsv``, ``.txt`` (read as TSV), ``.jsonl``, ``.ndjson`` or ``.parquet``
            file, or one of these with ``.gz`` behind; text is UTF-8.
        text: column (or JSON key) of the texts, or a form with columns in braces such as
            ``"{premise} ? {hypothesis}"``. Of several the first is used whose columns are there.
        label: column of the labels; of several the first that is there.
        site: column that names the site of each example; the file may lack it.
        header: names of the columns of a CSV or TSV file that does not begin with them.
        repeats: column that a row of CSV or TSV may hold several times in a row; the first counts.
        names: better names for some labels.
        blank: ``"drop"`` leaves out examples without a text.

    Raises:
        DataError: the file is missing, unreadable or badly shaped.
        MissingExtra: the file is Parquet and pyarrow is not installed.
    """
    forms = tuple(Form.parse(form) for form in several(text))
    rows = kept(read(path, Columns(forms, several(label), site, tuple(header), repeats)), blank)
    if not rows:
        raise DataError(f"{path} holds no examples; give it texts with labels")
    texts = tuple(text_of(row) for row in rows)
    labels = tuple(word_of(row, row.label) for row in rows)
    sites = tuple(word_of(row, site) for row in rows)
    owned = any(sites)
    for row, word, place in zip(rows, labels, sites, strict=True):
        filled(row, row.label, word, "write a label or remove the row")
        if owned:
            filled(row, site, place, "other rows have one, so fill it in or remove the column")
    better = names or {}
    labels = tuple(better.get(word, word) for word in labels)
    return Table(texts, labels, sites if owned else None)


class Asked(NamedTuple):
    """One example without a label: its text, and all that its row holds, by column."""

    text: str
    cells: Mapping[str, Any]


def unlabelled(
    path: Path,
    *,
    text: str | Sequence[str] = "text",
    header: Sequence[str] = (),
    repeats: str = "",
    blank: str = "refuse",
) -> list[Asked]:
    """Read a file of examples that want a label, in its order; the arguments are :func:`load`'s.

    Raises:
        DataError: as in :func:`load`; or two columns have the same name.
        MissingExtra: the file is Parquet and pyarrow is not installed.
    """
    forms = tuple(Form.parse(form) for form in several(text))
    rows = kept(read(path, Columns(forms, (), "", tuple(header), repeats)), blank)
    if not rows:
        raise DataError(f"{path} holds no examples; give it one a row")
    return [Asked(text_of(row), row.cells) for row in rows]


def classes(train: Table, test: Table | None, named: Sequence[str] = ()) -> tuple[str, ...]:
    """The C class names, sorted.

    Args:
        train: the training data; it decides which classes there are, unless they are named.
        test: the test data, or ``None``; its labels are only checked.
        named: all classes, where the training data need not have every one.

    Raises:
        DataError: training has a single class, or an example has a class that there is not.
    """
    names = tuple(sorted(known := frozenset(named or train.labels)))
    strangers = sorted(set(train.labels) - known)
    if strangers:
        raise DataError(
            f"training examples have the label {strangers[0]!r}, which data.classes does not name; "
            + closest(strangers[0], names)
        )
    if named and len(names) < 2:
        raise DataError(f"data.classes is {list(named)}; name two or more")
    if len(names) < 2:
        raise DataError(f"all training examples have the label {names[0]!r}; give two or more")
    for number, label in enumerate(test.labels if test else (), start=1):
        if label not in known:
            raise DataError(
                f"test example {number} has the label {label!r}, which "
                f"{'data.classes does not name' if named else 'no training example has'}; "
                + closest(label, names)
            )
    return names


def numbers(table: Table, bounds: tuple[float, float] | None, split: str) -> Array:
    """(N,) labels as numbers.

    Args:
        table: the examples.
        bounds: the least and the greatest number that a label may be.
        split: ``"training"`` or ``"test"``, for the message.

    Raises:
        ConfigError: no bounds, or the first is not below the second.
        DataError: a label is no number within them.
    """
    if bounds is None:
        raise ConfigError("labels that are numbers need data.range, such as [0, 5]")
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"data.range is [{low:g}, {high:g}]; the first must be below the second")
    found = np.full(len(table.labels), np.nan)
    for number, label in enumerate(table.labels):
        try:
            found[number] = float(label)
        except ValueError:
            pass  # stays NaN, which no range holds
        if not low <= found[number] <= high:
            raise DataError(
                f"{split} example {number + 1} has the label {label!r}; data.range asks for a "
                f"number between {low:g} and {high:g}"
            )
    return found


def several(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or more, as more."""
    return (names,) if isinstance(names, str) else tuple(names)
