"""The ledger: every paid row, durable before its reply is used.

One SQLite file (write-ahead log) may serve many runs. Keys are digests; no private text is ever
stored. A row is visible to a job unless another client of the same run asked for it in the same
round: so what a client sees does not depend on which of two threads, or two machines, was first,
and a round that is repeated after a crash finds exactly what it had recorded itself.

Where several processes share a file, a run claims the rows that it is about to pay for, and others
wait for them instead of paying again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbbpt import claims, receipts, vault
from fedbbpt.arrays import Array
from fedbbpt.budget import FEDERATION
from fedbbpt.claims import select
from fedbbpt.errors import RunDirError
from fedbbpt.till import Bill
from fedbbpt.types import Receipt

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS rows(
    key BLOB, run TEXT, account TEXT, round INTEGER, value BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS rows_by_key ON rows(key, run, account);
"""
_REMEMBERED, _ROW = 128 << 20, 400
"""Bytes of rows to keep at hand before all are forgotten, and what one takes beside its numbers."""
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
        self._size = 0  # of what is remembered
        self._whole, self._version = False, -1  # all that the file holds is, up to that version
        self._asking: set[bytes] = set()
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
        self._db.executescript(_TABLES + claims.TABLE + vault.TABLES)
        receipts.set_up(self._db)
        # Else every search would ask the file for rows that nobody can have paid for.
        self._whole = self._db.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is None
        self._version = self._edition()
        if version != SCHEMA:
            self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def view(self, account: str, round: int, steady: bool = False) -> View:
        """The ledger as one account sees it in one round; of steady rows it sees all."""
        return View(self, account, round, steady)

    def find(
        self, keys: Sequence[bytes], account: str, round: int, steady: bool = False
    ) -> dict[bytes, Array]:
        """Visible rows by key; of several the account's own, else the earliest."""
        with self._lock:
            self._fill(keys)
            memory, run, found = self._memory, self.run, dict[bytes, Array]()
            for key in keys:
                rows = memory.get(key)
                if rows is None:
                    continue
                if len(rows) > 1:
                    rows = sorted(
                        rows,
                        key=lambda r: (r.account != account, r.run != run, r.round, r.account),
                    )
                for its, whose, number, value in rows:
                    if steady or its != run or number < round or whose in (account, FEDERATION):
                        found[key] = value
                        break
            return found

    def record(self, rows: Mapping[bytes, Array], account: str, round: int) -> None:
        """Write rows durably."""
        with self._lock:
            with self._db:
                self._insert(rows, account, round)
            self._remember(rows, account, round)

    def book(self, account: str, round: int, receipt: Receipt, rows: Mapping[bytes, Array]) -> None:
        """Write a request and the rows that it brought durably, both or neither."""
        with self._lock:
            with self._db:
                receipts.write(self._db, self.run, account, round, receipt, len(rows))
                self._insert(rows, account, round)
            self._remember(rows, account, round)

    def bills(self, writes: bool = False) -> dict[str, Bill]:
        """What each account of this run was billed so far; for writing alone, if ``writes``."""
        with self._lock:
            return receipts.bills(self._db, self.run, writes)

    def requests(self) -> dict[str, Any] | None:
        """What this run sent over a wire; see :func:`fedbbpt.receipts.summary`."""
        with self._lock:
            return receipts.summary(self._db, self.run)

    def claim(self, keys: Sequence[bytes], steady: bool = False) -> list[bytes]:
        """Those of the keys that nobody has a row for and no other run is paying for; if their
        rows are steady, no other client of this process either.

        Else runs of this run's name share their claims: what its clients see of each other does
        not depend on who is first. A claim is void when its process is dead or ``PATIENCE`` is
        over.
        """
        if steady:
            keys = self._enter(keys)
        if not self.shared or not keys:
            return list(keys)
        with self._lock, self._db:
            mine, known = claims.take(self._db, self.run, keys)
            self._asking -= set(keys) - set(mine)
        if not mine and not known:
            time.sleep(POLL)
        return mine

    def release(self, keys: Sequence[bytes]) -> None:
        """End this run's claims of the keys."""
        with self._lock:
            self._asking -= set(keys)
        if self.shared and keys:
            with self._lock, self._db:
                claims.drop(self._db, self.run, keys)

    def known(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that some run has a row for."""
        with self._lock:
            return {key for (key,) in select(self._db, "key FROM rows", keys)}

    def paid(self) -> int:
        """Rows that this run had to ask the model for."""
        with self._lock:
            query = "SELECT count(*) FROM rows WHERE run = ?"
            return int(self._db.execute(query, (self.run,)).fetchone()[0])

    def paid_by(self) -> dict[str, int]:
        """Rows of :meth:`paid` by the account that asked."""
        with self._lock:
            query = "SELECT account, count(*) FROM rows WHERE run = ? GROUP BY account"
            return dict(self._db.execute(query, (self.run,)))

    def secret(self, account: str) -> bytes:
        """32 bytes that an account has for this run and nobody else knows; never sent."""
        with self._lock, self._db:
            return vault.secret(self._db, self.run, account)

    def once(self, account: str, round: int, what: str, value: bytes) -> bytes:
        """The first value that an account gave this in a round of this run, durable."""
        with self._lock, self._db:
            return vault.once(self._db, self.run, account, round, what, value)

    def close(self) -> None:
        """Close the file, if it was opened."""
        if hasattr(self, "_db"):
            self._db.close()

    def _enter(self, keys: Sequence[bytes]) -> list[bytes]:
        """Mark as being asked for what is neither known nor asked for by another thread."""
        with self._lock:
            known = {key for (key,) in select(self._db, "key FROM rows", keys)}
            free = [key for key in keys if key not in known and key not in self._asking]
            self._asking |= set(free)
        if not free and not known:
            time.sleep(POLL)
        return free

    def _insert(self, rows: Mapping[bytes, Array], account: str, round: int) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?)",
            [(k, self.run, account, round, _pack(v)) for k, v in rows.items()],
        )

    def _fill(self, keys: Sequence[bytes]) -> None:
        """Read what is not remembered of the rows of these keys."""
        if self._size >= _REMEMBERED:
            self._memory.clear()
            self._size, self._whole = 0, False
        missing = [key for key in keys if key not in self._memory]
        if missing and self._whole:
            self._whole = self._version == self._edition()
        if missing and not self._whole:
            columns = "key, run, account, round, value FROM rows"
            for key, run, account, round, value in select(self._db, columns, missing):
                self._keep(key, Row(run, account, round, _unpack(value)))

    def _edition(self) -> int:
        """Changes when another connection has written."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def _remember(self, rows: Mapping[bytes, Array], account: str, round: int) -> None:
        for key, value in rows.items():
            self._keep(key, Row(self.run, account, round, value))

    def _keep(self, key: bytes, row: Row) -> None:
        rows = self._memory.setdefault(key, [])
        if all((r.run, r.account) != (row.run, row.account) for r in rows):
            rows.append(row)
            self._size += _ROW + row.value.nbytes


class View:
    """A :class:`fedbbpt.storage.Store` for one account and round."""

    def __init__(self, ledger: Ledger, account: str, round: int, steady: bool) -> None:
        self._ledger, self._account, self._round = ledger, account, round
        self._steady = steady

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The rows that are known, by key."""
        return self._ledger.find(keys, self._account, self._round, self._steady)

    def put(self, rows: Mapping[bytes, Array]) -> None:
        """Record rows durably."""
        if rows:
            self._ledger.record(rows, self._account, self._round)

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Which of the keys to pay for now; see :meth:`Ledger.claim`."""
        return self._ledger.claim(keys, self._steady)

    def release(self, keys: Sequence[bytes]) -> None:
        """End the claims."""
        self._ledger.release(keys)


def _pack(value: Array) -> bytes:
    """A one-dimensional row with its type in front, e.g. ``<f4:``."""
    return value.dtype.str.encode() + b":" + value.tobytes()


def _unpack(blob: bytes) -> Array:
    kind, _, data = blob.partition(b":")
    return np.frombuffer(data, np.dtype(kind.decode()))
