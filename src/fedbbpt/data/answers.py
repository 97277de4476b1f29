"""Examples with answers in words: inputs, each with one reference answer or more.

Read from CSV, TSV, JSONL and Parquet with a column of inputs and one of answers, and from
instruction-induction JSON (see :mod:`fedbbpt.data._induction`), all also gzipped. As everywhere,
nothing is repaired silently and no sentence quotes an input or an answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.data import _induction
from fedbbpt.data._cells import filled, kept, mistyped, text_of, whole, word_of
from fedbbpt.data._readers import READERS, Columns, Form, Row, unpacked
from fedbbpt.data._table import Table
from fedbbpt.errors import ConfigError, DataError

INPUTS, OUTPUTS = ("input", "text"), ("output", "label")
"""Columns that are looked for where a config names none."""

_FLAT = (".csv", ".tsv", ".txt")  # where a cell is a text, and a list has to be written as one


def load(
    path: Path,
    *,
    text: Sequence[str] = INPUTS,
    label: Sequence[str] = OUTPUTS,
    site: str = "site",
    header: Sequence[str] = (),
    repeats: str = "",
    blank: str = "refuse",
    separator: str = "",
) -> Table:
    """Read a file of inputs and reference answers.

    A cell of answers holds one answer; or several, as a list (in JSON and Parquet), as a JSON list
    of texts in a cell of CSV or TSV (``["yes", "true"]``), or with ``separator`` between them, and
    blanks around each taken away. The first is the one shown where one is shown; repeated ones
    count once. Numbers become texts as ``str`` writes them.

    Args:
        path: a file that :func:`fedbbpt.data.load.load` takes, or one that ends in ``.json`` or
            ``.json.gz``.
        text: columns of the inputs, or forms with columns in braces; the first is used whose
            columns are there.
        label: columns of the answers, again the first that is there.
        site, header, repeats: as for :func:`fedbbpt.data.load.load`.
        blank: ``"drop"`` leaves out examples without an input.
        separator: what stands between the answers of a cell; ``""`` for nothing.

    Returns:
        A table with ``references``; ``labels`` are their firsts.

    Raises:
        DataError: the file is missing, unreadable or badly shaped, or an example has no answer.
        MissingExtra: the file is Parquet and pyarrow is not installed.
    """
    forms = tuple(Form.parse(form) for form in text)
    columns = Columns(forms, tuple(label), site, tuple(header), repeats)
    suffix, data = unpacked(path, {**READERS, ".json": _induction.rows})
    rows = kept(READERS.get(suffix, _induction.rows)(path, data, columns), blank)
    if not rows:
        raise DataError(f"{path} holds no examples; give it inputs with answers")
    return tabled(rows, site, separator, suffix in _FLAT)


def tabled(
    rows: Sequence[Row], site: str = "site", separator: str = "", flat: bool = False
) -> Table:
    """Rows as a table with ``references``.

    Args:
        rows: one or more.
        site, separator: as for :func:`load`.
        flat: a cell that is a JSON list of texts is a list.

    Raises:
        DataError: an input, an answer or a site lacks, or is no text.
    """
    inputs = tuple(text_of(row) for row in rows)
    references = tuple(_references(row, separator, flat) for row in rows)
    sites = tuple(word_of(row, site) for row in rows)
    if any(sites):
        for row, place in zip(rows, sites, strict=True):
            filled(row, site, place, "other rows have one, so fill it in or remove the column")
    firsts = tuple(own[0] for own in references)
    return Table(inputs, firsts, sites if any(sites) else None, references=references)


def instructions(path: Path) -> tuple[str, ...]:
    """The human-written instructions of a file in ``annotations``, in its order, without repeats.

    Raises:
        DataError: the file is not ``{"annotations": ["...", ...]}``, or one of them is blank.
    """
    content = _induction.parsed(path, unpacked(path, {".json": None})[1])
    found = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(found, list) or not found or not all(_written(one) for one in found):
        raise DataError(f'{path} holds no instructions; write {{"annotations": ["...", "..."]}}')
    return tuple(dict.fromkeys(one.strip() for one in found))


def targets(table: Table) -> Array:
    """(N,) tuples of references, as a batch holds them.

    Raises:
        DataError: the table has labels and no answers.
    """
    if table.references is None:
        raise DataError("these examples have labels and no reference answers; give them some")
    found = np.empty(len(table.references), object)
    for row, own in enumerate(table.references):  # at once, equally long ones become a matrix
        found[row] = own
    return found


def check_partition(kind: str) -> None:
    """Refuse to share out by class what has none.

    Raises:
        ConfigError: the kind of partition needs classes.
    """
    if kind in ("dirichlet", "pathological"):
        raise ConfigError(
            f"partition.kind is '{kind}', which shares out by class, and answers in words have no "
            "classes; take 'iid' or 'column'"
        )


def lonely(owned: Mapping[str, Sequence[int] | Array]) -> Iterator[str]:
    """A sentence if clients hold a single example each.

    Args:
        owned: rows by client, as a partition has them.
    """
    alone = [name for name, rows in owned.items() if len(rows) == 1]
    if alone:
        more = ", ..." if len(alone) > 5 else ""
        yield (
            f"{len(alone)} of {len(owned)} clients hold a single example, of which nothing can be "
            f"held back: {', '.join(alone[:5])}{more}"
        )


# --- from a cell to answers ----------------------------------------------------------------------


def _references(row: Row, separator: str, flat: bool) -> tuple[str, ...]:
    """A row's answers; DataError if there is none, or an empty one among them."""
    value = row.cells[row.label]
    if flat and isinstance(value, str):
        value = _list_in(value)
    each = value if isinstance(value, list) else [value]
    if separator:
        each = [part.strip() for one in each for part in _text(row, one).split(separator)]
    found = tuple(dict.fromkeys(whole(row, row.label, _text(row, one)) for one in each))
    if not any(one.strip() for one in found):
        raise DataError(f"{row.place}: {row.label!r} holds no answer; write one, or remove the row")
    if not all(one.strip() for one in found):
        raise DataError(
            f"{row.place}: {row.label!r} holds an empty answer among others; fill it in or remove "
            "it"
        )
    return found


def _list_in(cell: str) -> Any:
    """The texts of a cell that is a JSON list of texts; any other cell as it is."""
    try:
        found = json.loads(cell) if cell.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return cell
    right = isinstance(found, list) and found and all(isinstance(one, str) for one in found)
    return found if right else cell


def _text(row: Row, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise mistyped(row, row.label, "a text, a number or a list of these")
    return str(value)


def _written(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
