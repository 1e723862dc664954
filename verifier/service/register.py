"""The Verifier's register: BETs as they were appraised, how they continue each other, and what that says of an agent.

The windows of one agent under one policy form a chain: each BET names the one before (`ext.prev_bet`). A BET whose
predecessor has not come stands after a gap until it comes; one that names none although there are earlier ones begins
the chain anew, and nobody vouches for the time between. What an honest monitor cannot say is a contradiction: two BETs
that continue the same one, windows that overlap, two roots of its log at one size, a log that shrank. It stays until
somebody has looked into it (`forgive`). Every question is asked within what one monitor said: another cannot forge its
ids or its log.

What is said of an agent rests on the BETs whose windows ended in the last `period` seconds (of those on demand, lie in
it): the worst of them. Without any there is nothing to say. Kept in SQLite; a change is on disk before it is answered.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from ...evidence.bet import Bet
from ...evidence.description import Description
from . import contradictions, cross_check, descriptions, known_logs
from .appraisal import Reason, References, appraise, shortened
from .cross_check import Watched
from .database import Database
from .descriptions import Descriptions
from .ear import STATUSES, Submodule, worst
from .known_logs import KnownLogs

_SCHEMA = """
CREATE TABLE bets (
    issuer TEXT NOT NULL, jti TEXT NOT NULL, agent TEXT NOT NULL, policy TEXT NOT NULL, digests TEXT NOT NULL,
    chained INTEGER NOT NULL, prev TEXT, standing TEXT NOT NULL, start REAL NOT NULL, end REAL NOT NULL,
    size INTEGER, entries INTEGER NOT NULL, rank INTEGER NOT NULL, reasons TEXT NOT NULL, token TEXT NOT NULL,
    UNIQUE (issuer, jti));
CREATE INDEX by_agent ON bets (agent, end, chained, start, issuer, policy, digests, rank, standing, entries);
CREATE INDEX by_prev ON bets (issuer, prev) WHERE prev IS NOT NULL;
CREATE INDEX by_chain ON bets (issuer, agent, policy, end, start) WHERE chained;
CREATE INDEX firsts ON bets (issuer, agent, policy) WHERE standing = 'first';
CREATE INDEX by_end ON bets (end);
"""
MAX_REASONS = 8
"""Reasons that a result names, the worst first; also policies and monitors."""
DEMANDED_S = 60.0
"""So much before the period the window of a BET on demand may begin; else what is past would count anew."""
_LOOKED_AT = 4 * MAX_REASONS
_STANDINGS = {
    "gap": ("gap", "the BET before {} has not come"),
    "restarted": ("restarted", "the BET {} begins anew: nobody vouches for the time before it"),
}
_WARNING = STATUSES.index("warning")


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a BET: whether it was `new`, and the contradictions that came to light with it."""

    new: bool
    contradictions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Which BETs count: windows that ended in (`ended_after`, `ended_until`] and did not begin too early."""

    ended_after: float
    ended_until: float
    began: float
    demanded_began: float

    @classmethod
    def last(cls, period: float, now: float) -> Span:
        """Those that ended in the last `period` seconds."""
        return cls(now - period, math.inf, -math.inf, now - period - DEMANDED_S)

    @classmethod
    def within(cls, start: float, end: float) -> Span:
        """Those that lie in a window of the past."""
        return cls(start, end, start, start)


OfMonitor = Callable[[str], Iterable[Reason]]


class Register:
    """One process writes it, one thread at a time. Every method raises LedgerError if the file cannot be used."""

    def __init__(self, path: Path) -> None:
        """Open or make the register. Raises UsageError if that cannot be."""
        self._db = Database(path, _SCHEMA + contradictions.SCHEMA + known_logs.SCHEMA + descriptions.SCHEMA)
        self.logs = KnownLogs(self._db)
        self.descriptions = Descriptions(self._db)

    def add(self, bets: Iterable[Bet], now: float, described: Iterable[Description] = ()) -> list[Taken]:
        """Take verified BETs in, all or none, and the verified descriptions of their monitor that they name."""
        bets = tuple(bets)
        with self._db.transaction() as db:
            taken = [_add(db, one, now) for one in bets]
            against = tuple(descriptions.take(db, bets, described, now))
            if against:
                taken[-1] = replace(taken[-1], contradictions=taken[-1].contradictions + against)
        return taken

    def appraisal(
        self,
        agent: str,
        span: Span,
        references: References,
        more: Iterable[Reason] = (),
        of_monitor: OfMonitor = lambda issuer: (),
    ) -> Submodule:
        """What is to be said of an agent over a span of time.

        `more` reasons come from whoever asks, `of_monitor` are those against all that a monitor says.
        """
        with self._db.reading() as db:
            which = (agent, span.ended_after, span.ended_until, span.began, span.demanded_began)
            groups = db.execute(_GROUPS, which).fetchall()
            flagged = db.execute(_FLAGGED, (*which, _LOOKED_AT)).fetchall()
            issuers = list(dict.fromkeys(group[0] for group in groups))
            against = list(contradictions.against(db, agent, issuers, MAX_REASONS))
        policies = {group[1]: set[str]() for group in groups}
        for _, policy, digests, *_ in groups:
            policies[policy].update(digests.split())
        reasons = [*more, *(Reason.of(what, "contraindicated", text) for what, text in against)]
        for issuer in issuers:
            reasons += of_monitor(issuer)
        for policy, found in policies.items():
            reasons += references.reasons(policy, found)
        reasons += references.missing(agent, policies, issuers) if policies else ()
        for said, standing, jti in flagged:
            reasons += [Reason(**one) for one in orjson.loads(said)]
            if standing in _STANDINGS:
                what, text = _STANDINGS[standing]
                reasons.append(Reason.of(what, "warning", text.format(jti)))
        statuses = [STATUSES[rank] for *_, rank, _, _, _ in groups] + [reason.status for reason in reasons]
        reasons.sort(key=lambda reason: -STATUSES.index(reason.status))
        behavior: dict[str, Any] = {
            "bets": sum(group[4] for group in groups),
            "entries": sum(group[5] for group in groups),
            "monitors": issuers[:MAX_REASONS],
            "reasons": [{"what": one.what, "text": one.text} for one in dict.fromkeys(reasons)][:MAX_REASONS],
        }
        if groups:
            behavior["until"] = max(group[6] for group in groups)
        named = tuple(shortened(policy) for policy in policies)[:MAX_REASONS]
        return Submodule(worst(statuses), named, behavior)

    def disagreements(self, agent: str, watched: Iterable[Watched], span: Span, until: float) -> list[Reason]:
        """Where monitors that watch the same do not tell the same; windows that ended after `until` wait."""
        ended_until = min(span.ended_until, until)
        with self._db.reading() as db:
            return list(cross_check.disagreements(db, agent, watched, span.ended_after, ended_until))

    def disclosed(
        self, issuer: str, tree: tuple[int, str], entry: Mapping[str, Any], problem: str, now: float
    ) -> list[str]:
        """An entry was shown under a signed tree (size, root) of its log: what that contradicts, in words.

        `problem`: why an honest monitor would not have recorded it; empty if it would have.
        """
        with self._db.transaction() as db:
            found = list(known_logs.saw(db, issuer, tree, entry["timestamp"], now))
            found += [("misjudged", problem)] if problem else []
            return list(contradictions.keep(db, issuer, contradictions.WHOLE_LOG, found, now))

    def holds(self, issuer: str, ids: Iterable[str]) -> bool:
        """Whether all these BETs of a monitor are here."""
        sql = "SELECT 1 FROM bets WHERE issuer = ? AND jti = ?"
        with self._db.reading() as db:
            return all(db.execute(sql, (issuer, jti)).fetchone() for jti in ids)

    def count(self) -> int:
        """How many BETs are here."""
        with self._db.reading() as db:
            return int(db.execute("SELECT count(*) FROM bets").fetchone()[0])

    def forgive(self, monitor: str) -> list[str]:
        """Somebody has looked into what contradicts: drop it, and take up the monitor's log anew. The texts."""
        with self._db.transaction() as db:
            known_logs.drop(db, monitor)
            return contradictions.drop(db, monitor)

    def forget(self, before: float) -> int:
        """Drop the BETs of windows that ended before; how many there were. Contradictions stay."""
        with self._db.transaction() as db:
            known_logs.forget(db, before)
            descriptions.forget(db, before)
            return db.execute("DELETE FROM bets WHERE end < ?", (before,)).rowcount

    def close(self) -> None:
        self._db.close()


_SPAN = "agent = ? AND end > ? AND end <= ? AND start >= CASE WHEN chained THEN ? ELSE ? END"
_GROUPS = f"""
SELECT issuer, policy, digests,
       max(rank, CASE WHEN standing IN ('gap', 'restarted') THEN {_WARNING} ELSE 0 END) AS shown,
       count(*), sum(entries), max(end)
FROM bets WHERE {_SPAN} GROUP BY issuer, policy, digests, shown"""  # noqa: S608 - constants only
_FLAGGED = f"""
SELECT reasons, standing, jti FROM bets WHERE {_SPAN}
AND (reasons <> '[]' OR standing IN ('gap', 'restarted')) ORDER BY rank DESC, end DESC LIMIT ?"""  # noqa: S608
_COLUMNS = (
    "issuer, jti, agent, policy, digests, chained, prev, standing, start, end, size, entries, rank, reasons, token"
)


def _add(db: sqlite3.Connection, bet: Bet, now: float) -> Taken:
    same = db.execute("SELECT token FROM bets WHERE issuer = ? AND jti = ?", (bet.issuer, bet.jti)).fetchone()
    if same is not None:
        if same[0].split(".")[1] == bet.token.split(".")[1]:
            return Taken(False)
        found = [("equivocated", f"two BETs have the id {bet.jti}")]
        return Taken(False, contradictions.keep(db, bet.issuer, bet.subject, found, now))
    chained = bet.ext.get("evaluation_mode") != "on_demand"
    named = bet.ext.get("prev_bet")
    prev = named if chained and isinstance(named, str) else None
    chain = (bet.issuer, bet.subject, bet.policy)
    standing = _standing(db, bet, chain, prev) if chained else ""
    if chained:
        db.execute("UPDATE bets SET standing = '' WHERE issuer = ? AND prev = ?", (bet.issuer, bet.jti))
        first = "CASE WHEN prev IS NULL THEN 'restarted' ELSE 'gap' END"
        sql = f"""UPDATE bets SET standing = {first} WHERE issuer = ? AND agent = ? AND policy = ?
                  AND standing = 'first' AND start >= ?"""  # noqa: S608 - constants only
        db.execute(sql, (*chain, bet.end))
    found = [*_contradictions(db, bet, chain, prev, chained), *_history(db, bet, prev, now)]
    status, reasons = appraise(bet)
    row = (bet.issuer, bet.jti, bet.subject, bet.policy, " ".join(_digests(bet)), chained, prev, standing)
    said = orjson.dumps([asdict(reason) for reason in reasons]).decode()
    measured = (bet.start, bet.end, bet.ext.get("checkpoint_size"), bet.ext.get("count", 0), STATUSES.index(status))
    db.execute(f"INSERT INTO bets VALUES ({','.join('?' * 15)})", (*row, *measured, said, bet.token))  # noqa: S608
    return Taken(True, contradictions.keep(db, bet.issuer, bet.subject, found, now))


def _digests(bet: Bet) -> list[str]:
    versions = bet.ext.get("binding_versions")
    found = list(versions) if isinstance(versions, dict) else [bet.ext.get("binding_digest")]
    return sorted(str(digest) for digest in found)


def _standing(db: sqlite3.Connection, bet: Bet, chain: tuple[str, ...], prev: object) -> str:
    """Where a BET stands in its chain when it comes; the first that ever comes may be any."""
    if prev is not None and db.execute("SELECT 1 FROM bets WHERE issuer = ? AND jti = ?", (chain[0], prev)).fetchone():
        return ""
    sql = "SELECT 1 FROM bets WHERE issuer = ? AND agent = ? AND policy = ? AND end <= ? AND chained LIMIT 1"
    if db.execute(sql, (*chain, bet.start)).fetchone() is None:
        return "first"
    return "restarted" if prev is None else "gap"


def _contradictions(
    db: sqlite3.Connection, bet: Bet, chain: tuple[str, ...], prev: object, chained: bool
) -> Iterator[tuple[str, str]]:
    """What the windows of one chain cannot be beside each other."""
    if not chained:
        return
    beside = "SELECT jti FROM bets WHERE issuer = ? AND prev = ? AND jti <> ?"
    others = db.execute(beside, (bet.issuer, prev, bet.jti)).fetchone() if prev is not None else None
    if others is not None:
        yield "forked", f"the BETs {others[0]} and {bet.jti} both continue {prev}"
    link = "SELECT jti, agent, policy, start, end FROM bets WHERE issuer = ?"
    before = db.execute(f"{link} AND jti = ?", (bet.issuer, prev)).fetchone() if prev is not None else None
    after = db.execute(f"{link} AND prev = ?", (bet.issuer, bet.jti)).fetchall()
    for jti, agent, policy, _, end in [before] if before is not None else []:
        yield from _linked((jti, agent, policy, end), (bet.jti, bet.subject, bet.policy, bet.start))
    for jti, agent, policy, start, _ in after:
        yield from _linked((bet.jti, bet.subject, bet.policy, bet.end), (jti, agent, policy, start))
    if before is None and not after:
        sql = """SELECT jti, start FROM bets WHERE issuer = ? AND agent = ? AND policy = ? AND end > ? AND chained
                 ORDER BY end LIMIT 1"""
        follows = db.execute(sql, (*chain, bet.start)).fetchone()
        if follows is not None and follows[1] < bet.end:
            yield "overlapping", f"the windows of {follows[0]} and {bet.jti} overlap"


def _linked(one: tuple[str, str, str, float], following: tuple[str, str, str, float]) -> Iterator[tuple[str, str]]:
    """Of a BET and the one that names it: (jti, agent, policy, where the windows meet)."""
    if one[1:3] != following[1:3]:
        yield "crossed", f"the BET {following[0]} continues {one[0]}, which is of another agent or policy"
    elif one[3] != following[3]:
        yield "not_contiguous", f"the window of {following[0]} does not begin where that of {one[0]} ended"


def _history(db: sqlite3.Connection, bet: Bet, prev: object, now: float) -> Iterator[tuple[str, str]]:
    """Of the log as a whole: one root at each size, and it only grows."""
    size, root = bet.ext.get("checkpoint_size"), bet.ext.get("checkpoint_root")
    if not isinstance(size, int) or not isinstance(root, str):
        return
    yield from known_logs.saw(db, bet.issuer, (size, root), bet.end, now)
    before = db.execute("SELECT size FROM bets WHERE issuer = ? AND jti = ?", (bet.issuer, prev)).fetchall()
    after = db.execute("SELECT size FROM bets WHERE issuer = ? AND prev = ?", (bet.issuer, bet.jti)).fetchall()
    if any(one > size for (one,) in before if one is not None) or any(
        one < size for (one,) in after if one is not None
    ):
        yield "log_shrank", f"the log of {bet.issuer} was longer before it had the {size} entries of {bet.jti}"
