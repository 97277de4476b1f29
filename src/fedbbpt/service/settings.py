"""What a gateway is told: the tables ``[box]`` and ``[gateway]`` of a config, and its keys."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from fedbbpt.config import sentence
from fedbbpt.errors import ConfigError
from fedbbpt.sections import Box, Section
from fedbbpt.trees import locate, parse

T = TypeVar("T", bound=Section)


class Gateway(Section):
    """The table ``[gateway]``.

    Attributes:
        keys_env: environment variable(s) with the bearer keys of those who may ask: one key each,
            or several as ``name=key`` pairs with commas or blanks between. Without any, everyone
            who can reach the gateway may ask.
        quota: most queries that each key may send through the model; ``None`` for no limit. What
            another has paid for is free. It survives a restart if there is a ledger.
        ledger: file of the rows that were paid for; empty to keep them in memory.
        memory_mb: how much of them to keep in memory where there is no ledger.
        max_batch: most queries of several callers that are evaluated together; 0 to evaluate each
            call by itself. Merging keeps a model busy with many small callers, and changes the
            last bits of their scores; a caller who is alone has the local box's bits either way.
        wait_ms: how long to wait for further callers to merge with. Those that came while the
            model was busy are merged without waiting.
    """

    keys_env: str | list[str] = ""
    quota: int | None = Field(default=None, ge=0)
    ledger: str = ""
    memory_mb: int = Field(default=512, ge=0)
    max_batch: int = Field(default=256, ge=0)
    wait_ms: float = Field(default=0.0, ge=0, le=1000)


class Keys:
    """Who may ask. Keys themselves are not kept, only their hashes.

    Args:
        variables: names of environment variables; see :class:`Gateway`.

    Raises:
        ConfigError: a variable is empty, or a name stands for two keys.
    """

    def __init__(self, variables: Sequence[str]) -> None:
        self._hashes: dict[str, bytes] = {}
        for variable in variables:
            entries = re.split(r"[\s,]+", os.environ.get(variable, "").strip())
            if entries == [""]:
                raise ConfigError(f"gateway.keys_env names ${variable}, which is not set")
            for entry in entries:
                name, _, key = entry.partition("=")
                if not key.strip("="):  # base64 may end like this
                    name, key = variable, entry
                if name in self._hashes:
                    raise ConfigError(f"${variable} holds two keys named '{name}'")
                self._hashes[name] = _hash(key)

    def __len__(self) -> int:
        return len(self._hashes)

    def owner(self, header: str) -> str | None:
        """Whose key a header ``Authorization`` shows; without any keys, everyone is "anyone"."""
        if not self._hashes:
            return "anyone"
        scheme, _, key = header.partition(" ")
        shown, found = _hash(key.strip()), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(shown, known) and scheme.lower() == "bearer":
                found = name
        return found


def read(path: Path, overrides: Sequence[str] = ()) -> tuple[Box, Gateway]:
    """The two tables of a config file, which need not have any other.

    Raises:
        ConfigError: one sentence that names the key.
    """
    tree: dict[str, Any] = {
        name: table
        for name, table in parse(path, overrides).items()
        if name in ("box", "gateway", "run")
    }
    locate(tree, path.parent)
    if not isinstance(tree.get("box"), Mapping):
        raise ConfigError(f"{path} has no table [box]; write one that says which model to serve")
    return _table(Box, tree, "box"), _table(Gateway, tree, "gateway")


def open_to(host: str, keys: Keys) -> None:
    """Refuse to serve others than this machine's users without a key."""
    if not keys and host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            f"--host {host} lets everyone who can reach it ask the model; name a variable with "
            "keys in gateway.keys_env"
        )


def _table(kind: type[T], tree: Mapping[str, Any], name: str) -> T:
    if not isinstance(tree.get(name, {}), Mapping):
        raise ConfigError(f"{name} is {tree[name]!r}; write a table: [{name}]")
    try:
        return kind.model_validate(tree.get(name, {}))
    except ValidationError as error:
        raise ConfigError(sentence(error, kind, name)) from None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
