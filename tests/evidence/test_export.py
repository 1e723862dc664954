"""Evidence files: written whole, read strictly, and cut off where that shows."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence import export
from lictor.evidence.export import (
    Document,
    End,
    EntryLine,
    Header,
    TokenLine,
    Truncated,
    export_lines,
    open_lines,
    read_records,
    write_export,
)
from lictor.evidence.ledger import Ledger
from lictor.evidence.merkle import leaf_hash
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.evidence.store import BetRow, NodeRow
from lictor.formats import base64url
from lictor.formats.errors import FormatError, LedgerError, UsageError
from lictor.formats.keys import KeySigner

ORIGIN = "example.test/monitor/one"
HEADER = b'{"checkpoint":"note","count":1,"first_seq":0,"lictor":"evidence/1","origin":"o"}\n'
ENTRY = b'{"entry":{"seq":0},"leaf":"%s"}\n' % (b"A" * 43)
END = b'{"end":{"checkpoint":"note","count":1}}\n'


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[SqliteReader]:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(SqliteStore(path), ORIGIN, KeySigner.of(Ed25519PrivateKey.generate()))
    ledger.put_document("binding", "d", {"policy_id": "urn:p"})
    ledger.put_document("key", "k", {"kty": "OKP"})
    ledger.add_node(NodeRow("n", "w", "a", "i", 1, (), "node.token", "minted"))
    for number in range(3):
        ledger.add({"target": f'}},"leaf":"{"A" * 43}"}}', "number": number + 0.5})
    ledger.add_bet(BetRow("b", "a", "p", 0, 3, 1, 2, "bet.token"))
    await ledger.close()
    reader = SqliteReader(path)
    yield reader
    reader.close()


def test_what_is_written_is_read(reader: SqliteReader, tmp_path: Path) -> None:
    header = write_export(reader, tmp_path / "out.jsonl")
    with open_lines(tmp_path / "out.jsonl") as lines:
        records = [record for _, record in read_records(lines)]
    note = reader.last_checkpoint() or ""
    assert header == records[0] == Header(ORIGIN, note, 0, 3)
    assert records[1:5] == [
        Document("key", {"kty": "OKP"}),
        Document("binding", {"policy_id": "urn:p"}),
        TokenLine("ect", "node.token"),
        TokenLine("bet", "bet.token"),
    ]
    assert records[5:8] == [EntryLine(data, leaf_hash(data)) for _, data in reader.entries()]
    assert records[8:] == [End(3, note)]


def test_the_file_is_private_and_nothing_else_is_left(reader: SqliteReader, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_export(reader, folder / "e.jsonl")
    write_export(reader, folder / "e.jsonl")
    assert [file.name for file in folder.iterdir()] == ["e.jsonl"]
    assert stat.S_IMODE((folder / "e.jsonl").stat().st_mode) == 0o600


def test_a_failed_export_leaves_the_old_file(
    reader: SqliteReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "e.jsonl").write_text("old")
    monkeypatch.setattr(base64url, "encode", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_export(reader, folder / "e.jsonl")
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("e.jsonl", "old")]


def test_an_export_to_nowhere_is_refused(reader: SqliteReader, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        write_export(reader, tmp_path / "none" / "e.jsonl")
    with pytest.raises(UsageError, match="cannot be written: Is a directory"):
        write_export(reader, tmp_path)


def test_a_store_that_no_monitor_used_has_nothing_to_export(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new.db")
    with pytest.raises(LedgerError, match="has no checkpoint yet"):
        list(export_lines(store))
    store.close()


async def test_an_export_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(SqliteStore(path), ORIGIN, KeySigner.of(Ed25519PrivateKey.generate()))
    ledger.add({})
    await ledger.commit()
    reader = SqliteReader(path)
    lines = export_lines(reader)
    first = next(lines)
    ledger.add({})
    ledger.add_bet(BetRow("b", "a", "p", 0, 2, 1, 2, "bet.token"))
    await ledger.commit()
    assert [type(record).__name__ for _, record in read_records([first, *lines])] == ["Header", "EntryLine", "End"]
    reader.close()
    await ledger.close()


def test_the_smallest_file() -> None:
    records = [record for _, record in read_records([HEADER, ENTRY, END])]
    assert records == [Header("o", "note", 0, 1), EntryLine(b'{"seq":0}', bytes(32)), End(1, "note")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([], "the file is empty", id="empty"),
        pytest.param([HEADER[:-1]], "ends within line 1", id="in the first line"),
        pytest.param([HEADER], "ends after line 1, without its end line", id="after the first line"),
        pytest.param([HEADER, ENTRY[:-2]], "ends within line 2", id="in an entry"),
        pytest.param([HEADER, ENTRY, END[:-1]], "ends within line 3", id="without the last line feed"),
    ],
)
def test_a_file_that_was_cut_off(lines: list[bytes], message: str) -> None:
    with pytest.raises(Truncated, match=message):
        list(read_records(lines))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([b"{}\n"], "line 1: not an evidence file: 'lictor' is None", id="another file"),
        pytest.param([b"\n"], "line 1: not JSON", id="no header"),
        pytest.param([HEADER.replace(b"/1", b"/2")], "expected 'evidence/1'", id="another version"),
        pytest.param([HEADER.replace(b'"origin"', b'"orange"')], "has other members", id="no origin"),
        pytest.param([HEADER.replace(b'seq":0', b'seq":1')], "begins at entry 1, expected 0", id="not from the start"),
        pytest.param([HEADER.replace(b'count":1', b'count":-1')], "-1 is not a count", id="negative count"),
        pytest.param([HEADER.replace(b'count":1', b'count":true')], "True is not a count", id="bool for a count"),
        pytest.param([HEADER.replace(b'"o"', b"1")], "1 is not text", id="origin not text"),
        pytest.param([HEADER, ENTRY, END, b"{}\n"], "line 4: something stands after the end line", id="after the end"),
        pytest.param([HEADER, b'{"what":1}\n'], "line 2: not one of key, cosigned, binding", id="unknown line"),
        pytest.param([HEADER, b'{"key":{},"ect":""}\n'], "not one of", id="two in one line"),
        pytest.param([HEADER, b'{"key":{},"key":{}}\n'], "stands twice", id="the same twice"),
        pytest.param([HEADER, b'{"key":"x"}\n'], "the value of 'key'", id="key not an object"),
        pytest.param([HEADER, b'{"bet":{}}\n'], "the value of 'bet'", id="token not text"),
        pytest.param([HEADER, b'{"end":{"count":1}}\n'], "the value of 'end'", id="end without checkpoint"),
        pytest.param([HEADER, b'{"entry":{}}\n'], "not one of", id="entry without leaf"),
        pytest.param([HEADER, ENTRY.replace(b"A" * 43, b"A" * 42)], "not one of", id="short leaf"),
        pytest.param([HEADER, ENTRY.replace(b"A" * 43, b"A" * 42 + b"B")], "stray bits", id="leaf with stray bits"),
        pytest.param([HEADER, ENTRY.replace(b'"entry":', b'"entry": ')], "not one of", id="a space"),
        pytest.param(
            [HEADER, ENTRY, b'{"bet":"x"}\n'], "line 3: a line of 'bet' stands after one of 'entry'", id="order"
        ),
        pytest.param([HEADER, HEADER], "line 2: not one of", id="two headers"),
        pytest.param([HEADER, b"[]\n"], "line 2: JSON is not an object", id="array"),
        pytest.param([HEADER, b"\xff\n"], "line 2: JSON is not UTF-8", id="not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_one(lines: list[bytes], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        list(read_records(lines))
    assert not isinstance(caught.value, Truncated)


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_LINE", 1000)
    (tmp_path / "long").write_bytes(HEADER + b'{"key":"' + b"x" * 5000)
    with (
        open_lines(tmp_path / "long") as lines,
        pytest.raises(FormatError, match="line 2: the line has more"),
    ):
        list(read_records(lines))
    (tmp_path / "long").write_bytes(b"{" * 5000)
    with open_lines(tmp_path / "long") as lines, pytest.raises(FormatError, match="the first line is too long"):
        list(read_records(lines))
