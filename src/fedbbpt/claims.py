"""Claims in a ledger that several processes share: who is about to pay for which row."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

TABLE = """
CREATE TABLE IF NOT EXISTS claims(
    key BLOB PRIMARY KEY, run TEXT, pid INTEGER, since REAL) WITHOUT ROWID;
"""
PATIENCE = 600.0
"""Seconds after which a claim is void: no call to a model takes that long if all is well."""
_CHUNK = 500


def take(db: sqlite3.Connection, run: str, keys: Sequence[bytes]) -> tuple[list[bytes], set[bytes]]:
    """Claim what no other run has paid for or is paying for, inside the caller's transaction.

    Returns:
        The keys that the run has claimed now, and those that others have paid for meanwhile.
    """
    # Writing first takes the file's write lock, under which the rest is one moment.
    mine = [(key, run, os.getpid(), time.time()) for key in keys]
    db.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?)", mine)
    standing = select(db, "key, run, pid, since FROM claims", keys)
    others = [claim for claim in standing if claim[1] != run]
    void = {key for key, _, pid, since in others if not _stands(pid, since)}
    db.executemany("REPLACE INTO claims VALUES (?, ?, ?, ?)", [r for r in mine if r[0] in void])
    paid = {key for key, payer in select(db, "key, run FROM rows", keys) if payer != run}
    drop(db, run, paid)
    busy = {key for key, *_ in others} - void
    return [key for key in keys if key not in busy and key not in paid], paid


def drop(db: sqlite3.Connection, run: str, keys: Iterable[bytes]) -> None:
    """End a run's claims of the keys."""
    ended = [(key, run) for key in keys]
    db.executemany("DELETE FROM claims WHERE key = ? AND run = ?", ended)


def select(
    db: sqlite3.Connection, columns: str, keys: Iterable[bytes]
) -> Iterator[tuple[Any, ...]]:
    """``SELECT columns`` for the rows of these keys, however many there are."""
    rest = iter(keys)
    while chunk := list(islice(rest, _CHUNK)):  # itertools.batched comes with Python 3.12
        marks = ",".join("?" * len(chunk))
        yield from db.execute(f"SELECT {columns} WHERE key IN ({marks})", chunk)


def _stands(pid: int, since: float) -> bool:
    """Whether a claim still counts."""
    if not 0 <= time.time() - since < PATIENCE:
        return False
    if os.name == "nt":
        return True  # no signal there only asks, so a claim ends with its time
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
