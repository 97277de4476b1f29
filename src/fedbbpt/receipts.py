"""The ledger's book of requests over a wire: what each took, cost and brought."""

from __future__ import annotations

import sqlite3
from typing import Any

from fedbbpt.till import Bill
from fedbbpt.types import Receipt

TABLE = """
CREATE TABLE IF NOT EXISTS requests(
    run TEXT, account TEXT, round INTEGER, at REAL, status INTEGER, prompt_tokens INTEGER,
    completion_tokens INTEGER, usd REAL, seconds REAL, named INTEGER, rows INTEGER,
    writes INTEGER DEFAULT 0);
"""


def set_up(db: sqlite3.Connection) -> None:
    """Make the table; one of an earlier version gets the column that it lacks."""
    db.execute(TABLE)
    columns = [row[1] for row in db.execute("PRAGMA table_info(requests)")]
    if "writes" not in columns:
        db.execute("ALTER TABLE requests ADD COLUMN writes INTEGER DEFAULT 0")


def write(
    db: sqlite3.Connection, run: str, account: str, round: int, receipt: Receipt, rows: int
) -> None:
    """Enter a request that brought so many rows; the caller's transaction makes it durable."""
    *answered, writes = receipt
    db.execute(
        "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (run, account, round, *answered, rows, writes),
    )


def bills(db: sqlite3.Connection, run: str, writes: bool = False) -> dict[str, Bill]:
    """What each account of a run was billed; for writing alone, if ``writes``."""
    found = db.execute(
        "SELECT account, count(*), sum(prompt_tokens + completion_tokens), sum(usd) FROM requests "
        "WHERE run = ? AND writes >= ? AND "
        "(prompt_tokens > 0 OR completion_tokens > 0 OR usd > 0) GROUP BY account",
        (run, writes),
    )
    return {account: Bill(count, tokens, usd) for account, count, tokens, usd in found}


def summary(db: sqlite3.Connection, run: str) -> dict[str, Any] | None:
    """What a run sent over a wire; ``None`` if nothing.

    ``wasted``: requests that were billed and brought no row. ``unnamed``: replies without a label.
    """
    row = db.execute(
        "SELECT count(*), sum(rows = 0), sum(rows = 0 AND (prompt_tokens > 0 OR usd > 0)), "
        "sum(rows > 0 AND NOT named), sum(prompt_tokens), sum(completion_tokens), sum(usd), "
        "sum(seconds) FROM requests WHERE run = ?",
        (run,),
    ).fetchone()
    if not row[0]:
        return None
    names = "sent failed wasted unnamed prompt_tokens completion_tokens usd seconds".split()
    return dict(zip(names, row, strict=True))
