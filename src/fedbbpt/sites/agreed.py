"""The part of a config that a server and its nodes must have alike, and what is each one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedbbpt import registry
from fedbbpt.config import Config
from fedbbpt.errors import ConfigError
from fedbbpt.sections import AUTO
from fedbbpt.sharing import TESTER, Split, read_table, sampled
from fedbbpt.targets import coded
from fedbbpt.trees import Tree
from fedbbpt.types import Batch

DATA = ("classes", "positive", "range", "set")
"""What all have to know of the examples; how a file is laid out is each node's own."""


def agreed(config: Config) -> Tree:
    """What both must have alike, as nested dicts without empty values."""
    tree = config.tree()
    kept = ("task", "metric", "prompt", "method", "rounds", "stop", "shields")
    shared = {name: tree[name] for name in kept if tree.get(name)}
    data = {name: tree["data"][name] for name in DATA if tree["data"].get(name)}
    return {**shared, "data": data, "run": {"seed": config.run.seed}}


def apart(mine: Any, theirs: Any, key: str = "") -> str:
    """The first key at which two trees differ, as ``table.key``; empty if they do not."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for name in sorted(mine.keys() | theirs.keys()):
            found = apart(mine.get(name), theirs.get(name), f"{key}.{name}".lstrip("."))
            if found:
                return found
        return ""
    # Of a tree that came over a wire as JSON.
    same = mine == theirs or (isinstance(mine, tuple) and list(mine) == theirs)
    return "" if same else key or "the whole config"


def classes_of(config: Config) -> list[str]:
    """All classes, which no file of one node need hold.

    Raises:
        ConfigError: the config names none.
    """
    named = config.data.classes or sorted(config.prompt.labels)
    if not named and config.task == "classify":
        raise ConfigError(
            "the config does not say which classes there are, and a node may lack some; add "
            "data.classes = [...]"
        )
    return list(named)


def empty(config: Config) -> Split:
    """The server's split before any node has come: a public test set, if it has one."""
    if not config.data.test:
        return Split(tuple(sorted(config.data.classes)), {}, {}, {}, ())
    table = sampled(read_table(config, config.data.test), config.data.test_limit)
    targets = coded(config, table, table)
    return Split(targets.classes, {}, {}, {TESTER: Batch(table.inputs, targets.test)}, ())


def federated(config: Config) -> Config:
    """The same config for many machines: every class named, one client for each node.

    Raises:
        ConfigError: the method is not for many machines.
    """
    if config.method.name == AUTO:
        raise ConfigError(
            "the config names no method; over many machines all must know it: write one that "
            "'fedbbpt doctor' recommends to [method] name, 'fedlinear' say"
        )
    if config.method.clients != "all":
        raise ConfigError(
            f"method.name = '{config.method.name}' is a simulation in one process; over many "
            "machines clients work together (method.clients = 'all')"
        )
    if config.prompt.vocabulary == "clients":
        raise ConfigError(
            "prompt.vocabulary = 'clients' is for runs in one process; over many machines take "
            "'near', or 'file' with prompt.words"
        )
    table = config.method.baseline
    if table is not None and registry.find("baselines", table.name).everyone:
        raise ConfigError(
            f"{table.name} scores every client's own model on one test set, which stays at the "
            "server; run it in one process"
        )
    tree = config.tree()
    tree["data"] |= {"classes": classes_of(config), "train": ""}
    tree["partition"] = {"kind": "column"}
    return Config.model_validate(tree)
