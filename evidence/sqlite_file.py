"""The file of a ledger: its tables, the connections to it, and the lock of the one who writes it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from ..formats.errors import UsageError
from .store import Durability

FORMAT = "lictor-ledger/3"
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE stubs (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL);
CREATE TABLE disclosures (id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX disclosed ON disclosures (seq);
CREATE TABLE subtrees (level INTEGER, n INTEGER, root BLOB NOT NULL, PRIMARY KEY (level, n)) WITHOUT ROWID;
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL, cosignatures INTEGER NOT NULL);
CREATE INDEX cosigned ON checkpoints (size) WHERE cosignatures > 0;
CREATE TABLE bets (
    id INTEGER PRIMARY KEY, jti TEXT NOT NULL UNIQUE, agent_id TEXT NOT NULL, policy_id TEXT NOT NULL,
    first_seq INTEGER NOT NULL, count INTEGER NOT NULL, start REAL NOT NULL, end REAL NOT NULL, token TEXT NOT NULL);
CREATE TABLE nodes (
    id INTEGER PRIMARY KEY, jti TEXT NOT NULL, wid TEXT NOT NULL, agent_id TEXT NOT NULL, issuer TEXT NOT NULL,
    iat REAL NOT NULL, parents TEXT NOT NULL, token TEXT NOT NULL, origin TEXT NOT NULL, UNIQUE (wid, jti));
CREATE TABLE windows (
    agent_id TEXT NOT NULL, policy_id TEXT NOT NULL, start REAL NOT NULL, first_seq INTEGER NOT NULL, prev_bet TEXT,
    PRIMARY KEY (agent_id, policy_id));
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, data BLOB NOT NULL, UNIQUE (kind, id));
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, checkpoint TEXT NOT NULL, edge BLOB NOT NULL,
    clock INTEGER NOT NULL);
"""
INDEXES = "CREATE INDEX IF NOT EXISTS node_ids ON nodes (jti, issuer)"
"""Made for a ledger that does not have them yet; whoever only reads does without."""
_WAL_PAGES = 4000
_SYNCHRONOUS: dict[Durability, str] = {"commit": "FULL", "os": "NORMAL"}
"""With NORMAL a power cut may take the last batches, never half of one, and never what comes before them."""
BUSY_MS = 5000


def connect(uri: str) -> sqlite3.Connection:
    """A connection that begins and ends no transaction by itself and may be handed from thread to thread."""
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)


def open_writer(path: Path, durability: Durability) -> sqlite3.Connection:
    """The writer's connection; an empty file gets its tables. Raises sqlite3.Error."""
    db = connect(f"{path.resolve().as_uri()}?mode=rw")
    try:
        mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError(f"this file system has no write-ahead log (journal mode {mode})")
        db.execute(f"PRAGMA synchronous={_SYNCHRONOUS[durability]}")
        db.execute("PRAGMA secure_delete=ON")
        db.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            insert = f"INSERT INTO meta VALUES ('format', '{FORMAT}');"  # noqa: S608
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {insert} COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def lock(path: Path) -> int:
    """A descriptor that holds the writer's lock of the ledger. Raises UsageError if it is taken."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise UsageError(f"the ledger {path} cannot be opened for writing: {e.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UsageError(
            f"another monitor writes the ledger {path}: stop it first, or give this monitor another ledger path"
        ) from None
    return descriptor


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
