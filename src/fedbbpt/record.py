"""What a run leaves behind: events.jsonl and result.json."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STRICT = json.JSONEncoder(allow_nan=False)


class Lines:
    """A file of JSON lines that a resumed run cuts back to its last checkpoint.

    Lines are gathered and written together by :meth:`flush`, at most once per round.

    Args:
        path: the file.
        offset: bytes to keep; what a killed round wrote behind them is cut off.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._file = path.open("ab")
        self._file.truncate(offset)
        self._file.seek(0, os.SEEK_END)
        self._lines: list[str] = []

    def write(self, event: str, **fields: Any) -> None:
        """Append one event. Numbers that JSON cannot hold become null."""
        fields = {"event": event, **fields}
        try:
            self._lines.append(_STRICT.encode(fields))
        except ValueError:  # rarely
            self._lines.append(_STRICT.encode(_finite(fields)))

    def flush(self) -> int:
        """Write what was gathered; returns the length of the file in bytes."""
        if self._lines:
            self._file.write(("\n".join(self._lines) + "\n").encode())
            self._file.flush()
            self._lines.clear()
        return self._file.tell()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every line kept or written so far, one at a time: of long runs there are millions."""
        self.flush()
        return iterate(Path(self._file.name))

    def read(self) -> list[dict[str, Any]]:
        """All of them."""
        return list(self)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


def iterate(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of JSON lines, one after another."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a file of JSON lines."""
    return list(iterate(path))


def read_json(path: Path) -> dict[str, Any]:
    """What :func:`write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically; numbers that JSON cannot hold become null."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(_finite(content), indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
