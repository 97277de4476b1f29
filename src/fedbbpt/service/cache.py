"""What a gateway keeps of the rows that it was paid for, and how many each caller paid for."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from fedbbpt.arrays import Array
from fedbbpt.ledger import Ledger

RUN = "gateway"
OVERHEAD = 200
"""Bytes that a row takes beside its numbers, about."""


class Cache(Protocol):
    """Rows by key, whoever paid for them; safe for threads."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The rows that are known."""

    def put(self, rows: Mapping[bytes, Array], owner: str) -> None:
        """Keep rows that this caller paid for."""

    def paid(self) -> Mapping[str, int]:
        """Rows by who paid for them."""

    def close(self) -> None:
        """Nothing is kept or asked any more."""


class Memory:
    """The rows used last, as many as fit.

    Args:
        size: most bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._rows: OrderedDict[bytes, Array] = OrderedDict()
        self._paid: Counter[str] = Counter()
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The rows that are known."""
        with self._lock:
            found = {key: self._rows[key] for key in keys if key in self._rows}
            for key in found:
                self._rows.move_to_end(key)
            return found

    def put(self, rows: Mapping[bytes, Array], owner: str) -> None:
        """Keep these, and drop those that were not asked for the longest."""
        with self._lock:
            self._paid[owner] += len(rows)
            for key, row in rows.items():
                if key not in self._rows:
                    # A copy: a view would keep its whole batch.
                    self._rows[key] = row.copy()
                    self._taken += row.nbytes + OVERHEAD
            while self._taken > self._size:
                _, old = self._rows.popitem(last=False)
                self._taken -= old.nbytes + OVERHEAD

    def paid(self) -> Mapping[str, int]:
        """Rows by who paid for them."""
        with self._lock:
            return dict(self._paid)

    def close(self) -> None:
        """Nothing to do."""


class Durable:
    """All rows ever paid for, in a ledger.

    Args:
        path: its file, made if there is none.

    Raises:
        RunDirError: the file is no ledger.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = Ledger()
        self._ledger.run = RUN
        path.parent.mkdir(parents=True, exist_ok=True)
        self._ledger.open(path)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The rows that are known."""
        return self._ledger.find(keys, "", 0, steady=True)

    def put(self, rows: Mapping[bytes, Array], owner: str) -> None:
        """Record them durably."""
        self._ledger.record(rows, owner, 0)

    def paid(self) -> Mapping[str, int]:
        """Rows by who paid for them, also before a restart."""
        return self._ledger.paid_by()

    def close(self) -> None:
        """Close the file."""
        self._ledger.close()
