"""What an honest monitor cannot say or do, held against it until somebody has looked into it (`Register.forgive`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

SCHEMA = """
CREATE TABLE contradictions (
    issuer TEXT, agent TEXT, what TEXT, text TEXT, at REAL NOT NULL, PRIMARY KEY (issuer, agent, what, text))
    WITHOUT ROWID;
"""
MAX_KEPT = 1000
"""How many of one monitor are kept, the first ones. The last of them counts for all that it says: else whoever wants to
lie about one agent would use them up on another before."""
WHOLE_LOG = ""
"""The agent of those that concern whatever the monitor says."""
OF_WHOLE_LOG = frozenset(("two_histories", "log_shrank", "misdescribed"))
Found = tuple[str, str]
"""What was found, for machines and in words."""


def keep(db: sqlite3.Connection, issuer: str, agent: str, found: Iterable[Found], now: float) -> tuple[str, ...]:
    """Hold these against a monitor, in what it said of `agent`, or (WHOLE_LOG, or such a kind) of all. Their texts."""
    texts = []
    for what, text in found:
        texts.append(text)
        (kept,) = db.execute("SELECT count(*) FROM contradictions WHERE issuer = ?", (issuer,)).fetchone()
        if kept < MAX_KEPT:
            whole = what in OF_WHOLE_LOG or kept == MAX_KEPT - 1
            row = (issuer, WHOLE_LOG if whole else agent, what, text, now)
            db.execute("INSERT OR IGNORE INTO contradictions VALUES (?,?,?,?,?)", row)
    return tuple(texts)


def against(db: sqlite3.Connection, agent: str, issuers: Sequence[str], limit: int) -> Iterator[Found]:
    """Those about the agent, and about the logs of the first of those who have said something of it."""
    yield from db.execute(
        "SELECT what, text FROM contradictions WHERE agent = ? ORDER BY at LIMIT ?", (agent, limit)
    ).fetchall()
    for issuer in issuers[:limit]:
        yield from db.execute(
            "SELECT what, text FROM contradictions WHERE issuer = ? AND agent = ? ORDER BY at LIMIT ?",
            (issuer, WHOLE_LOG, limit),
        ).fetchall()


def drop(db: sqlite3.Connection, issuer: str) -> list[str]:
    """Hold nothing against a monitor any more; the texts, the oldest first."""
    found = db.execute("SELECT text FROM contradictions WHERE issuer = ? ORDER BY at", (issuer,)).fetchall()
    db.execute("DELETE FROM contradictions WHERE issuer = ?", (issuer,))
    return [text for (text,) in found]
