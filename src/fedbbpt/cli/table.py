"""What a person sees of a comparison."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from fedbbpt.cli.show import console
from fedbbpt.compare import LEDGER, Row, carry_out
from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.grid import Cell, plan
from fedbbpt.report.curves import draw, write_csv
from fedbbpt.report.pages import report
from fedbbpt.report.summary import HEADER, Line, lines, markdown, remarks, tables


def compare(paths: Sequence[Path], out: Path, seeds: int | None, jobs: int, sweep: str) -> None:
    """Run what is missing, write rows, tables and curves, and print the tables."""
    planned = plan(paths, out / LEDGER, seeds, sweep)
    try:
        rows = carry_out(planned.cells, out, jobs, Progress(planned.cells))
    except KeyboardInterrupt:
        print(
            "fedbbpt: interrupted; give the same command again to go on, nothing is paid twice",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    found = lines(rows, planned.baseline)
    write_rows(out / "rows.csv", rows)
    (out / "table.md").write_text(markdown(found, planned.baseline), encoding="utf-8")
    write_csv(out / "curves.csv", found)
    show(found, planned.baseline)
    if not any(line.scores for line in found):
        raise ConfigError(f"no method could be run, the first for this reason: {found[0].note}")
    page = report([out], against=planned.baseline)
    written = f"{page.name}, rows.csv, table.md, curves.csv"
    try:
        written = ", ".join([written, *(path.name for path in draw(out, found))])
    except MissingExtra as missing:
        say(f"no pictures: {missing}")
    say(f"{out}: {written}; runs/ holds every run")


class Progress:
    """A line for every run that is ready, below a line that says what runs have in common.

    Args:
        cells: all runs.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._total, self._done, self._heading = len(cells), 0, ""
        self._width = max(len(cell.method) for cell in cells)

    def __call__(self, cell: Cell, row: Row) -> None:
        """Tell of one run."""
        self._done += 1
        where = filter(None, [cell.data, cell.setting, f"{cell.budget} queries"])
        heading = f"{', '.join(where)}, seed {cell.seed}"
        if heading != self._heading:
            say(heading)
            self._heading = heading
        count = f"{self._done:{len(str(self._total))}} of {self._total}"
        score = f"-, {row['note']}" if row["note"] else f"{row['score']:.3f}"
        say(f"  {count}  {cell.method:{self._width}}  {score}")


def show(found: Sequence[Line], baseline: str) -> None:
    """All tables and remarks."""
    head = [name.format(baseline) for name in HEADER]
    for name, body in tables(found):
        console.print()
        console.print(Text(name, style="bold"))
        for line in aligned([head, *body]):
            say(line)
    console.print()
    for remark in remarks(found):
        say(remark)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines whose columns stand below each other, however wide they are: a table
    that wraps cannot be read, least of all by the next program in a pipe.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def say(line: str) -> None:
    """One line as it is."""
    console.print(line, markup=False)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """One line per run, all but its curve."""
    names = list(dict.fromkeys(key for row in rows for key in row if key != "curve"))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
