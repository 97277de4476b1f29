"""Locks of a node's home: one command at a time, and one letter at a time.

The system takes a lock back when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedbbpt.errors import RunDirError

COMMAND, LETTER = "in-use", "lock"
"""Files in a home."""
BEGUN = "begun"
"""What the second one holds over a letter."""


@contextmanager
def one_command(home: Path) -> Iterator[None]:
    """Held by the command that works in a home.

    Raises:
        RunDirError: another does.
    """
    with (home / COMMAND).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirError(
                f"another fedbbpt node is at work in {home}; stop that one, or choose another "
                "--home"
            ) from None
        yield


@contextmanager
def one_letter(home: Path) -> Iterator[None]:
    """Held by the process that answers a letter; others wait."""
    with (home / LETTER).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(BEGUN)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def broken_off(home: Path) -> bool:
    """Whether a process was killed over a letter since this was last asked."""
    try:
        with (home / LETTER).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = file.read() == BEGUN
            file.truncate(0)
            return found
    except (BlockingIOError, FileNotFoundError):
        return False
