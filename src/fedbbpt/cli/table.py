"""What a person sees of a comparison."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fedbbpt.cli.show import console
from fedbbpt.compare import LEDGER, Cell, Row, carry_out, plan
from fedbbpt.errors import MissingExtra
from fedbbpt.report.curves import draw, write_csv
from fedbbpt.report.summary import HEADER, lines, markdown, remarks, tables


def compare(paths: Sequence[Path], out: Path, seeds: int | None, jobs: int, sweep: str) -> None:
    """Run what is missing, write rows, tables and curves, and print the tables."""
    planned = plan(paths, out / LEDGER, seeds, sweep)
    total, done = len(planned.cells), 0

    def told(cell: Cell, row: Row) -> None:
        nonlocal done
        done += 1
        score = f"-, {row['note']}" if row["note"] else f"{row['score']:.3f}"
        setting = f" {cell.setting}" if cell.setting else ""
        place = f"{cell.data}{setting} {cell.method} {cell.budget} seed {cell.seed}"
        console.print(f"{done:4} of {total}  {place}: {score}")

    try:
        rows = carry_out(planned.cells, out, jobs, told)
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
    head = [name.format(planned.baseline) for name in HEADER]
    for name, body in tables(found):
        table = Table(*head, title=name, title_justify="left", box=None, pad_edge=False)
        for cells in body:
            table.add_row(*cells)
        console.print()
        console.print(table)
    console.print()
    for remark in remarks(found):
        console.print(remark)
    written = "rows.csv, table.md, curves.csv"
    try:
        written = ", ".join([written, *(path.name for path in draw(out, found))])
    except MissingExtra as missing:
        console.print(f"no pictures: {missing}")
    console.print(f"{out}: {written}; runs/ holds every run")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """One line per run, all but its curve."""
    names = list(dict.fromkeys(key for row in rows for key in row if key != "curve"))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
