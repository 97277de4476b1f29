"""What a node keeps to itself in its ledger: a secret, and what it has said once and for all."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3

from fedbbpt.maths.secret import SECRET_BYTES

TABLES = """
CREATE TABLE IF NOT EXISTS secret(one INTEGER PRIMARY KEY CHECK (one = 1), bytes BLOB);
CREATE TABLE IF NOT EXISTS said(
    run TEXT, account TEXT, round INTEGER, what TEXT, value BLOB,
    PRIMARY KEY (run, account, round, what)) WITHOUT ROWID;
"""


def secret(db: sqlite3.Connection, run: str, account: str) -> bytes:
    """The secret of one account in one run, from 32 random bytes that the ledger got when it was
    first asked.

    Runs that share a ledger, and the clients of a simulation, must not draw the same noise nor
    have the same keys; none of their secrets tells anything of another.
    """
    db.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_bytes(SECRET_BYTES),))
    (root,) = db.execute("SELECT bytes FROM secret").fetchone()
    h = hashlib.shake_256(b"fedbbpt node secret 1" + root)
    for part in (run.encode(), account.encode()):
        h.update(len(part).to_bytes(8, "big") + part)
    return h.digest(SECRET_BYTES)


def once(
    db: sqlite3.Connection, run: str, account: str, round: int, what: str, value: bytes
) -> bytes:
    """What an account has said of something in a round: this value if it had said nothing yet, for
    ever after the same.
    """
    place = (run, account, round, what)
    db.execute("INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?, ?)", (*place, value))
    query = "SELECT value FROM said WHERE run = ? AND account = ? AND round = ? AND what = ?"
    return bytes(db.execute(query, place).fetchone()[0])
