"""The log that `lictor binding learn` and `replay` read: an evidence file, or the ledger of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.text import Text

from ..evidence.export import EntryLine, Header, open_lines, read_records
from ..evidence.sqlite_store import SqliteReader
from ..formats.errors import FormatError, UsageError
from ..proxy.config import load
from .output import errors

_STEP = 2000


@dataclass(frozen=True, slots=True)
class Log:
    """`entries` are (seq, entry) in order; an entry that is no JSON is None. Nothing of it is verified."""

    origin: str
    count: int
    entries: Iterator[tuple[int, Any]]


@contextmanager
def open_log(file: Path | None, config: Path, doing: str) -> Iterator[Log]:
    """The log of an evidence file, or if there is none of the configuration's ledger, as it is now.

    Shows how far the reading is. Raises UsageError, FormatError (the file is not whole), LedgerError.
    """
    with _open(file, config) as log:
        yield Log(log.origin, log.count, _shown(log, doing))


@contextmanager
def _open(file: Path | None, config: Path) -> Iterator[Log]:
    if file is None:
        with closing(SqliteReader(load(config).ledger.path)) as reader:
            head = reader.head()
            count = head.size if head is not None else 0
            rows = ((seq, _loaded(data)) for seq, data in reader.entries(0, count))
            yield Log(reader.meta("origin") or str(reader.path), count, rows)
        return
    with open_lines(file) as lines:
        records = read_records(lines)
        try:
            _, header = next(records)
        except FormatError as e:
            raise UsageError(f"{file} is not an evidence file as `lictor log export` writes it: {e}") from None
        assert isinstance(header, Header)
        found = (_loaded(record.data) for _, record in records if isinstance(record, EntryLine))
        yield Log(header.origin, header.count, ((_seq(entry, i), entry) for i, entry in enumerate(found)))


def _shown(log: Log, doing: str) -> Iterator[tuple[int, Any]]:
    with errors.status(Text(doing)) as status:
        for number, found in enumerate(log.entries):
            if number % _STEP == 0:
                status.update(Text(f"{doing}: {number} of {log.count} entries"))
            yield found


def _loaded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        return None


def _seq(entry: Any, otherwise: int) -> int:
    seq = entry.get("seq") if isinstance(entry, dict) else None
    return seq if type(seq) is int else otherwise
