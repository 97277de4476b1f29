"""What a node is told of the server's config: all but what is the server's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import tomli_w

from fedbbpt.config import Config
from fedbbpt.errors import ConfigError
from fedbbpt.sites.addresses import loopback
from fedbbpt.sites.agreed import federated
from fedbbpt.trees import PATHS, Tree, without_none

FILE = "federation.toml"
OWN = ("engine", "admission", "trackers")
"""Tables of the server alone."""
HEAD = """\
# What all nodes of this federation have agreed on; made by `fedbbpt certs`.
# Your own, and for fedbbpt node to say: your file of examples, your model, your caps.
"""


class Invitation(NamedTuple):
    """A config for nodes.

    Attributes:
        tree: as nested dicts.
        apart: keys that the server's config has and each node has to say for itself.
    """

    tree: Tree
    apart: tuple[str, ...]

    @property
    def toml(self) -> str:
        """As a file."""
        return HEAD + tomli_w.dumps(self.tree)


def invitation(config: Config) -> Invitation:
    """A config without the server's files, addresses and purse.

    Of the budget stay the queries of all, by which rounds are planned, and what one client may
    spend. A node may give itself less; the caps of all together are the server's to keep.

    Args:
        config: of the server.

    Raises:
        ConfigError: it is not for many machines, or nodes would need a file that only the server
            has.
    """
    for key in ("words", "public"):
        if isinstance(config.prompt.model_dump().get(key) or None, str):
            raise ConfigError(
                f"prompt.{key} names a file, which nodes do not have; write the words themselves: "
                "prompt.words = [...]"
            )
    tree = federated(config).tree()
    apart: list[str] = []
    for name in OWN:
        tree.pop(name, None)
    for table in ("data", "run", "box", "writer"):
        for key, value in list(tree.get(table, {}).items()):
            if _is_own(table, key, value):
                del tree[table][key]
                apart += [f"{table}.{key}"] * (value != "")
    for key in ("tokens", "usd"):
        tree["budget"].pop(key, None)
    tree["run"].pop("trackers", None)  # who follows a run at the server is not the nodes' affair
    return Invitation(without_none(tree), tuple(apart))


def _is_own(table: str, key: str, value: Any) -> bool:
    """Whether it is a file of the server's, or an address that means another machine elsewhere."""
    if not isinstance(value, str):
        return False
    if key == "url":
        return loopback(urlsplit(value).hostname or "")
    if key in ("model", "vocabulary"):  # which may be names
        return os.path.isabs(value)
    return key in PATHS.get(table, ())


def write(folder: Path, agreed: Invitation) -> bool:
    """Put it into a node's folder; says whether it was not there or another."""
    file, text = folder / FILE, agreed.toml
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return False
    fresh = file.with_name(FILE + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
    return True


def differs(folder: Path, agreed: Invitation) -> bool:
    """Whether a node was invited with another config."""
    file = folder / FILE
    return file.exists() and file.read_text(encoding="utf-8") != agreed.toml
