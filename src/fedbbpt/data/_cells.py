"""From the cells of a row to texts and words: checked, never repaired, never quoted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from fedbbpt.data._readers import Row
from fedbbpt.errors import DataError


def kept(rows: Iterable[Row], blank: str) -> list[Row]:
    """All rows, without those that lack a text where these are to be dropped."""
    drop = blank == "drop"
    return [r for r in rows if not drop or all(said(r, column) for column in r.text.columns)]


def text_of(row: Row) -> str:
    """A row's text, untouched; DataError if a column of it is empty, blank or not a string."""

    def value(column: str) -> str:
        cell = row.cells[column]
        if not isinstance(cell, str | None):
            raise mistyped(row, column, "a text")
        if not said(row, column):
            raise DataError(f"{row.place}: {column!r} is empty; write a text or remove the row")
        return whole(row, column, str(cell))

    return row.text.fill(value)


def said(row: Row, column: str) -> bool:
    """Whether a cell holds more than blanks."""
    return row.cells[column] is not None and bool(str(row.cells[column]).strip())


def word_of(row: Row, column: str) -> str:
    """A label or site; ``""`` for null, NaN, blanks or no such column.

    Raises:
        DataError: neither string nor number, or blanks around it: ``" yes"`` beside ``"yes"``
            would quietly be one class more.
    """
    value = row.cells.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int | float):
        raise mistyped(row, column, "a word or a number")
    word = str(value).strip()
    if word and word != str(value):
        raise DataError(f"{row.place}: {column!r} is {value!r}, with blanks; write {word!r}")
    return whole(row, column, word)


def filled(row: Row, column: str, word: str, remedy: str) -> None:
    """DataError if a word is empty."""
    if not word:
        raise DataError(f"{row.place}: {column!r} is empty; {remedy}")


def whole(row: Row, column: str, value: str) -> str:
    """The value; DataError if it cannot be UTF-8 (every text is hashed as such) or holds a NUL."""
    if re.search("[\0\ud800-\udfff]", value):
        raise DataError(f"{row.place}: {column!r} holds a NUL or half a surrogate pair; remove it")
    return value


def mistyped(row: Row, column: str, want: str) -> DataError:
    """The error for a value of a type that the column cannot hold."""
    kind = type(row.cells[column]).__name__
    return DataError(f"{row.place}: {column!r} holds a value of type {kind}; write {want}")
