"""What the Verifier knows of monitors' logs: the largest tree of each, and which trees of BETs are proven."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from ...evidence.bet import Bet
from ..bets import parse_bet
from . import contradictions
from .appraisal import Reason, References
from .consistency import Checked, LogState
from .contradictions import Found
from .database import Database
from .sampling import Sample
from .tiles import Tree

SCHEMA = """
CREATE TABLE roots (
    issuer TEXT, size INTEGER, root TEXT NOT NULL, end REAL NOT NULL, came REAL NOT NULL, standing INTEGER NOT NULL,
    PRIMARY KEY (issuer, size)) WITHOUT ROWID;
CREATE INDEX by_standing ON roots (issuer, standing, size);
CREATE TABLE logs (issuer TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, witnessed INTEGER NOT NULL)
    WITHOUT ROWID;
"""
AT_ONCE = 256
"""Trees of BETs that are proven in one round."""
LOOKED_AT = 4096
"""BETs of all monitors among which one of a certain monitor is looked for to be judged again."""
_UNPROVEN, _PROVEN, _REFUTED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Demands:
    """What the operator wants of a monitor's log before its evidence counts for all it is worth.

    `served`: the Verifier knows where the log is; `demanded`: what was not checked is a warning; `witnessed`: so is
    what is under no cosigned checkpoint. Both may take `within` seconds after a BET has come.
    """

    served: bool
    demanded: bool
    witnessed: bool
    within: float


class KnownLogs:
    """Part of the register. Raises LedgerError like all of it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def state(self, issuer: str, references: References | None = None) -> LogState:
        """What the next round has to go on; with `references`, also a window that may be judged again by them."""
        with self._db.reading() as db:
            known = db.execute("SELECT size, root FROM logs WHERE issuer = ?", (issuer,)).fetchone()
            sql = "SELECT size, root FROM roots WHERE issuer = ? AND standing = ? ORDER BY size LIMIT ?"
            unproven = db.execute(sql, (issuer, _UNPROVEN, AT_ONCE)).fetchall()
            chosen = _sample(db, issuer, known[0]) if known is not None and references is not None else None
        sample = Sample(chosen, references) if chosen is not None and references is not None else None
        return LogState(Tree(*known) if known is not None else None, tuple(unproven), sample)

    def take(self, issuer: str, checked: Checked, now: float) -> tuple[str, ...]:
        """What a round found out; the contradictions in words."""
        with self._db.transaction() as db:
            known = db.execute("SELECT witnessed FROM logs WHERE issuer = ?", (issuer,)).fetchone()
            before = known[0] if known is not None and not checked.against else 0
            row = (issuer, checked.newest.size, checked.newest.root, max(before, checked.witnessed or 0))
            db.execute("INSERT OR REPLACE INTO logs VALUES (?,?,?,?)", row)
            for standing, sizes in ((_PROVEN, checked.proven), (_REFUTED, checked.refuted)):
                rows = [(standing, issuer, size) for size in sizes]
                db.executemany("UPDATE roots SET standing = ? WHERE issuer = ? AND size = ?", rows)
            found = (*checked.against, *checked.judged)
            return contradictions.keep(db, issuer, contradictions.WHOLE_LOG, found, now)

    def reasons(self, issuer: str, since: float, now: float, demands: Demands) -> Iterator[Reason]:
        """What is to be said of the evidence of a monitor, over windows that ended after `since`."""
        if not (demands.served or demands.demanded or demands.witnessed):
            return
        # Where nobody looks there is nothing to wait for.
        came = now - demands.within if demands.served else now
        sql = "SELECT 1 FROM roots WHERE issuer = ? AND {} AND end > ? AND came <= ? ORDER BY size DESC LIMIT 1"
        with self._db.reading() as db:
            unproven = any(
                db.execute(sql.format("standing = ?"), (issuer, standing, since, came)).fetchone()
                for standing in (_UNPROVEN, _REFUTED)
            )
            known = db.execute("SELECT witnessed FROM logs WHERE issuer = ?", (issuer,)).fetchone()
            covered = known[0] if known is not None else 0
            beyond = db.execute(sql.format("size > ?"), (issuer, covered, since, came)).fetchone()
        if unproven and (demands.served or demands.demanded):
            text = f"the log of {issuer} was not seen to hold what its evidence rests on"
            yield Reason.of("not_checked", "warning" if demands.demanded else "affirming", text)
        if demands.witnessed and (beyond or unproven):
            text = f"not enough witnesses have signed what evidence of {issuer} rests on"
            yield Reason.of("not_witnessed", "warning", text)


def _sample(db: sqlite3.Connection, issuer: str, size: int) -> Bet | None:
    """One of a monitor's BETs at random, by when they came: of that nobody but the Verifier decides."""
    oldest, newest = db.execute("SELECT (SELECT min(rowid) FROM bets), (SELECT max(rowid) FROM bets)").fetchone()
    if newest is None:
        return None
    first = random.randint(oldest, newest)  # noqa: S311 - nobody sees what is chosen before it is
    # With the plus the index by issuer is not used: in that they stand by their ids, which the monitor chooses.
    sql = "SELECT token FROM bets WHERE rowid BETWEEN ? AND ? AND +issuer = ? AND size <= ? ORDER BY rowid LIMIT 1"
    found = db.execute(sql, (first, first + LOOKED_AT, issuer, size)).fetchone()
    return parse_bet(found[0]) if found is not None else None


def saw(db: sqlite3.Connection, issuer: str, tree: tuple[int, str], end: float, now: float) -> Iterator[Found]:
    """A monitor has said that its log has this size and root, in evidence about what was until `end`."""
    size, root = tree
    seen = db.execute("SELECT root FROM roots WHERE issuer = ? AND size = ?", (issuer, size)).fetchone()
    if seen is None:
        db.execute("INSERT INTO roots VALUES (?,?,?,?,?,?)", (issuer, size, root, end, now, _UNPROVEN))
        return
    db.execute("UPDATE roots SET end = max(end, ?) WHERE issuer = ? AND size = ?", (end, issuer, size))
    if seen[0] != root:
        yield "two_histories", f"the log of {issuer} has shown two roots for its size {size}"


def forget(db: sqlite3.Connection, before: float) -> None:
    """Drop the trees of evidence about what was before."""
    db.execute("DELETE FROM roots WHERE end < ?", (before,))


def drop(db: sqlite3.Connection, issuer: str) -> None:
    """Take up the log of a monitor anew."""
    db.execute("DELETE FROM roots WHERE issuer = ?", (issuer,))
    db.execute("DELETE FROM logs WHERE issuer = ?", (issuer,))
