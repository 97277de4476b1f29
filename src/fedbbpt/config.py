"""The config: TOML in, one checked object out. Its keys are a contract."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import ValidationError

from fedbbpt import sets
from fedbbpt.errors import ConfigError, UnknownPart, closest
from fedbbpt.sections import (
    AUTO,
    AdmissionTable,
    Box,
    BudgetTable,
    Data,
    EngineTable,
    Method,
    Partition,
    PromptTable,
    Rounds,
    RunTable,
    Section,
    ShieldsTable,
    StopTable,
    TrackersTable,
)
from fedbbpt.trees import Tree, locate, merge, parse, without_none


class Config(Section):
    """Everything a run needs to know."""

    task: str = "classify"
    metric: str = "auto"
    data: Data
    partition: Partition = Partition()
    box: Box = Box()
    writer: Box | None = None
    prompt: PromptTable
    method: Method = Method()
    rounds: Rounds = Rounds()
    admission: AdmissionTable = AdmissionTable()
    shields: ShieldsTable = ShieldsTable()
    budget: BudgetTable = BudgetTable()
    stop: StopTable = StopTable()
    run: RunTable = RunTable()
    trackers: TrackersTable = TrackersTable()
    engine: EngineTable = EngineTable()

    def tree(self) -> Tree:
        """As nested dicts without empty values, every default written out."""
        return without_none(self.model_dump())

    def at_home(self) -> Config:
        """The same with every client in this process."""
        return self.model_copy(update={"engine": EngineTable()})

    def toml(self) -> str:
        """As TOML."""
        return tomli_w.dumps(self.tree())


def presets() -> list[str]:
    """Names of the methods shipped with the package."""
    folder = files("fedbbpt.methods")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def read(path: Path, overrides: Sequence[str] = ()) -> Config:
    """A config file with its preset underneath and overrides on top.

    Args:
        path: TOML file; its ``[data]`` paths are relative to its folder.
        overrides: ``"section.key=value"`` with the value in TOML (a bare word is a string).

    Raises:
        ConfigError, UnknownPart: one sentence that names the key.
    """
    others = ("compare", "gateway")  # tables for other commands
    tree = {key: own for key, own in parse(path, overrides).items() if key not in others}
    return resolve(tree, path.parent)


def resolve(tree: Tree, folder: Path) -> Config:
    """A checked config from nested dicts.

    Args:
        tree: as TOML gives it.
        folder: what relative paths are relative to.
    """
    method = tree.get("method", {})
    if isinstance(method, str):
        method = {"name": method}
    if not isinstance(method, dict):
        raise ConfigError(f"method is {method!r}; write a table: [method] name = ...")
    tree = {**tree, "method": method}
    preset = _preset(method.get("name", AUTO))
    base = method.get("base") or preset.get("method", {}).get("base")
    if base:
        preset = merge(_preset(base), preset)
    for name in (base or "", method.get("name", "")):
        preset = merge(preset, sets.published(tree, name))
    tree = merge(preset, tree)
    tree = merge(sets.facts(tree), tree)
    locate(tree, folder)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
    chosen = config.method.name != AUTO  # else there may be one later
    if chosen and not config.prompt.template and config.prompt.side != "image":
        raise ConfigError("the config lacks prompt.template; write one, or name a known data.set")
    return config


def _preset(name: object) -> Tree:
    if name not in presets():
        raise UnknownPart(f"no method is named '{name}'; {closest(str(name), presets())}")
    return tomllib.loads((files("fedbbpt.methods") / f"{name}.toml").read_text("utf-8"))


def sentence(error: ValidationError, model: Any = None, table: str = "") -> str:
    """The first fault in words, with the closest key for an unknown one.

    Args:
        error: what pydantic says.
        model: of what; the whole config if absent.
        table: where it stands.
    """
    first, path, model = error.errors()[0], [table] if table else [], model or Config
    # Behind the key, pydantic also names the member of a union that it tried.
    for part in first["loc"]:
        if isinstance(part, int):  # a place in a list
            model = next(iter(get_args(model)), None)
            continue
        fields: dict[str, Any] = getattr(model, "model_fields", {})
        if part not in fields:
            break
        path.append(str(part))
        model = fields[str(part)].annotation
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"unknown key {'.'.join([*path, key])}; {closest(key, fields)}"
    if first["type"] == "missing":
        key = ".".join([*path[:1] * bool(table), *(str(part) for part in first["loc"])])
        return f"the config lacks {key}"
    here = path[bool(table) :]
    tried = [e["msg"] for e in error.errors() if list(map(str, e["loc"]))[: len(here)] == here]
    return f"{where} is {first['input']!r}: {', or '.join(tried)}"
