"""What a comparison asks for: the table ``[compare]`` and the grid of runs that comes of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from fedbbpt.config import Config, resolve, sentence
from fedbbpt.errors import ConfigError, UsageError, closest
from fedbbpt.sections import BudgetTable, PromptTable, Section
from fedbbpt.trees import Tree, override, parse

Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


class Entry(Section):
    """One method of the table: a preset, what it is called there, and what was changed in it.

    ``set`` that names another ``prompt.kind`` leaves the options of the config's own kind behind.
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

    methods: tuple[Entry, ...] = Field(min_length=1)
    baseline: str = ""
    seeds: Positive | Annotated[list[Seed], Field(min_length=1)] = 5
    budgets: tuple[Positive, ...] = ()
    sweep: dict[str, list[str | bool | int | float]] = Field(default={}, max_length=1)

    @field_validator("methods", mode="before")
    @classmethod
    def _named(cls, methods: Any) -> Any:
        """A name alone is an entry."""
        listed = methods if isinstance(methods, list) else [methods]
        return [{"name": entry} if isinstance(entry, str) else entry for entry in listed]


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
        names = (self.data, self.setting or "as-is", self.method, f"{self.budget}-{self.seed}")
        return Path("runs", *map(file_name, names))


def file_name(text: str) -> str:
    """The text as a name that leads nowhere else and that every file system can hold."""
    return re.sub(r'^\.|[/\\:*?"<>|\0]', "_", text)


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, and which method the others are held against."""

    cells: tuple[Cell, ...]
    baseline: str


def plan(paths: Sequence[Path], ledger: Path, seeds: int | None = None, sweep: str = "") -> Plan:
    """The grid that some config files ask for.

    Args:
        paths: config files; the first ``[compare]`` counts for those without one, and names the
            baseline.
        ledger: where all runs record what they paid.
        seeds: number of seeds to take of those in the config, or of 0, 1, ...
        sweep: ``"key=a,b,c"`` instead of the config's.

    Raises:
        ConfigError: a table is at fault, or two runs would be the same.
    """
    if len({path.stem for path in paths}) < len(paths):
        raise ConfigError("two of the config files have the same name; rename one")
    trees = {path: parse(path) for path in paths}
    tables = {path: _table(t.pop("compare")) for path, t in trees.items() if "compare" in t}
    if not tables:
        raise ConfigError(f"{paths[0]} has no table [compare]; write one with methods = [...]")
    first = next(iter(tables.values()))
    cells: list[Cell] = []
    for path, tree in trees.items():
        cells += _cells(path, tree, tables.get(path, first), ledger, seeds, sweep)
    _refuse_doubles(cells)
    if not cells:
        budgets = ", ".join(map(str, first.budgets)) or "budget.queries alone"
        raise ConfigError(f"none of the methods runs at any budget of the comparison: {budgets}")
    if not any(cell.config for cell in cells):
        raise ConfigError(cells[0].fault)
    labels = list(dict.fromkeys(cell.method for cell in cells))
    baseline = first.baseline or labels[0]
    if baseline not in labels:
        raise ConfigError(f"compare.baseline is '{baseline}'; {closest(baseline, labels)}")
    return Plan(tuple(cells), baseline)


def _table(found: Any) -> Compare:
    try:
        return Compare.model_validate(found)
    except ValidationError as error:
        raise ConfigError(sentence(error, Compare, "compare")) from None


def _refuse_doubles(cells: Sequence[Cell]) -> None:
    """Two runs in one directory would replace each other for ever."""
    seen: set[str] = set()
    for cell in cells:
        place = str(cell.folder).casefold()
        if place in seen:
            raise ConfigError(
                f"[compare] asks twice for {cell.method} with seed {cell.seed} and {cell.budget} "
                "queries; give each method a label of its own, and each seed, budget and value once"
            )
        seen.add(place)


def _cells(
    path: Path, tree: Tree, table: Compare, ledger: Path, seeds: int | None, sweep: str
) -> Iterator[Cell]:
    for name in ("method", "budget", "run"):
        if not isinstance(tree.setdefault(name, {}), dict):
            raise ConfigError(f"{name} is {tree[name]!r}; write a table: [{name}]")
    listed = table.seeds if isinstance(table.seeds, list) else list(range(table.seeds))
    if seeds is not None:
        listed = listed[:seeds] if seeds <= len(listed) else list(range(seeds))
    budgets = table.budgets or [tree["budget"].get("queries", BudgetTable().queries)]
    settings = _settings(table, sweep)
    for setting, seed, budget, entry in product(settings, listed, budgets, table.methods):
        if entry.budgets and budget not in entry.budgets:
            continue
        own = [setting] if setting else []
        fixed = [f"run.seed={seed}", f"budget.queries={budget}"]
        config, fault = None, ""
        try:
            config = _config(path, tree, entry.name, [*own, *entry.set, *fixed], ledger)
        except UsageError as error:
            fault = str(error)
        label = entry.label or entry.name
        yield Cell(path.stem, setting, label, budget, seed, config, fault)


def _config(path: Path, tree: Tree, method: str, changes: Sequence[str], ledger: Path) -> Config:
    changed = copy.deepcopy(tree)
    changed["method"]["name"] = method
    if any(item.partition("=")[0].strip() == "prompt.kind" for item in changes):
        shared = PromptTable.model_fields.keys() - {"kind"}
        own = changed.get("prompt", {})
        changed["prompt"] = {key: own[key] for key in own if key in shared}
    for item in changes:
        override(changed, item)
    changed["run"]["ledger"] = str(ledger.absolute())
    config = resolve(changed, path.parent)
    if not config.data.test:
        raise ConfigError(f"{path} names no data.test, and a comparison scores on test examples")
    return config


def _settings(table: Compare, sweep: str) -> list[str]:
    """``key=value`` for every value of the swept key; one empty setting without a sweep."""
    if sweep:
        key, _, listed = sweep.partition("=")
        values = [value.strip() for value in listed.split(",")]
        if not key.strip() or not all(values):
            raise ConfigError(f"--sweep '{sweep}' must look like section.key=a,b,c")
        return [f"{key.strip()}={value}" for value in values]
    return [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, values in table.sweep.items()
        for value in values
    ] or [""]
