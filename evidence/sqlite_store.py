"""The store in one SQLite file: WAL, by default synchronous=FULL, one writer, any number of readers beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..formats.errors import LedgerError, UsageError
from .sqlite_file import BUSY_MS, FORMAT, INDEXES, connect, lock, open_writer, sync_directory
from .store import (
    Batch,
    BetRow,
    CheckpointRow,
    DocumentKind,
    DocumentRow,
    Durability,
    Head,
    NodeRow,
    Stamped,
    SubtreeRow,
    WindowRow,
)

_MORE_COSIGNATURES = """ON CONFLICT (size) DO UPDATE SET note = excluded.note, cosignatures = excluded.cosignatures
                        WHERE excluded.cosignatures > cosignatures"""
_WINDOWS = "SELECT agent_id, policy_id, start, first_seq, prev_bet FROM windows"
_NODES = "SELECT jti, wid, agent_id, issuer, iat, parents, token, origin FROM nodes"
_SCRUB_MS = 50
_ERASED = "erased"
_INSERTS = {  # by the number of rows
    rows: f"INSERT INTO entries (seq, leaf, data) VALUES {', '.join(['(?, ?, ?)'] * rows)}"  # noqa: S608
    for rows in (64, 8, 1)
}
LATE_BETS = 1024
ERASED_NEAR = 4096
"""Entries that surely fill more pages than SQLite touches when it gives back the room of one."""


class SqliteReader:
    """Reads a ledger, also while a monitor writes it. What it sees is durable."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if `path` is not a ledger."""
        self.path = path
        if not path.is_file():
            raise UsageError(f"there is no ledger at {path}")
        try:
            self._db = connect(f"{path.resolve().as_uri()}?mode=ro")
            form = self.meta("format")
        except (sqlite3.Error, LedgerError) as e:
            raise UsageError(f"{path} cannot be read as a ledger: {e}") from None
        if form != FORMAT:
            raise UsageError(f"{path} has the ledger format {form!r}, expected {FORMAT!r}")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside is of one moment."""
        list(self._rows("BEGIN"))
        try:
            yield
        finally:
            with suppress(sqlite3.Error):  # the transaction is over already where the file cannot be read
                self._db.execute("COMMIT")

    def _rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as e:
            raise LedgerError(f"the ledger {self.path} cannot be read: {e}") from None

    def head(self) -> Head | None:
        return next((Head(*row) for row in self._rows("SELECT size, checkpoint, edge, clock FROM head")), None)

    def last_checkpoint(self) -> str | None:
        head = self.head()
        return head.checkpoint if head else None

    def erased(self) -> int:
        found = self.meta(_ERASED) or "0"
        try:
            count = int(found)
        except ValueError:
            count = -1
        if not 0 <= count < 2**53:
            raise LedgerError(f"the ledger {self.path} says that {found!r} of its entries are erased, expected a count")
        return count

    def entries(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        sql = "SELECT seq, CAST(data AS BLOB) FROM entries WHERE seq >= ? AND seq < ? ORDER BY seq"
        yield from self._rows(sql, max(first, self.erased()), 2**63 - 1 if end is None else end)

    def leaves(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes, bytes]]:
        until = 2**63 - 1 if end is None else end
        stubs = "SELECT seq, CAST(leaf AS BLOB), x'' FROM stubs WHERE seq >= ? AND seq < ? ORDER BY seq"
        yield from self._rows(stubs, first, until)
        sql = """SELECT seq, CAST(leaf AS BLOB), CASE WHEN seq < ?3 THEN x'' ELSE CAST(data AS BLOB) END
                 FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq"""
        yield from self._rows(sql, first, until, self.erased())

    def bets(self, agent_id: str | None = None, policy_id: str | None = None) -> Iterator[BetRow]:
        sql = """SELECT jti, agent_id, policy_id, first_seq, count, start, end, token FROM bets
                 WHERE (?1 IS NULL OR agent_id = ?1) AND (?2 IS NULL OR policy_id = ?2) ORDER BY id"""
        yield from (BetRow(*row) for row in self._rows(sql, agent_id, policy_id))

    def bets_after(self, number: int, limit: int) -> list[tuple[int, str]]:
        """(number, token) of the first BETs that were added after the one with this number; 0 is before all."""
        rows = self._rows("SELECT id, token FROM bets WHERE id > ? ORDER BY id LIMIT ?", number, limit)
        return [(found, token) for found, token in rows]

    def nodes_after(self, number: int, limit: int) -> list[tuple[int, str]]:
        """The same of ECT nodes."""
        rows = self._rows("SELECT id, token FROM nodes WHERE id > ? ORDER BY id LIMIT ?", number, limit)
        return [(found, token) for found, token in rows]

    def document_after(self, kind: DocumentKind, number: int) -> tuple[int, bytes] | None:
        """(number, canonical bytes) of the first document of a kind that was added after the one with this number."""
        sql = "SELECT number, CAST(data AS BLOB) FROM documents WHERE kind = ? AND number > ? ORDER BY number LIMIT 1"
        return next(((found, data) for found, data in self._rows(sql, kind, number)), None)

    def last_numbers(self) -> tuple[int, int, int]:
        """The numbers of the documents, nodes and BETs that were added last; 0 where there is none."""
        tables = "SELECT max(number) FROM documents", "SELECT max(id) FROM nodes", "SELECT max(id) FROM bets"
        documents, nodes, bets = (next(self._rows(sql))[0] or 0 for sql in tables)
        return documents, nodes, bets

    def newest_bets(self, limit: int) -> list[str]:
        """The tokens of the BETs that were added last, newest first."""
        return [token for (token,) in self._rows("SELECT token FROM bets ORDER BY id DESC LIMIT ?", limit)]

    def late_bets(self, agent_id: str, after: float) -> list[str]:
        """Of the last BETs in the ledger the tokens of those about this agent whose windows end after this time."""
        sql = """SELECT token FROM bets WHERE id > (SELECT max(id) FROM bets) - ? AND agent_id = ? AND end > ?
                 ORDER BY id"""
        return [token for (token,) in self._rows(sql, LATE_BETS, agent_id, after)]

    def nodes(self, wid: str | None = None) -> Iterator[NodeRow]:
        yield from map(_node_row, self._rows(f"{_NODES} WHERE ?1 IS NULL OR wid = ?1 ORDER BY id", wid))

    def node(self, wid: str, jti: str) -> NodeRow | None:
        sql = f"{_NODES} WHERE wid IN (?, '') AND jti = ? ORDER BY wid DESC LIMIT 1"
        return next((_node_row(row) for row in self._rows(sql, wid, jti)), None)

    def node_of(self, jti: str, issuers: tuple[str, str]) -> NodeRow | None:
        sql = f"{_NODES} WHERE jti = ? AND issuer IN (?, ?) LIMIT 1"
        return next((_node_row(row) for row in self._rows(sql, jti, *issuers)), None)

    def known(self, wid: str, most: int) -> int:
        sql = "SELECT count(*) FROM (SELECT 1 FROM nodes WHERE wid IN (?, '') LIMIT ?)"
        return next((int(row[0]) for row in self._rows(sql, wid, most)), 0)

    def workflow_of(self, jti: str) -> list[NodeRow]:
        """All nodes of the workflow that the node `jti` is of; none if it is not known."""
        found = next(self._rows("SELECT wid FROM nodes WHERE jti = ?", jti), None)
        return list(self.nodes(found[0])) if found is not None else []

    def windows(self, agent_id: str | None = None) -> Iterator[WindowRow]:
        sql, values = (_WINDOWS, ()) if agent_id is None else (f"{_WINDOWS} WHERE agent_id = ?", (agent_id,))
        yield from (WindowRow(*row) for row in self._rows(f"{sql} ORDER BY agent_id, policy_id", *values))

    def documents(self, kind: DocumentKind) -> Iterator[DocumentRow]:
        sql = "SELECT kind, id, CAST(data AS BLOB) FROM documents WHERE kind = ? ORDER BY number"
        yield from (DocumentRow(*row) for row in self._rows(sql, kind))

    def disclosures(self, seq: int) -> list[str]:
        rows = self._rows("SELECT CAST(data AS BLOB) FROM disclosures WHERE seq = ? ORDER BY id", seq)
        return [data.decode("ascii") for (data,) in rows]

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        if level:
            sql = "SELECT CAST(root AS BLOB) FROM subtrees WHERE level = ?1 AND n >= ?2 AND n < ?3 ORDER BY n"
        else:
            sql = "SELECT CAST(leaf AS BLOB) FROM entries WHERE ?1 = 0 AND seq >= ?2 AND seq < ?3 ORDER BY seq"
        found = [row[0] for row in self._rows(sql, level, first, first + count)]
        if not level and len(found) < count:
            stubs = "SELECT CAST(leaf AS BLOB) FROM stubs WHERE seq >= ? AND seq < ? ORDER BY seq"
            found = [row[0] for row in self._rows(stubs, first, first + count)] + found
        if len(found) != count:
            where = f"at tile level {level} from {first} on"
            raise LedgerError(f"the ledger {self.path} has {len(found)} hashes {where}, expected {count}")
        return found

    def checkpoint(self, size: int) -> CheckpointRow | None:
        sql = "SELECT size, note, cosignatures FROM checkpoints WHERE size = ?"
        return next((CheckpointRow(*row) for row in self._rows(sql, size)), None)

    def cosigned(self) -> Iterator[CheckpointRow]:
        most = 0
        for row in self._rows(
            "SELECT size, note, cosignatures FROM checkpoints WHERE cosignatures > 0 ORDER BY size DESC"
        ):
            if row[2] > most:
                most = row[2]
                yield CheckpointRow(*row)

    def meta(self, name: str) -> str | None:
        return next((row[0] for row in self._rows("SELECT value FROM meta WHERE name = ?", name)), None)

    def close(self) -> None:
        self._db.close()


class SqliteStore(SqliteReader):
    """The writer. It reads through a connection of its own, so it never sees what is not committed."""

    def __init__(self, path: Path, durability: Durability = "commit") -> None:
        """Open or make the ledger at `path`. Raises UsageError if another process writes it or it cannot be made."""
        self._durability: Durability = durability
        self._lock = lock(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
            self._writer = open_writer(path, durability)
            sync_directory(path.parent)
            super().__init__(path)
            self._writer.execute(INDEXES)
        except OSError as e:
            os.close(self._lock)
            raise UsageError(f"the ledger {path} cannot be opened for writing: {e.strerror}") from None
        except sqlite3.Error as e:
            os.close(self._lock)
            raise UsageError(f"the ledger {path} cannot be opened for writing: {e}") from None
        except UsageError:
            self._writer.close()
            os.close(self._lock)
            raise

    @property
    def durability(self) -> Durability:
        return self._durability

    def append(self, batch: Batch) -> None:
        """One transaction. Raises LedgerError; the connection is then of no more use."""
        with self._transaction() as db:
            _insert_entries(db, batch.entries)
            bets = [_bet(row) for row in batch.bets]
            _insert(db, "bets (jti, agent_id, policy_id, first_seq, count, start, end, token)", 8, bets)
            nodes = [_node(row) for row in batch.nodes]
            _insert(db, "nodes (jti, wid, agent_id, issuer, iat, parents, token, origin)", 8, nodes, "OR IGNORE")
            _insert(db, "windows", 5, [_window(row) for row in batch.windows], "OR REPLACE")
            documents = [(row.kind, row.id, row.data) for row in batch.documents]
            _insert(db, "documents (kind, id, data)", 3, documents, "OR IGNORE")
            disclosures = [(row.seq, row.text.encode("ascii")) for row in batch.disclosures]
            _insert(db, "disclosures (seq, data)", 2, disclosures)
            _insert(db, "subtrees", 3, [_subtree(row) for row in batch.subtrees], "OR REPLACE")
            checkpoints = [(row.size, row.note, row.cosignatures) for row in batch.checkpoints]
            _insert(db, "checkpoints", 3, checkpoints, then=_MORE_COSIGNATURES)
            _insert(db, "meta", 2, batch.meta.items(), "OR REPLACE")
            if batch.head is not None:
                head = batch.head
                _insert(db, "head", 5, [(1, head.size, head.checkpoint, head.edge, head.clock)], "OR REPLACE")

    def put_meta(self, name: str, value: str) -> None:
        with self._transaction() as db:
            _insert(db, "meta", 2, [(name, value)], "OR REPLACE")

    def erase(self, end: int, limit: int) -> int:
        """Values are overwritten by as many zero octets: in place, so that no page moves and leaves a copy behind.

        Their rows go, and only the leaf hashes stay, once every entry near them is overwritten too: then whatever the
        database moves to give back their room is zeros.
        """
        done = self.erased()
        until = min(end, done + limit)
        if until <= done:
            return done
        with self._transaction() as db:
            for table in ("entries", "disclosures"):
                sql = f"UPDATE {table} SET data = zeroblob(length(data)) WHERE seq >= ? AND seq < ?"  # noqa: S608
                db.execute(sql, (done, until))
            db.execute("INSERT INTO stubs SELECT seq, leaf FROM entries WHERE seq < ?", (until - ERASED_NEAR,))
            db.execute("DELETE FROM entries WHERE seq < ?", (until - ERASED_NEAR,))
            _insert(db, "meta", 2, [(_ERASED, str(until))], "OR REPLACE")
        return until

    def scrub(self) -> bool:
        """The write-ahead log goes into the file and is cut to nothing."""
        try:
            self._writer.execute(f"PRAGMA busy_timeout={_SCRUB_MS}")
            busy = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._writer.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        except sqlite3.Error as e:
            raise LedgerError(f"the ledger {self.path} cannot be written: {e}") from e
        return not busy

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer
            self._writer.execute("COMMIT")
        except (sqlite3.Error, OSError, OverflowError) as e:
            raise LedgerError(f"the ledger {self.path} cannot be written: {e}") from e

    def close(self) -> None:
        super().close()
        self._writer.close()
        os.close(self._lock)


def _bet(row: BetRow) -> tuple[object, ...]:
    return (row.jti, row.agent_id, row.policy_id, row.first_seq, row.count, row.start, row.end, row.token)


def _node_row(row: tuple[Any, ...]) -> NodeRow:
    jti, wid, agent_id, issuer, iat, parents, token, origin = row
    return NodeRow(jti, wid, agent_id, issuer, iat, tuple(parents.split("\n")) if parents else (), token, origin)


def _node(row: NodeRow) -> tuple[object, ...]:
    parents = "\n".join(row.parents)
    return (row.jti, row.wid, row.agent_id, row.issuer, row.iat, parents, row.token, row.origin)


def _window(row: WindowRow) -> tuple[object, ...]:
    return (row.agent_id, row.policy_id, row.start, row.first_seq, row.prev_bet)


def _subtree(row: SubtreeRow) -> tuple[object, ...]:
    return (row.level, row.index, row.root)


def _insert_entries(db: sqlite3.Connection, entries: Sequence[Stamped]) -> None:
    """Many rows in one statement: with one a row, and the interpreter's lock let go for each, it takes much longer."""
    done = 0
    for rows, sql in _INSERTS.items():
        while len(entries) - done >= rows:
            db.execute(sql, [value for one in entries[done : done + rows] for value in (one.seq, one.leaf, one.data)])
            done += rows


def _insert(
    db: sqlite3.Connection,
    table: str,
    columns: int,
    rows: Collection[tuple[object, ...]],
    otherwise: str = "",
    then: str = "",
) -> None:
    if not rows:
        return
    marks = ", ".join("?" * columns)
    db.executemany(f"INSERT {otherwise} INTO {table} VALUES ({marks}) {then}", rows)  # noqa: S608 - constants only
