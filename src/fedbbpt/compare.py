"""Methods side by side: the same data, budget and seeds, one ledger, nothing paid twice.

A comparison is a grid of runs (:mod:`fedbbpt.grid`): config files x settings of a swept key x
budgets x seeds x methods. Each has its own run directory, so a comparison that was cut off goes on
where it stopped: finished runs are read, a broken one is resumed. Every method is *charged* the
same for the same atoms, though with the common ledger only the first pays for them.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedbbpt import api, registry
from fedbbpt.black_box import AtomicBox
from fedbbpt.errors import BudgetTooSmall, ConfigError, RunDirError, UsageError
from fedbbpt.grid import Cell
from fedbbpt.report.rows import RUNS, measured
from fedbbpt.report.story import read_story
from fedbbpt.sections import Box

LEDGER = "ledger.sqlite"
Row = dict[str, Any]
Told = Callable[[Cell, Row], None]


def carry_out(cells: Sequence[Cell], out: Path, jobs: int, told: Told) -> list[Row]:
    """Run what is missing; rows in the order of the cells.

    Args:
        cells: the grid.
        out: the comparison's directory.
        jobs: processes. Each loads the model once. What one of them is paying for, the others
            wait for.
        told: hears of every row as it is ready.

    Raises:
        ConfigError: ``jobs`` is below 1.
        RunDirError: ``out`` holds something else.
        BoxError: a model failed for good; repeat the command to go on.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; it must be at least 1")
    _make(out)
    rows: dict[int, Row] = {}
    for place, row in _each(cells, out, min(jobs, len(cells))):
        rows[place] = row
        told(cells[place], row)
    return [rows[place] for place in range(len(cells))]


def _make(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RunDirError(f"{out} is a file; --out must name a directory")
    if out.is_dir() and any(out.iterdir()) and not (out / RUNS).is_dir():
        raise RunDirError(f"{out} is not empty and holds no comparison; choose another --out")
    try:
        (out / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(
            f"{out} cannot be made ({error.strerror}); choose another --out"
        ) from None


def _each(cells: Sequence[Cell], out: Path, jobs: int) -> Iterator[tuple[int, Row]]:
    """(place, row) of every cell as it is ready."""
    if jobs == 1:
        for place, cell in enumerate(cells):
            yield place, one(cell, out)
        return
    others = multiprocessing.active_children()
    # A forked process would inherit locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_deaf)
    try:
        places: dict[Future[Row], int] = {
            pool.submit(one, cell, out): place for place, cell in enumerate(cells)
        }
        for done in as_completed(places):
            yield places[done], done.result()
    except BaseException:
        # Runs survive a kill, and after a failure nobody wants to wait for the rest.
        for child in set(multiprocessing.active_children()).difference(others):
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _deaf() -> None:
    """A terminal's Ctrl-C goes to every process; the first of them ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def one(cell: Cell, out: Path) -> Row:
    """The row of one cell: read, resumed or run. What cannot be done is said in ``note``."""
    row: Row = {
        "data": cell.data,
        "setting": cell.setting,
        "method": cell.method,
        "budget": cell.budget,
        "seed": cell.seed,
        "note": cell.fault,
        "curve": [],
    }
    if cell.config is None:
        return row
    path, table = out / cell.folder, cell.config.box
    try:
        api.complete(cell.config, path, load=lambda: _box(table))
    except BudgetTooSmall as error:
        return {**row, "note": f"needs {error.needs}"}
    except UsageError as error:
        return {**row, "note": str(error)}
    row |= measured(read_story(path))
    return row if row["score"] is not None else {**row, "note": "its score is not a number"}


@lru_cache(maxsize=1)
def _box(table: Box) -> AtomicBox:
    """The model, loaded once for runs that share it."""
    box: AtomicBox = registry.make("boxes", table.kind, table.options, "box")
    return box
