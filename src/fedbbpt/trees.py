"""Configs as nested dicts, before they are checked: one over another, keys set, paths found."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbbpt.errors import ConfigError

Tree = dict[str, Any]

NAMED = ("model", "vocabulary", "encoder")
"""Keys that hold a path or a name."""
PATHS = {
    "data": ("train", "test"),
    "run": ("ledger",),
    "gateway": ("ledger",),
    "prompt": ("words", "public", "encoder"),
    "box": ("model", "vocabulary", "prices", "classes"),
    "writer": ("model", "vocabulary", "prices"),
}


def parse(path: Path, overrides: Sequence[str] = ()) -> Tree:
    """What a config file says, with overrides on top; ConfigError if it cannot be read."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for item in overrides:
        override(tree, item)
    return tree


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """``above`` over ``below``; a plug-in that is named anew keeps none of the old options."""
    for key in ("name", "kind"):
        if key in above and key in below and above[key] != below[key]:
            return dict(above)
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def without_none(tree: Tree) -> Tree:
    """The tree without keys that have no value: TOML cannot say ``None``."""
    return {
        k: without_none(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None
    }


def override(tree: Tree, item: str) -> None:
    """Set one key as ``"section.key=value"`` says; ConfigError if it says nothing."""
    path, equals, text = item.partition("=")
    *tables, key = path.strip().split(".")
    if not equals or not all([*tables, key]):
        raise ConfigError(f"--set '{item}' must look like section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for table in tables:
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set '{item}': '{table}' is a value, not a table")
    tree[key] = value


TRACKED = ("uri", "folder")
"""Keys of a tracker that hold a path, unless it is an address."""


def _is_path(text: str) -> bool:
    return text[:1] in ("$", ".", "/", "~") or text.endswith((".onnx", ".tflite"))


def locate(tree: Tree, folder: Path) -> None:
    """Make the paths absolute, so that a run directory can be resumed from anywhere.

    ``{seed}`` in a path is run.seed: few-shot sets come in one sample per seed. ``{set}`` is
    data.set without the family in front of it, so that a sweep over sets needs one key.
    """
    run, data = tree.get("run"), tree.get("data")
    seed = run.get("seed", 0) if isinstance(run, dict) else 0
    chosen = str(data.get("set", "") if isinstance(data, dict) else "").rpartition("/")[2]
    for table, keys in PATHS.items():
        section = tree.get(table)
        if not isinstance(section, dict):
            continue
        for key in keys:
            value = section.get(key)
            # A model may also be a name: only what looks like a path is one.
            named = key in NAMED and not _is_path(str(value))
            if isinstance(value, str) and value and not named:
                placed = value.replace("{seed}", str(seed)).replace("{set}", chosen)
                expanded = os.path.expandvars(placed)
                if "$" in expanded:
                    unset = expanded[expanded.index("$") :].split("/")[0]
                    raise ConfigError(f"{table}.{key} is '{value}', but {unset} is not set")
                section[key] = os.path.abspath(folder / os.path.expanduser(expanded))
    trackers = tree.get("trackers")
    for options in trackers.values() if isinstance(trackers, dict) else ():
        for key in TRACKED if isinstance(options, dict) else ():
            value = options.get(key)
            if isinstance(value, str) and value and "://" not in value:
                options[key] = os.path.abspath(folder / os.path.expanduser(value))
