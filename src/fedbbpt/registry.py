"""Plug-ins by name: the file name is the plug-in's name.

A group is a sub-package with one plug-in per file; other installed packages add theirs through
entry points in the group ``fedbbpt.<group>``. Files that start with an underscore are helpers.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from fedbbpt.baselines import Baseline
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.errors import ConfigError, UnknownPart, closest
from fedbbpt.protocols import Aggregator, Engine, Optimizer, Prompt, Task
from fedbbpt.shielding import Shield
from fedbbpt.tracking import Tracker

GROUPS: dict[str, type] = {
    "aggregators": Aggregator,
    "baselines": Baseline,
    "boxes": AtomicBox,
    "engines": Engine,
    "optimizers": Optimizer,
    "prompts": Prompt,
    "shields": Shield,
    "tasks": Task,
    "trackers": Tracker,
    "wrappers": Wrapper,
}


def names(group: str) -> list[str]:
    """Names of a group's plug-ins, without importing any of them."""
    package = importlib.import_module(f"fedbbpt.{group}")
    own = {m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_"}
    return sorted(own | set(_foreign(group)))


def find(group: str, name: str) -> type[Any]:
    """The plug-in's class.

    Raises:
        UnknownPart: there is none of that name; the closest is in the message.
    """
    if name not in names(group):
        raise UnknownPart(f"no {group} plug-in is named '{name}'; {closest(name, names(group))}")
    foreign = _foreign(group)
    if name in foreign:
        loaded: type[Any] = foreign[name].load()
        return loaded
    module = importlib.import_module(f"fedbbpt.{group}.{name}")
    kind = GROUPS[group]
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, kind)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(found) != 1:
        raise UnknownPart(f"{module.__name__} must define one {kind.__name__}, not {len(found)}")
    return found[0]


def summary(group: str, name: str) -> str:
    """First line of the plug-in's module docstring."""
    module = inspect.getmodule(find(group, name))
    return (inspect.getdoc(module) or "").partition("\n")[0]


def make(group: str, name: str, options: Mapping[str, Any], where: str, **given: Any) -> Any:
    """A plug-in from config options.

    Args:
        group: e.g. ``"optimizers"``.
        name: the plug-in's name.
        options: what the user wrote, checked against the class's signature and types.
        where: the config table, for messages.
        given: what the program supplies; a user may not set these.

    Raises:
        UnknownPart, ConfigError: with the closest name or the type that was expected.
    """
    kind = find(group, name)
    parameters = inspect.signature(kind).parameters
    # A dataclass inherits fields, whose types only their own module can name.
    hints = get_type_hints(kind if is_dataclass(kind) else kind.__init__)
    open_to_user = [p for p in parameters if p not in given]
    checked: dict[str, Any] = {}
    for key, value in options.items():
        if key not in open_to_user:
            raise ConfigError(f"unknown key {where}.{key}; {closest(key, open_to_user)}")
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"{where}.{key} is {value!r}: {reason}") from error
    for key in open_to_user:
        if parameters[key].default is inspect.Parameter.empty and key not in checked:
            raise ConfigError(f"{where} lacks {key}, which '{name}' needs")
    supplied = {k: v for k, v in given.items() if k in parameters}
    return kind(**checked, **supplied)


def suited(group: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those that only other plug-ins of the group have, where one table stays as
    it is when another name is put in.
    """
    known = {each: inspect.signature(find(group, each)).parameters for each in names(group)}
    others = {key for each in known.values() for key in each} - {*known.get(name, ())}
    return {key: value for key, value in options.items() if key not in others}


def _foreign(group: str) -> dict[str, Any]:
    return {e.name: e for e in entry_points(group=f"fedbbpt.{group}")}
