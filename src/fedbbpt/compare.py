"""Methods side by side: the same data, budget and seeds, one ledger, nothing paid twice.

A comparison is a grid of runs: config files x settings of a swept key x budgets x seeds x methods.
Each has its own run directory, so a comparison that was cut off goes on where it stopped: finished
runs are read, a broken one is resumed. Every method is *charged* the same for the same atoms,
though with the common ledger only the first pays for them.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, product
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fedbbpt import api, registry
from fedbbpt.config import Config, Options, Section, resolve, sentence
from fedbbpt.errors import BudgetTooSmall, ConfigError, UsageError, closest
from fedbbpt.protocols import AtomicBox
from fedbbpt.record import read_json, read_lines
from fedbbpt.rundir import CONFIG, EVENTS, RESULT
from fedbbpt.trees import Tree, override, parse

LEDGER = "ledger.sqlite"
Row = dict[str, Any]


class Entry(Section):
    """One method of the table: a preset, what it is called there, and what was changed in it.

    ``budgets``: those of the comparison's at which it runs, if not all.
    """

    name: str
    label: str = ""
    set: tuple[str, ...] = ()
    budgets: tuple[int, ...] = ()


class Compare(Section):
    """The table ``[compare]``.

    Attributes:
        methods: presets by name, or tables with ``name``, ``label`` and ``set``.
        baseline: label of the method that the others are tested against; the first if absent.
        seeds: run seeds; a number n stands for the first n of 0, 1, ...
        budgets: training queries; ``budget.queries`` if absent.
        sweep: one key of the config and the values it takes, e.g. {"partition.alpha" = [1, 0.1]}.
    """

    methods: tuple[str | Entry, ...] = Field(min_length=1)
    baseline: str = ""
    seeds: int | list[int] = 5
    budgets: tuple[int, ...] = ()
    sweep: dict[str, list[Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        data: name of the config file.
        setting: value of the swept key as ``key=value``, or "".
        method: its label.
        budget, seed: as they say.
        config: of the run; ``None`` with the reason in ``fault`` where the method cannot be used.
    """

    data: str
    setting: str
    method: str
    budget: int
    seed: int
    config: Config | None
    fault: str = ""

    @property
    def folder(self) -> Path:
        """Where its run directory is, relative to the comparison's."""
        setting = self.setting.replace("/", "_") or "as-is"
        return Path("runs", self.data, setting, self.method, f"{self.budget}-{self.seed}")


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, and which method the others are held against."""

    cells: tuple[Cell, ...]
    baseline: str


def plan(paths: Sequence[Path], ledger: Path, seeds: int | None = None, sweep: str = "") -> Plan:
    """The grid that some config files ask for.

    Args:
        paths: config files; the first one's ``[compare]`` counts for those without one.
        ledger: where all runs record what they paid.
        seeds: number of seeds to take of those in the config, or of 0, 1, ...
        sweep: ``"key=a,b,c"`` instead of the config's.

    Raises:
        ConfigError: a table is at fault, or two files have the same name.
    """
    if len({path.stem for path in paths}) < len(paths):
        raise ConfigError("two of the config files have the same name; rename one")
    cells: list[Cell] = []
    table: Compare | None = None
    for path in paths:
        tree = parse(path)
        if "compare" in tree or table is None:
            table = _table(path, tree.pop("compare", None))
        cells += _cells(path, tree, table, ledger, seeds, sweep)
    if not any(cell.config for cell in cells):
        raise ConfigError(cells[0].fault)
    assert table is not None  # there is at least one path
    labels = list(dict.fromkeys(cell.method for cell in cells))
    baseline = table.baseline or labels[0]
    if baseline not in labels:
        raise ConfigError(f"compare.baseline is '{baseline}'; {closest(baseline, labels)}")
    return Plan(tuple(cells), baseline)


def _table(path: Path, found: Any) -> Compare:
    if found is None:
        raise ConfigError(f"{path} has no table [compare]; write one with methods = [...]")
    try:
        return Compare.model_validate(found)
    except ValidationError as error:
        raise ConfigError(sentence(error, Compare, "compare")) from None


def _cells(
    path: Path, tree: Tree, table: Compare, ledger: Path, seeds: int | None, sweep: str
) -> Iterator[Cell]:
    listed = table.seeds if isinstance(table.seeds, list) else list(range(table.seeds))
    if seeds is not None:
        listed = listed[:seeds] if seeds <= len(listed) else list(range(seeds))
    budgets = table.budgets or [tree.get("budget", {}).get("queries", 4000)]
    entries = [Entry(name=m) if isinstance(m, str) else m for m in table.methods]
    for setting, seed, budget, entry in product(_settings(table, sweep), listed, budgets, entries):
        if entry.budgets and budget not in entry.budgets:
            continue
        changed = copy.deepcopy(tree)
        changed.setdefault("method", {})["name"] = entry.name
        own = [setting] if setting else []
        fixed = [f"run.seed={seed}", f"budget.queries={budget}"]
        config, fault = None, ""
        try:
            for item in (*own, *entry.set, *fixed):
                override(changed, item)
            changed.setdefault("run", {})["ledger"] = str(ledger.absolute())
            config = resolve(changed, path.parent)
        except UsageError as error:
            fault = str(error)
        label = entry.label or entry.name
        yield Cell(path.stem, setting, label, budget, seed, config, fault)


def _settings(table: Compare, sweep: str) -> list[str]:
    """``key=value`` for every value of the swept key; one empty setting without a sweep."""
    if sweep:
        key, equals, values = sweep.partition("=")
        if not equals or not values:
            raise ConfigError(f"--sweep '{sweep}' must look like section.key=a,b,c")
        return [f"{key}={value.strip()}" for value in values.split(",")]
    if len(table.sweep) > 1:
        raise ConfigError(f"compare.sweep has {len(table.sweep)} keys; sweep one at a time")
    return [f"{key}={value}" for key, values in table.sweep.items() for value in values] or [""]


# --- carrying it out -----------------------------------------------------------------------------

Told = Callable[[Cell, Row], None]


def carry_out(cells: Sequence[Cell], out: Path, jobs: int, told: Told) -> list[Row]:
    """Run what is missing; rows in the order of the cells.

    Args:
        cells: the grid.
        out: the comparison's directory.
        jobs: processes. Each loads the model once. Cells of one file, setting and seed stay in
            one process, for they share most of what is paid.
        told: hears of every row as it is ready.

    Raises:
        ConfigError: ``jobs`` is below 1.
        BoxError: a model failed for good; repeat the command to go on.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; it must be at least 1")
    out.mkdir(parents=True, exist_ok=True)
    groups = [list(group) for _, group in groupby(cells, lambda c: (c.data, c.setting, c.seed))]
    rows: list[Row] = []
    if jobs == 1 or len(groups) == 1:
        for cell in cells:
            rows.append(one(cell, out))
            told(cell, rows[-1])
        return rows
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for group, done in zip(
            groups, pool.map(_several, groups, [out] * len(groups)), strict=True
        ):
            for cell, row in zip(group, done, strict=True):
                rows.append(row)
                told(cell, row)
    return rows


def _several(cells: list[Cell], out: Path) -> list[Row]:
    return [one(cell, out) for cell in cells]


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
    path = out / cell.folder
    try:
        result = _result(cell.config, path)
    except BudgetTooSmall as error:
        return {**row, "note": f"needs {error.needs}"}
    except UsageError as error:
        return {**row, "note": str(error)}
    return {**row, **_measured(result), **_seen(path)}


def _result(config: Config, path: Path) -> Row:
    same = (path / CONFIG).is_file() and (path / CONFIG).read_text("utf-8") == config.toml()
    if same and (path / RESULT).is_file():
        return read_json(path / RESULT)
    box = _box(config.box.kind, repr(sorted(config.box.options.items())), config.box)
    if same:
        return api.resume(path, box=box).result
    return api.run(config, path, overwrite=True, box=box).result


@lru_cache(maxsize=1)
def _box(kind: str, _: str, table: Options) -> AtomicBox:
    """The model, loaded once for runs that share it."""
    box: AtomicBox = registry.make("boxes", kind, table.options, "box")
    return box


def _measured(result: Row) -> Row:
    metric, queries, size = result["metric"], result["queries"], result["bytes"]
    return {
        "metric": metric,
        "start": result["baseline"][metric],
        "score": result["tuned"][metric],
        "gain_low": result["gain_interval"][0],
        "gain_high": result["gain_interval"][1],
        **{f"{key}_queries": queries[key] for key in ("train", "select", "evaluation", "paid")},
        "rounds": result["rounds"],
        "bytes_up": round(size["up_per_client_round"], 1),
        "bytes_down": round(size["down_per_client_round"], 1),
        "seconds": result["seconds"]["total"],
        "box": result["box"],
    }


def _seen(path: Path) -> Row:
    """Accuracy along the way and the warnings, from the events."""
    events = read_lines(path / EVENTS) if (path / EVENTS).is_file() else []
    snapshots = [event for event in events if event["event"] == "snapshot"]
    curve = [(event["queries"], event["test_score"]) for event in snapshots]
    warned = sorted({event["kind"] for event in events if event["event"] == "diagnosis"})
    return {"curve": curve, "warnings": " ".join(warned)}
