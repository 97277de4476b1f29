"""From a path to rows: bytes, characters, fields; CSV, TSV, JSONL and Parquet, also gzipped.

Every row is read as it stands or refused with one sentence that names the file and the line (as an
editor counts, from 1) or the Parquet row (from 1), and never quotes a text: texts are private.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fedbbpt.errors import DataError, MissingExtra, closest

BOM = b"\xef\xbb\xbf"
LONGEST_FIELD = 2**31 - 1  # csv keeps its limit in a C long, which has 32 bits on Windows
SEPARATORS = {",": "commas", "\t": "tabs"}

Record = tuple[int, list[str]]
"""The line on which a row of CSV or TSV starts, and its fields."""


class Form(NamedTuple):
    """How a text is made of columns: ``pieces`` are words and columns in turn, words first."""

    pieces: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Form:
        """A column's name, or a text with columns in braces."""
        braced = text if "{" in text else f"{{{text}}}"
        return cls(tuple(re.split(r"\{([^{}]*)\}", braced)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns in it."""
        return self.pieces[1::2]

    def fill(self, value: Callable[[str], str]) -> str:
        """The text with every column's value in its place."""
        return "".join(value(p) if i % 2 else p for i, p in enumerate(self.pieces))


class Columns(NamedTuple):
    """Which columns are wanted.

    Attributes:
        texts: forms of the text; a file is read by the first whose columns it has.
        labels: names of the label column; again the first that is there. None of them: rows
            have no label, and all their cells are kept.
        site: column of the site; a file may lack it.
        header: names of the columns where a CSV or TSV file does not begin with them.
        repeats: a column that a row of CSV or TSV may hold several times in a row, or ``""``.
    """

    texts: tuple[Form, ...]
    labels: tuple[str, ...]
    site: str
    header: tuple[str, ...] = ()
    repeats: str = ""


class Row(NamedTuple):
    """One example as a reader found it; ``place`` opens every sentence about it."""

    place: str
    cells: Mapping[str, Any]
    text: Form
    label: str


def read(path: Path, columns: Columns) -> list[Row]:
    """All rows of a file; DataError if it is none of ours, cannot be read or is empty."""
    suffix, data = unpacked(path, READERS)
    return list(READERS[suffix](path, data, columns))


def unpacked(path: Path, suffixes: Collection[str]) -> tuple[str, bytes]:
    """A file's suffix, one of those, and its bytes; DataError as :func:`read`."""
    suffix = _suffix(path)
    known = f"{' '.join(suffixes)}, each also as .gz"
    try:
        if path.is_dir():
            raise DataError(f"{path} is a directory; name one file in it ({known})")
        if suffix not in suffixes and path.exists():
            raise DataError(f"{path} has the suffix {suffix!r}; the known ones are: {known}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path itself
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({why}); check the path and its rights") from None
    if data and path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a whole gzip file ({error}); pack it again") from None
    if not data:
        raise DataError(f"{path} is empty; give it one example a row")
    return suffix, data


def _suffix(path: Path) -> str:
    """The suffix that says what is inside, in small letters."""
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() or suffix if suffix == ".gz" else suffix


def decode(path: Path, data: bytes) -> str:
    """The characters without a byte order mark; DataError if not UTF-8, NUL bytes or all blank."""
    start = len(BOM) if data.startswith(BOM) else 0
    # UTF-16 shows in one of two ways: by its mark, or by the NUL bytes beside Latin letters.
    text, fault, guess = "", data.find(b"\0"), "UTF-16"
    try:
        text = data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        fault = start + error.start
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
    if fault >= 0:
        line = data.count(b"\n", 0, fault) + 1
        raise DataError(
            f"{path}, line {line}: the byte 0x{data[fault]:02x} at offset {fault} is not UTF-8 "
            f"text; save it as UTF-8 (for example with: iconv -f {guess} -t UTF-8)"
        )
    if not text.strip():
        raise DataError(f"{path} is empty but for blanks; give it one example a row")
    return text


# --- CSV and TSV ---------------------------------------------------------------------------------


def _csv(path: Path, data: bytes, columns: Columns) -> Iterator[Row]:
    """Rows of CSV, quoted as spreadsheets do it."""
    return _rows(path, _records(path, decode(path, data), ","), columns, ",")


def _tsv(path: Path, data: bytes, columns: Columns) -> Iterator[Row]:
    """Rows of TSV, where a double quote is mostly a character like any other.

    Read with quotes as in CSV if that works and joins no two lines which are whole rows as they
    stand; otherwise every line is a row.
    """
    text = decode(path, data)
    records = _records(path, text, "\t", csv.QUOTE_NONE)
    try:
        quoted = _records(path, text, "\t")
    except DataError:
        quoted = []
    whole = partial(_even, longer=bool(columns.repeats))
    if whole(quoted) and (len(quoted) == len(records) or not whole(records)):
        records = quoted
    return _rows(path, records, columns, "\t")


def _even(records: Sequence[Record], longer: bool) -> bool:
    """Whether no row is shorter than the first, nor longer where that is not allowed."""
    widths = [len(fields) for _, fields in records]
    return bool(widths) and min(widths) == widths[0] and (longer or max(widths) == widths[0])


def _records(
    path: Path, text: str, delimiter: str, quoting: Any = csv.QUOTE_MINIMAL
) -> list[Record]:
    """Records that are not blank, each with the line it starts on (one may span lines)."""
    records, line = [], 1
    limit = csv.field_size_limit()
    # The limit (131072 characters) belongs to the whole process: lifted here, then put back.
    csv.field_size_limit(max(limit, min(len(text), LONGEST_FIELD)))
    try:
        # strict: a quote in the wrong place is refused, where the default guesses what was meant.
        source = io.StringIO(text, newline="")
        reader = csv.reader(source, delimiter=delimiter, quoting=quoting, strict=True)
        for fields in reader:
            if fields:
                records.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: unbalanced double quotes ({error}); close each quoted field "
            'and write "" for a quote inside one'
        ) from None
    finally:
        csv.field_size_limit(limit)
    return records


def _rows(path: Path, records: Sequence[Record], columns: Columns, delimiter: str) -> Iterator[Row]:
    """Rows by the names of the header; DataError if one is longer or shorter than the header."""
    line, header = records[0]
    name, place, rest = SEPARATORS[delimiter], f"{path}, line {line} (the header)", records[1:]
    if columns.header and not _has(header, columns):
        header, place, rest = list(columns.header), f"{path}, data.columns", records
    alone = f"; fields must be separated by {name}" if len(header) == 1 else ""
    text, label = chosen(place, header, columns, alone)
    for line, fields in rest:
        place = f"{path}, line {line}"
        surplus = len(fields) - len(header)
        if surplus > 0 and columns.repeats and columns.repeats in header:
            at = header.index(columns.repeats) + 1
            fields = fields[:at] + fields[at + surplus :]
        elif surplus:
            raise DataError(
                f"{place}: the header has {len(header)} fields and this row {len(fields)}; put "
                f"double quotes around a field that holds {name}"
            )
        yield Row(place, dict(zip(header, fields, strict=True)), text, label)


# --- JSONL and Parquet ---------------------------------------------------------------------------


def _jsonl(path: Path, data: bytes, columns: Columns) -> Iterator[Row]:
    """Rows of JSON Lines, blank lines left out; DataError if a line is not an object of ours."""
    keys = [*columns.texts[0].columns, *columns.labels[:1]]
    example = ", ".join(f'"{key}": "..."' for key in keys)
    want = f"write one object a line, such as {{{example}}}"
    # StringIO and not splitlines(): JSON strings may hold U+2028, which is no line end here.
    for line, source in enumerate(io.StringIO(decode(path, data), newline=""), start=1):
        if not source.strip():
            continue
        place = f"{path}, line {line}"
        try:
            cells = json.loads(source.rstrip())
        except json.JSONDecodeError as error:
            why = f"{error.msg}, column {error.colno}"
            raise DataError(f"{place}: not JSON ({why}); {want}") from None
        except (ValueError, RecursionError):  # a number of 5000 digits, or 10000 brackets
            raise DataError(f"{place}: a JSON value too large to read; {want}") from None
        if not isinstance(cells, dict):
            raise DataError(f"{place}: JSON of type {type(cells).__name__}, no object; {want}")
        yield Row(place, cells, *chosen(place, list(cells), columns))


def _parquet(path: Path, data: bytes, columns: Columns) -> Iterator[Row]:
    """Rows of Parquet; DataError if it is damaged, MissingExtra if pyarrow is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("pyarrow", "parquet") from None
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = list(file.schema_arrow.names)
        text, label = chosen(str(path), names, columns)
        wanted = {*text.columns, label, columns.site} if columns.labels else set(names)
        cells = file.read(columns=[name for name in names if name in wanted]).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split()).split(". ")[0]  # of Arrow's sentences the first
        raise DataError(f"{path} is not a whole Parquet file ({why}); write it again") from None
    for number, row in enumerate(cells, start=1):
        yield Row(f"{path}, row {number}", row, text, label)


# --- which columns -------------------------------------------------------------------------------


def _has(seen: Sequence[str], columns: Columns) -> bool:
    """Whether these names hold a text and a label."""
    texts = any(set(form.columns) <= set(seen) for form in columns.texts)
    return texts and (not columns.labels or any(label in seen for label in columns.labels))


def chosen(place: str, seen: Sequence[str], columns: Columns, hint: str = "") -> tuple[Form, str]:
    """The first form and the first label column that these names can fill.

    Raises:
        DataError: there is none, or one of the columns is there twice.
    """
    text = next((f for f in columns.texts if set(f.columns) <= set(seen)), columns.texts[0])
    label = next((name for name in columns.labels if name in seen), "".join(columns.labels[:1]))
    for name in (*text.columns, *filter(None, [label])):
        if name not in seen:
            raise DataError(f"{place}: no column {name!r}; {closest(name, seen)}{hint}")
    for name in (*text.columns, label, columns.site) if columns.labels else seen:
        if seen.count(name) > 1:
            raise DataError(f"{place}: {seen.count(name)} columns {name!r}; keep one of them")
    return text, label


READERS: dict[str, Callable[[Path, bytes, Columns], Iterable[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
