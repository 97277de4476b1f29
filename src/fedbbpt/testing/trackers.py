"""The laws of a tracker: ``check_tracker(lambda folder: MyTracker(...), folder)``."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbbpt.testing._require import require
from fedbbpt.tracking import Tracker

Make = Callable[[Path], Tracker]

CONFIG: dict[str, Any] = {
    "task": "classify",
    "data": {"train": "/a/long/path", "classes": ["good", "bad"], "names": {}},
    "prompt": {"template": "It was {label} <b>&amp;</b> " + "long " * 300, "dim": 4},
    "method": {"optimizer": {"name": "es", "sigma": 1.0}},
    "run": {"seed": 0, "ledger": ""},
}
FACTS = {"loss": 0.7, "queries": 20.0, "bytes": 100.0, "seconds": 0.1}
RESULT: dict[str, Any] = {
    "schema": 1,
    "metric": "accuracy",
    "baseline": {"accuracy": 0.5, "loss": 0.9},
    "tuned": {"accuracy": 0.75, "loss": None},
    "gain_interval": [-0.125, 0.5],
    "queries": {"train": 40, "paid": 50},
    "cost_usd": None,
    "stopped": "budget",
}
"""What a run may tell: long and odd texts, empty lists, numbers that are not known."""


def check_tracker(make: Make, folder: Path) -> None:
    """Try every law.

    Args:
        make: a fresh tracker that keeps what it hears below a folder.
        folder: an empty one, which gets a folder for each law.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for law in LAWS:
        law(make, folder / law.__name__)


def run_directory(folder: Path, name: str = "mine") -> tuple[Path, list[Path]]:
    """A run directory and what of it is worth keeping: two files and a folder."""
    path = folder / "runs" / name
    (path / "prompt").mkdir(parents=True)
    files = [path / "result.json", path / "report.html", path / "prompt"]
    files[0].write_text(json.dumps(RESULT), encoding="utf-8")
    files[1].write_text("<!doctype html><title>mine</title>", encoding="utf-8")
    (files[2] / "prompt.json").write_text("{}", encoding="utf-8")
    return path, files


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# --- the laws ------------------------------------------------------------------------------------


def hears_a_whole_run(make: Make, folder: Path) -> None:
    """From the beginning to the end, without a word to the run's own directory or arguments."""
    path, files = run_directory(folder)
    before = _contents(path)
    config, facts, result = copy.deepcopy((CONFIG, FACTS, RESULT))
    tracker = make(folder / "kept")
    tracker.begin("0123456789abcdef", path, config)
    for step in range(3):
        tracker.log(step, facts)
    tracker.end(result, files)
    require(_contents(path) == before, "the run directory is another one than before")
    same = (config, facts, result) == (CONFIG, FACTS, RESULT)
    require(same, "what the tracker was told was changed by it")


def goes_on_after_a_stop(make: Make, folder: Path) -> None:
    """A run that ended without a result is begun again by another process, under the same id."""
    path, files = run_directory(folder)
    first = make(folder / "kept")
    first.begin("0123456789abcdef", path, CONFIG)
    first.log(0, FACTS)
    first.end({}, ())
    second = make(folder / "kept")
    second.begin("0123456789abcdef", path, CONFIG)
    second.log(1, FACTS)
    second.end(RESULT, files)


def keeps_two_runs_apart(make: Make, folder: Path) -> None:
    """Two runs of one process may overlap: neither ends the other."""
    one, other = make(folder / "kept"), make(folder / "kept")
    paths = [run_directory(folder, name) for name in ("one", "other")]
    one.begin("0" * 16, paths[0][0], CONFIG)
    other.begin("1" * 16, paths[1][0], CONFIG)
    one.log(0, FACTS)
    one.end(RESULT, paths[0][1])
    other.log(0, FACTS)
    other.end(RESULT, paths[1][1])


def bears_having_nothing_to_say(make: Make, folder: Path) -> None:
    """A baseline has no rounds, and a round may have no number that is known."""
    path, _ = run_directory(folder)
    tracker = make(folder / "kept")
    tracker.begin("0123456789abcdef", path, {})
    tracker.log(0, {})
    tracker.end(RESULT, ())


LAWS: tuple[Callable[[Make, Path], None], ...] = (
    hears_a_whole_run,
    goes_on_after_a_stop,
    keeps_two_runs_apart,
    bears_having_nothing_to_say,
)
