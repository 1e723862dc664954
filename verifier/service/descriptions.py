"""What monitors say of themselves, and what that is worth: held to reference values, and to what they issue under it.

A BET names the description that was the newest in the tree that it rests on (`evidence.description`). So of each agent
it is known under which descriptions there is evidence of it. Part of the register.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...evidence import description
from ...evidence.bet import Bet
from ...evidence.description import Description
from ...formats import jws
from . import contradictions
from .appraisal import Reason, shortened
from .contradictions import Found
from .database import Database

SCHEMA = """
CREATE TABLE descriptions (
    issuer TEXT, digest TEXT, size INTEGER NOT NULL, at REAL NOT NULL, token TEXT NOT NULL,
    PRIMARY KEY (issuer, digest)) WITHOUT ROWID;
CREATE INDEX by_place ON descriptions (issuer, size);
CREATE TABLE described (
    issuer TEXT, agent TEXT, digest TEXT, start REAL NOT NULL, end REAL NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (issuer, agent, digest)) WITHOUT ROWID;
CREATE INDEX described_agent ON described (agent, end);
"""
SHOWN = 8
"""How many descriptions a result names."""
_UPSERT = """
INSERT INTO described VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
start = min(start, excluded.start), end = max(end, excluded.end), size = max(size, excluded.size)"""
_BROUGHT_BACK = """
SELECT 1 FROM descriptions AS old JOIN descriptions AS new ON new.issuer = old.issuer AND new.size > old.size
WHERE old.issuer = ? AND old.digest = ? AND new.size < ? LIMIT 1"""


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """What monitors may run, as the operator of the Verifier knows it; what is empty is not asked for.

    SHA-256 of the package and of its dependencies (hex), versions by name (`lictor`, `python`, or a distribution),
    digests of extensions, and by monitor the digests of configurations. With `packages` no other extensions may run.
    """

    packages: frozenset[str] = frozenset()
    dependencies: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    versions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    configurations: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, software: Mapping[str, Any], configurations: Mapping[str, Iterable[str]]) -> ReferenceValues:
        """From the table `[software]` of verifier.toml, and the configurations of `[[monitor]]`."""
        sets = {name: frozenset(software.get(name, ())) for name in ("packages", "dependencies", "extensions")}
        versions = {name: frozenset(known) for name, known in software.get("versions", {}).items()}
        return cls(**sets, versions=versions, configurations={m: frozenset(c) for m, c in configurations.items() if c})

    def reasons(self, monitor: str, found: Description | None) -> Iterator[Reason]:
        """Against evidence of a monitor that described itself like this; None: it did not."""
        if found is None:
            if self.packages or self.dependencies or self.extensions or self.versions or monitor in self.configurations:
                yield Reason.of("undescribed", "warning", f"{monitor} does not say what it runs")
            return
        if self.packages and found.package not in self.packages:
            yield _other_code(monitor, f"the package {found.package} of lictor {found.version}")
        if self.dependencies and found.dependencies not in self.dependencies:
            yield _other_code(monitor, f"dependencies with the digest {found.dependencies}")
        running = {"lictor": found.version, "python": found.python.rpartition(" ")[2]}
        for name, known in self.versions.items():
            version = running.get(name, found.distributions.get(name, "none"))
            if version not in known:
                yield _other_code(monitor, f"the version {version} of {name}")
        if self.packages or self.extensions:
            for extension in found.extensions:
                if extension.get("digest") not in self.extensions:
                    yield _other_code(monitor, f"the extension {extension.get('name')} ({extension.get('digest')})")
        configurations = self.configurations.get(monitor)
        if configurations and found.configuration not in configurations:
            text = f"{monitor} runs with the configuration {found.configuration}, which is no reference value"
            yield Reason.of("other_configuration", "warning", text)


def _other_code(monitor: str, what: str) -> Reason:
    return Reason.of("other_code", "contraindicated", f"{monitor} runs {what}, which is no reference value")


class Descriptions:
    """Part of the register. Raises LedgerError like all of it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def under(self, agent: str, after: float, until: float) -> list[tuple[str, Description | None]]:
        """(monitor, description) of what was issued about an agent over windows that ended in (`after`, `until`]."""
        sql = """SELECT issuer, token FROM described LEFT JOIN descriptions USING (issuer, digest)
                 WHERE agent = ? AND end > ? AND start <= ? ORDER BY issuer, descriptions.size DESC"""
        with self._db.reading() as db:
            return [(issuer, _read(token)) for issuer, token in db.execute(sql, (agent, after, until))]


def take(db: sqlite3.Connection, bets: Iterable[Bet], found: Iterable[Description], now: float) -> Iterator[str]:
    """Keep verified descriptions of one monitor, and under which of them these new BETs of it were issued.

    What contradicts, in words.
    """
    ranges: dict[tuple[str, str, str], tuple[float, float, int]] = {}
    for bet in bets:
        key = (bet.issuer, bet.subject, str(bet.ext.get("description", "")))
        start, end, size = ranges.get(key, (bet.end, bet.end, 0))
        ranges[key] = min(start, bet.end), max(end, bet.end), max(size, bet.ext.get("checkpoint_size", 0))
    db.executemany(_UPSERT, [(*key, *measured) for key, measured in ranges.items()])
    named = {digest for _, _, digest in ranges}
    for one in found:
        if one.digest in named:
            yield from contradictions.keep(db, one.issuer, "", list(_keep(db, one, now)), now)
    for (issuer, agent, digest), (_, _, size) in ranges.items():
        if db.execute(_BROUGHT_BACK, (issuer, digest, size)).fetchone():
            text = f"{issuer} issued evidence under the description {digest}, which was no longer in force"
            yield from contradictions.keep(db, issuer, agent, [("misdescribed", text)], now)


def forget(db: sqlite3.Connection, before: float) -> None:
    """Drop what no evidence was issued under since."""
    db.execute("DELETE FROM described WHERE end < ?", (before,))
    sql = """DELETE FROM descriptions WHERE at < ? AND NOT EXISTS (
             SELECT 1 FROM described WHERE described.issuer = descriptions.issuer
             AND described.digest = descriptions.digest)"""
    db.execute(sql, (before,))


def shown(found: Iterable[tuple[str, Description | None]]) -> list[dict[str, Any]]:
    """Descriptions for a result: the newest of each monitor first."""
    named = [(monitor, one) for monitor, one in found if one is not None]
    return [
        {
            "monitor": monitor,
            "description": one.digest,
            "version": shortened(one.version),
            "package": one.package,
            "dependencies": one.dependencies,
            "configuration": shortened(one.configuration),
        }
        for monitor, one in named[:SHOWN]
    ]


def _keep(db: sqlite3.Connection, one: Description, now: float) -> Iterator[Found]:
    known = db.execute("SELECT 1 FROM descriptions WHERE issuer = ? AND digest = ?", (one.issuer, one.digest))
    if known.fetchone():
        return
    beside = db.execute("SELECT digest FROM descriptions WHERE issuer = ? AND size = ?", (one.issuer, one.log_size))
    for (other,) in beside.fetchall():
        yield "misdescribed", f"{one.issuer} has two descriptions at entry {one.log_size}: {other} and {one.digest}"
    row = (one.issuer, one.digest, one.log_size, now, one.token)
    db.execute("INSERT INTO descriptions VALUES (?,?,?,?,?)", row)
    sql = """SELECT digest FROM described JOIN descriptions USING (issuer, digest)
             WHERE issuer = ?1 AND descriptions.size < ?2 AND described.size > ?2 LIMIT 1"""
    for (digest,) in db.execute(sql, (one.issuer, one.log_size)).fetchall():
        yield "misdescribed", f"{one.issuer} issued evidence under {digest} after it had described itself anew"


def _read(token: str | None) -> Description | None:
    """A description that was verified when it was taken in."""
    if token is None:
        return None
    return description.parse(jws.parse_compact(token, typ=frozenset({description.TYP})).claims(), token)
