"""State on disk that a kill at any moment leaves readable.

Two slots are written in turn, each with its own digest, and the newest whole one counts. Replacing
a file by renaming would be atomic as well, but costs a flush every round on common file systems.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from fedbbpt.arrays import Arrays, decode, encode
from fedbbpt.errors import RunDirError
from fedbbpt.types import digest

SLOTS = ("checkpoint.0", "checkpoint.1")
_DIGEST, _LENGTH = 16, 8


class Checkpoints:
    """Writes states into a folder; the files stay open, a round has no time for more.

    Args:
        folder: an existing directory.
    """

    def __init__(self, folder: Path) -> None:
        # "r+" keeps what is there: opening must not destroy the state that is to be loaded.
        paths = [folder / name for name in SLOTS]
        for path in paths:
            path.touch()
        self._files = [path.open("r+b", buffering=0) for path in paths]

    def save(self, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write arrays and JSON facts into the slot of their round.

        Args:
            arrays: by name.
            facts: anything JSON can hold; ``"round"`` says which state is newer.
        """
        note = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        data = encode({**arrays, "facts": note})
        file = self._files[facts["round"] % 2]
        file.seek(0)
        # What an older, longer state left behind the end is ignored by its length.
        blob = digest(data) + len(data).to_bytes(_LENGTH, "little") + data
        if file.write(blob) != len(blob):
            raise RunDirError(f"{file.name} could not be written whole; is the disk full?")

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def load(folder: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """The newest whole state, or ``None`` if none was ever saved.

    Raises:
        RunDirError: states were saved, but none is whole.
    """
    blobs = [(folder / name).read_bytes() for name in SLOTS if (folder / name).is_file()]
    states = [state for state in map(_read, blobs) if state is not None]
    if states:
        return max(states, key=lambda state: int(state[1]["round"]))
    # The very first save may have been cut off; the second slot is then still empty.
    if sum(bool(blob) for blob in blobs) > 1:
        raise RunDirError(f"both checkpoints in {folder} are damaged; the run cannot be resumed")
    return None


def keep(file: Path, arrays: Arrays) -> None:
    """Write once what later rounds go by; it is there whole or not at all."""
    partial = file.with_suffix(".part")
    partial.write_bytes(encode(arrays))
    os.replace(partial, file)


def kept(file: Path) -> Arrays:
    """What :func:`keep` wrote.

    Raises:
        RunDirError: it is lost or damaged.
    """
    try:
        return decode(file.read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise RunDirError(
            f"{file} is lost or damaged, so the run cannot be resumed: {error}"
        ) from error


def _read(blob: bytes) -> tuple[Arrays, dict[str, Any]] | None:
    head = _DIGEST + _LENGTH
    data = blob[head : head + int.from_bytes(blob[_DIGEST:head], "little")]
    if not data or digest(data) != blob[:_DIGEST]:
        return None
    try:
        arrays = decode(data)
        return arrays, json.loads(arrays.pop("facts").tobytes())
    except (SafetensorError, KeyError, ValueError):
        return None
