"""The ledger: every paid row, durable before its reply is used.

One SQLite file (write-ahead log) may serve many runs. Keys are digests; no private text is ever
stored. A row is visible to a job unless another client of the same run asked for it in the same
round: so what a client sees does not depend on which of two threads, or two machines, was first,
and a round that is repeated after a crash finds exactly what it had recorded itself.

Where several processes share a file, a run claims the rows that it is about to pay for, and others
wait for them instead of paying again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.budget import FEDERATION
from fedbbpt.errors import RunDirError

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS rows(
    key BLOB, run TEXT, account TEXT, round INTEGER, value BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS rows_by_key ON rows(key, run, account);
CREATE TABLE IF NOT EXISTS claims(
    key BLOB PRIMARY KEY, run TEXT, pid INTEGER, since REAL) WITHOUT ROWID;
"""
_CHUNK = 500
_REMEMBERED = 200_000
PATIENCE = 600.0
"""Seconds after which a claim is void: no call to a model takes that long if all is well."""
WAIT = 30.0
"""Seconds to wait for another process that holds the file's lock."""
POLL = 0.02
"""Seconds between two looks at what others are paying for."""


class Row(NamedTuple):
    """One paid reply and who asked for it when."""

    run: str
    account: str
    round: int
    value: Array


class Ledger:
    """All runs' rows in one file. Views may be handed out before :meth:`open`, not used.

    Attributes:
        run: name of the run that writes.
        shared: other processes may be at work on the same file, so that rows are claimed.
    """

    def __init__(self) -> None:
        self.run = ""
        self.shared = False
        self._lock = threading.Lock()
        self._memory: dict[bytes, list[Row]] = {}
        self._db: sqlite3.Connection

    def open(self, path: Path, shared: bool = False) -> None:
        """Open or make the SQLite file. Set :attr:`run` before anything is recorded.

        Raises:
            RunDirError: the file is not a ledger of this version.
        """
        self.shared = shared
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=WAIT)
            self._set_up(path)
        except sqlite3.Error as error:
            raise RunDirError(f"{path} cannot be used as a ledger: {error}") from error

    def _set_up(self, path: Path) -> None:
        """Set the journal and make the tables; another process may be doing the same."""
        end = time.monotonic() + WAIT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                # SQLite does not wait for its lock (its timeout) where the journal's mode changes.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(POLL)
        # Survives a kill of the process; a power cut may lose the last moments, never more.
        self._db.execute("PRAGMA synchronous=NORMAL")
        # Folding the log back costs a flush: every 64 MB instead of every 4.
        self._db.execute("PRAGMA wal_autocheckpoint=16000")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA):
            raise RunDirError(
                f"{path} is a ledger of schema {version}; this version reads {SCHEMA}"
            )
        self._db.executescript(_TABLES)
        if version != SCHEMA:
            self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def view(self, account: str, round: int) -> View:
        """The ledger as one account sees it in one round."""
        return View(self, account, round)

    def find(self, keys: Sequence[bytes], account: str, round: int) -> dict[bytes, Array]:
        """Visible rows by key; of several the account's own, else the earliest."""
        with self._lock:
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            memory = self._memory
            self._read([key for key in keys if key not in memory])
            found: dict[bytes, Array] = {}
            for key in keys:
                rows = memory.get(key)
                if rows is None:
                    continue
                if len(rows) > 1:
                    rows = sorted(
                        rows,
                        key=lambda r: (r.account != account, r.run != self.run, r.round, r.account),
                    )
                for row in rows:
                    if self._visible(row, account, round):
                        found[key] = row.value
                        break
            return found

    def record(self, rows: Mapping[bytes, Array], account: str, round: int) -> None:
        """Write rows durably."""
        with self._lock, self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?)",
                [(k, self.run, account, round, _pack(v)) for k, v in rows.items()],
            )
        with self._lock:
            for key, value in rows.items():
                self._remember(key, Row(self.run, account, round, value))

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that nobody has a row for and no other run is paying for.

        Runs of this run's name share their claims: what its clients see of each other does not
        depend on who is first. A claim is void when its process is dead or ``PATIENCE`` is over.
        """
        if not self.shared:
            return list(keys)
        with self._lock, self._db:
            # Writing first takes the file's write lock, under which the rest is one moment.
            mine = [(key, self.run, os.getpid(), time.time()) for key in keys]
            self._db.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?)", mine)
            standing = self._select("key, run, pid, since FROM claims", keys)
            others = [claim for claim in standing if claim[1] != self.run]
            void = {key for key, _, pid, since in others if not _stands(pid, since)}
            taken = [row for row in mine if row[0] in void]
            self._db.executemany("REPLACE INTO claims VALUES (?, ?, ?, ?)", taken)
            rows = self._select("key, run FROM rows", keys)
            paid = {key for key, run in rows if run != self.run}  # since they were looked up
            self._drop(paid)
        busy = {key for key, *_ in others} - void
        if len(busy) == len(keys) and not paid:
            time.sleep(POLL)
        return [key for key in keys if key not in busy and key not in paid]

    def release(self, keys: Sequence[bytes]) -> None:
        """End this run's claims of the keys."""
        if self.shared and keys:
            with self._lock, self._db:
                self._drop(keys)

    def known(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that some run has a row for."""
        with self._lock:
            return {key for (key,) in self._select("key FROM rows", keys)}

    def paid(self) -> int:
        """Rows that this run had to ask the model for."""
        with self._lock:
            query = "SELECT count(*) FROM rows WHERE run = ?"
            return int(self._db.execute(query, (self.run,)).fetchone()[0])

    def close(self) -> None:
        """Close the file, if it was opened."""
        if hasattr(self, "_db"):
            self._db.close()

    def _visible(self, row: Row, account: str, round: int) -> bool:
        return row.run != self.run or row.round < round or row.account in (account, FEDERATION)

    def _read(self, keys: Sequence[bytes]) -> None:
        columns = "key, run, account, round, value FROM rows"
        for key, run, account, round, value in self._select(columns, keys):
            self._remember(key, Row(run, account, round, _unpack(value)))

    def _select(self, columns: str, keys: Iterable[bytes]) -> Iterator[tuple[Any, ...]]:
        for chunk in batched(keys, _CHUNK):
            marks = ",".join("?" * len(chunk))
            yield from self._db.execute(f"SELECT {columns} WHERE key IN ({marks})", chunk)

    def _drop(self, keys: Iterable[bytes]) -> None:
        ended = [(key, self.run) for key in keys]
        self._db.executemany("DELETE FROM claims WHERE key = ? AND run = ?", ended)

    def _remember(self, key: bytes, row: Row) -> None:
        rows = self._memory.setdefault(key, [])
        if all((r.run, r.account) != (row.run, row.account) for r in rows):
            rows.append(row)


class View:
    """A :class:`fedbbpt.protocols.Store` for one account and round."""

    def __init__(self, ledger: Ledger, account: str, round: int) -> None:
        self._ledger, self._account, self._round = ledger, account, round

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The rows that are known, by key."""
        return self._ledger.find(keys, self._account, self._round)

    def put(self, rows: Mapping[bytes, Array]) -> None:
        """Record rows durably."""
        if rows:
            self._ledger.record(rows, self._account, self._round)

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Which of the keys to pay for now; see :meth:`Ledger.claim`."""
        return self._ledger.claim(keys)

    def release(self, keys: Sequence[bytes]) -> None:
        """End the claims."""
        self._ledger.release(keys)


def batched(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Lists of at most ``size`` keys (itertools has it from Python 3.12 on)."""
    rest = iter(keys)
    while chunk := list(islice(rest, size)):
        yield chunk


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


def _pack(value: Array) -> bytes:
    """A one-dimensional row with its type in front, e.g. ``<f4:``."""
    return value.dtype.str.encode() + b":" + value.tobytes()


def _unpack(blob: bytes) -> Array:
    kind, _, data = blob.partition(b":")
    return np.frombuffer(data, np.dtype(kind.decode()))
