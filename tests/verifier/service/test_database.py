"""The Verifier's file when it cannot be written: why is said, nothing is half done, and it goes on afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from lictor.formats.errors import LedgerError, UsageError
from lictor.verifier.service.database import Database

TABLE = "CREATE TABLE texts (text TEXT NOT NULL);"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "sub" / "r.db", TABLE)) as made:
        yield made


def texts(database: Database) -> list[str]:
    with database.reading() as db:
        return [text for (text,) in db.execute("SELECT text FROM texts")]


def write(database: Database, *values: str | None) -> None:
    with database.transaction() as db:
        for value in values:
            db.execute("INSERT INTO texts VALUES (?)", (value,))


def test_a_full_disk_is_named_and_passes(database: Database) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO texts VALUES ('a')")
    database._db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(LedgerError, match="disk is full"):
        write(database, *("x" * 4000 for _ in range(20)))
    database._db.execute("PRAGMA max_page_count = 1000")
    write(database, "b")
    assert texts(database) == ["a", "b"]


def test_a_commit_that_fails_leaves_nothing_open(database: Database) -> None:
    database._db.execute("PRAGMA foreign_keys = ON")
    with database.transaction() as db:
        db.execute(
            "CREATE TABLE pairs (id INTEGER PRIMARY KEY, of INTEGER REFERENCES pairs DEFERRABLE INITIALLY DEFERRED)"
        )
    with pytest.raises(LedgerError, match="FOREIGN KEY"), database.transaction() as db:
        db.execute("INSERT INTO pairs VALUES (1, 2)")
    write(database, "a")
    assert texts(database) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_all_or_nothing(database: Database, error: type[BaseException]) -> None:
    with suppress(error), database.transaction() as db:
        db.execute("INSERT INTO texts VALUES ('a')")
        raise error
    with pytest.raises(LedgerError, match="NOT NULL"):
        write(database, "a", None)
    write(database, "b")
    assert texts(database) == ["b"]


def test_a_register_of_another_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(UsageError, match="has the format 1, expected 2: put it away"):
        Database(path, TABLE)


def test_nobody_else_may_read_it(database: Database, tmp_path: Path) -> None:
    write(database, "a")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "sub").iterdir()}
    assert modes == {"r.db": 0o600, "r.db-wal": 0o600, "r.db-shm": 0o600}
    assert (tmp_path / "sub").stat().st_mode & 0o777 == 0o700
