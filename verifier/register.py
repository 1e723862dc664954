"""The Verifier's register: BETs as they were appraised, how they continue each other, and what that says of an agent.

The windows of one agent under one policy form a chain: each BET names the one before (`ext.prev_bet`). A BET whose
predecessor has not come is after a gap, until it comes; two that name the same predecessor are a fork, which a monitor
that tells one story cannot make. The same holds for two roots of a log at one size.

What is said of an agent rests on the BETs whose windows ended in the last `period` seconds: the worst of them. Without
any there is nothing to say. Kept in SQLite; every change is on disk before it is answered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from ..evidence.bet import Bet
from ..formats.errors import LedgerError, UsageError
from .appraisal import Reason
from .ear import Status, Submodule, worst

_FORMAT = 1
_SCHEMA = """
CREATE TABLE bets (
    jti TEXT PRIMARY KEY, issuer TEXT NOT NULL, agent TEXT NOT NULL, policy TEXT NOT NULL, prev TEXT,
    start REAL NOT NULL, end REAL NOT NULL, status TEXT NOT NULL, reasons TEXT NOT NULL, gap INTEGER NOT NULL,
    token TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX by_agent ON bets (agent, end);
CREATE INDEX by_prev ON bets (prev) WHERE prev IS NOT NULL;
CREATE INDEX by_chain ON bets (issuer, agent, policy, end);
CREATE INDEX by_end ON bets (end);
CREATE TABLE roots (origin TEXT, size INTEGER, root TEXT NOT NULL, end REAL NOT NULL, PRIMARY KEY (origin, size))
    WITHOUT ROWID;
CREATE TABLE contradictions (agent TEXT, what TEXT, text TEXT, at REAL NOT NULL, PRIMARY KEY (agent, what, text))
    WITHOUT ROWID;
"""
MAX_REASONS = 16
"""Reasons that a result names, the worst first."""


class Register:
    """One process writes it. Every method raises LedgerError if the file cannot be used."""

    def __init__(self, path: Path) -> None:
        """Open or make the register. Raises UsageError if that cannot be."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (form,) = self._db.execute("PRAGMA user_version").fetchone()
            if form == 0:
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;")
            elif form != _FORMAT:
                raise UsageError(f"the register {path} has the format {form}, expected {_FORMAT}")
            path.chmod(0o600)
        except (sqlite3.Error, OSError) as e:
            raise UsageError(f"the register {path} cannot be opened: {e}") from None

    def add(self, bet: Bet, status: Status, reasons: tuple[Reason, ...], now: float) -> bool:
        """Take an appraised BET in; False if it is here already."""
        prev = bet.ext.get("prev_bet")
        chained = bet.ext.get("evaluation_mode") != "on_demand"
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM bets WHERE jti = ?", (bet.jti,)).fetchone():
                return False
            gap = chained and self._after_gap(db, bet, prev)
            said = orjson.dumps([asdict(reason) for reason in reasons]).decode()
            row = (bet.jti, bet.issuer, bet.subject, bet.policy, prev if chained else None, bet.start, bet.end)
            db.execute("INSERT INTO bets VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*row, status, said, gap, bet.token))
            db.execute("UPDATE bets SET gap = 0 WHERE prev = ?", (bet.jti,))
            for what, text in self._contradictions(db, bet, prev if chained else None):
                db.execute("INSERT OR IGNORE INTO contradictions VALUES (?,?,?,?)", (bet.subject, what, text, now))
        return True

    def _after_gap(self, db: sqlite3.Connection, bet: Bet, prev: object) -> bool:
        """Its predecessor is not here, though others of its chain are: the first that ever comes may be any."""
        if prev is not None and db.execute("SELECT 1 FROM bets WHERE jti = ?", (prev,)).fetchone():
            return False
        chain = (bet.issuer, bet.subject, bet.policy)
        known = db.execute("SELECT 1 FROM bets WHERE issuer = ? AND agent = ? AND policy = ? LIMIT 1", chain).fetchone()
        return known is not None

    def _contradictions(self, db: sqlite3.Connection, bet: Bet, prev: object) -> Iterator[tuple[str, str]]:
        if prev is not None:
            others = db.execute("SELECT jti FROM bets WHERE prev = ? AND jti <> ?", (prev, bet.jti)).fetchall()
            if others:
                yield "forked", f"the BETs {others[0][0]} and {bet.jti} both continue {prev}"
            before = db.execute("SELECT end FROM bets WHERE jti = ?", (prev,)).fetchone()
            if before is not None and before[0] != bet.start:
                yield "not_contiguous", f"the window of {bet.jti} does not begin where that of {prev} ended"
        origin, size, root = (bet.ext.get(name) for name in ("log_origin", "checkpoint_size", "checkpoint_root"))
        if isinstance(origin, str) and isinstance(size, int) and isinstance(root, str):
            seen = db.execute("SELECT root FROM roots WHERE origin = ? AND size = ?", (origin, size)).fetchone()
            if seen is None:
                db.execute("INSERT INTO roots VALUES (?,?,?,?)", (origin, size, root, bet.end))
            elif seen[0] != root:
                yield "two_histories", f"the log {origin} has shown two roots for its size {size}"

    def appraisal(self, agent: str, now: float, period: float, nonce: str | None = None) -> Submodule:
        """What is to be said of an agent now."""
        with self._reading() as db:
            sql = "SELECT policy, status, reasons, gap, jti FROM bets WHERE agent = ? AND end > ? ORDER BY end"
            rows = db.execute(sql, (agent, now - period)).fetchall()
            against = db.execute("SELECT what, text FROM contradictions WHERE agent = ?", (agent,)).fetchall()
        reasons = [Reason(what, "contraindicated", text) for what, text in against]
        statuses: list[Status] = [row[1] for row in rows]
        for _, _, said, gap, jti in rows:
            reasons += [Reason(**one) for one in orjson.loads(said)]
            if gap:
                reasons.append(Reason("gap", "warning", f"the BET before {jti} has not come"))
        statuses += [reason.status for reason in reasons]
        reasons.sort(key=lambda reason: ("contraindicated", "warning", "none", "affirming").index(reason.status))
        unique = list(dict.fromkeys(reasons))
        behavior: dict[str, Any] = {
            "bets": len(rows),
            "reasons": [{"what": one.what, "text": one.text} for one in unique[:MAX_REASONS]],
        }
        if len(unique) > MAX_REASONS:
            behavior["reasons_omitted"] = len(unique) - MAX_REASONS
        return Submodule(worst(statuses), tuple(dict.fromkeys(row[0] for row in rows)), nonce, behavior)

    def forgive(self, agent: str) -> int:
        """Somebody has looked into the contradictions about an agent; how many there were."""
        with self._transaction() as db:
            return db.execute("DELETE FROM contradictions WHERE agent = ?", (agent,)).rowcount

    def forget(self, before: float) -> int:
        """Drop the BETs of windows that ended before; how many there were. Contradictions stay."""
        with self._transaction() as db:
            db.execute("DELETE FROM roots WHERE end < ?", (before,))
            return db.execute("DELETE FROM bets WHERE end < ?", (before,)).rowcount

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            raise LedgerError(f"the register cannot be written: {e}") from None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as e:
            raise LedgerError(f"the register cannot be read: {e}") from None
