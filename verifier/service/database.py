"""The Verifier's SQLite file: made and opened, read and changed; a change is on disk before it is answered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...formats.errors import LedgerError, UsageError

FORMAT = 2


class Database:
    """One process writes it, one thread at a time. Raises LedgerError if the file cannot be read or written."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open the file, or make it with `schema`. Raises UsageError if that cannot be."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Before anything is in it: the files beside it get its mode.
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (form,) = self._db.execute("PRAGMA user_version").fetchone()
            if form == 0:
                self._db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {FORMAT}; COMMIT;")
            elif form != FORMAT:
                raise UsageError(f"the register {path} has the format {form}, expected {FORMAT}: put it away")
        except (sqlite3.Error, OSError) as e:
            raise UsageError(f"the register {path} cannot be opened: {e}") from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All changes that are made in it, or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            raise LedgerError(f"the register cannot be written: {e}") from None
        finally:
            # After some errors (a full disk) SQLite has done so itself, after a failed COMMIT not always.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as e:
            raise LedgerError(f"the register cannot be read: {e}") from None

    def close(self) -> None:
        self._db.close()
