"""The SQLite store: all or nothing, one writer, readers beside it, private files."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from lictor.evidence.merkle import leaf_hash
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.evidence.store import Batch, BetRow, DocumentRow, Head, NodeRow, Stamped, WindowRow, read_meta
from lictor.formats.errors import LedgerError, UsageError


def entry(seq: int) -> Stamped:
    data = b'{"seq":%d}' % seq
    return Stamped(seq, float(seq), data, leaf_hash(data))


def bet(jti: str, agent: str = "a", policy: str = "p") -> BetRow:
    return BetRow(jti, agent, policy, 0, 2, 1.000001, 2.000002, f"token of {jti}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_everything_comes_back_as_it_was_put_in(path: Path) -> None:
    store = SqliteStore(path)
    node = NodeRow("n1", "w", "a", "i", 5.25, ("n0", "m0"), "token", "minted")
    root_node = NodeRow("n0", "v", "a", "i", 5.0, (), "token", "received")
    head = Head(2, "note", b"edge", 17)
    window = WindowRow("a", "p", 3.5, 2, None)
    documents = [DocumentRow("key", "k", b"{}"), DocumentRow("binding", "d", b"[]")]
    store.append(Batch([entry(0), entry(1)], [bet("1"), bet("2", "b")], [node, root_node], [window], documents, head))
    store.put_meta("origin", "here")
    reader = SqliteReader(path)
    for view in (store, reader):
        assert list(view.entries()) == [(0, b'{"seq":0}'), (1, b'{"seq":1}')]
        assert list(view.leaves(1)) == [(1, leaf_hash(b'{"seq":1}'), b'{"seq":1}')]
        assert [*view.bets()] == [bet("1"), bet("2", "b")]
        assert [*view.bets(agent_id="b")] == [*view.bets(policy_id="p", agent_id="b")] == [bet("2", "b")]
        assert [*view.nodes()] == [node, root_node]
        assert [*view.nodes("v")] == [root_node]
        assert [*view.windows()] == [window]
        assert [*view.documents("binding")] == [documents[1]]
        assert (view.head(), view.last_checkpoint(), view.meta("origin")) == (head, "note", "here")
    reader.close()
    store.close()


def test_a_range_of_entries_is_half_open(path: Path) -> None:
    store = SqliteStore(path)
    store.append(Batch([entry(i) for i in range(6)]))
    assert [seq for seq, _ in store.entries(2, 5)] == [2, 3, 4]
    assert [seq for seq, _ in store.entries(9)] == []
    store.close()


def test_windows_are_replaced_and_known_nodes_and_documents_are_not(path: Path) -> None:
    store = SqliteStore(path)
    first = NodeRow("n", "w", "a", "i", 1, (), "one", "minted")
    second = NodeRow("n", "w", "a", "i", 1, (), "two", "minted")
    key, other = DocumentRow("key", "k", b"1"), DocumentRow("key", "k", b"2")
    store.append(Batch(nodes=[first], windows=[WindowRow("a", "p", 1, 0, None)], documents=[key]))
    store.append(Batch(nodes=[second], windows=[WindowRow("a", "p", 2, 5, "b")], documents=[other]))
    assert [*store.nodes()] == [first]
    assert [*store.windows()] == [WindowRow("a", "p", 2, 5, "b")]
    assert [*store.documents("key")] == [key]
    store.close()


def test_a_batch_that_cannot_be_written_whole_leaves_no_trace(path: Path) -> None:
    store = SqliteStore(path)
    store.append(Batch([entry(0)], [bet("1")]))
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be written: UNIQUE constraint failed: bets\.jti"):
        store.append(Batch([entry(1)], [bet("1")]))
    store.close()
    reader = SqliteReader(path)
    assert [seq for seq, _ in reader.entries()] == [0]
    reader.close()


def test_the_second_writer_is_refused_and_the_first_goes_on(path: Path) -> None:
    first = SqliteStore(path)
    with pytest.raises(UsageError, match=r"another monitor writes the ledger .*ledger\.db: stop it first"):
        SqliteStore(path)
    first.append(Batch([entry(0)]))
    first.close()
    second = SqliteStore(path)
    assert len([*second.entries()]) == 1
    second.close()


def test_files_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(path)
        store.append(Batch([entry(0)]))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"], 0o600)
    store.close()


def test_a_ledger_that_was_open_to_others_is_closed_to_them(path: Path) -> None:
    SqliteStore(path).close()
    path.chmod(0o644)
    SqliteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_commit_is_synced(path: Path) -> None:
    store = SqliteStore(path)
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_reader_follows_the_writer_and_cannot_write(path: Path) -> None:
    store = SqliteStore(path)
    reader = SqliteReader(path)
    assert [*reader.entries()] == []
    store.append(Batch([entry(0)]))
    assert len([*reader.entries()]) == 1
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM entries")
    reader.close()
    store.close()


def test_a_snapshot_is_of_one_moment(path: Path) -> None:
    store = SqliteStore(path)
    reader = SqliteReader(path)
    with reader.snapshot():
        assert [*reader.entries()] == []
        store.append(Batch([entry(0)]))
        assert [*reader.entries()] == []
    assert len([*reader.entries()]) == 1
    reader.close()
    store.close()


def test_a_ledger_is_readable_after_its_monitor_stopped(path: Path) -> None:
    store = SqliteStore(path)
    store.append(Batch([entry(0)]))
    store.close()
    reader = SqliteReader(path)
    assert len([*reader.entries()]) == 1
    reader.close()


def test_what_is_not_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no ledger at"):
        SqliteReader(tmp_path / "none.db")
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(UsageError, match="cannot be read as a ledger"):
        SqliteReader(tmp_path / "text")
    with pytest.raises(UsageError, match="cannot be opened for writing"):
        SqliteStore(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.db")
    other.executescript("CREATE TABLE meta (name TEXT, value TEXT); INSERT INTO meta VALUES ('format', 'ledger/9');")
    other.close()
    for opener in (SqliteReader, SqliteStore):
        with pytest.raises(UsageError, match=r"has the ledger format 'ledger/9', expected 'lictor-ledger/3'"):
            opener(tmp_path / "other.db")
    with pytest.raises(UsageError, match="cannot be opened for writing: No such file or directory"):
        SqliteStore(tmp_path / "missing" / "ledger.db")


@pytest.mark.parametrize("said", ["x", "-1", "1.5", str(2**53), str(2**64), b"\xff"])
def test_what_is_erased_is_a_count(path: Path, said: str | bytes) -> None:
    with closing(SqliteStore(path)) as store:
        assert store.erased() == 0
        with sqlite3.connect(path) as db:
            db.execute("INSERT INTO meta VALUES ('erased', ?)", [said])
        for read in (store.erased, lambda: [*store.entries()], lambda: [*store.leaves()]):
            with pytest.raises(LedgerError, match="of its entries are erased, expected a count"):
                read()


def test_what_is_kept_as_json_is_of_its_type(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        assert (read_meta(store, "x", 7), read_meta(store, "x", [1])) == (7, [1])
        store.put_meta("x", "12")
        assert read_meta(store, "x", 0) == 12
        for said in ("x", "[", "", "{}", "12"):
            store.put_meta("x", said)
            with pytest.raises(LedgerError, match="as 'x', expected JSON of the type list: it was altered"):
                read_meta(store, "x", [1])


def test_a_refused_opening_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("no database " * 100)
    with pytest.raises(UsageError):
        SqliteStore(path)
    path.unlink()
    SqliteStore(path).close()


def test_a_node_is_looked_up_by_its_workflow_or_by_its_issuer_also_in_a_ledger_without_the_index(path: Path) -> None:
    of = ("w", "i"), ("v", "k"), ("", "l")
    rows = [NodeRow("j", wid, "a", issuer, 1.0, ("p", "q"), "t", "received") for wid, issuer in of]
    with closing(SqliteStore(path)) as store:
        store.append(Batch(nodes=rows))
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX node_ids")
    with closing(SqliteStore(path)) as store:
        assert [store.node(wid, "j") for wid in ("w", "v", "", "x")] == [*rows, rows[-1]]
        assert store.node("w", "p") is None
        assert [store.node_of("j", pair) for pair in (("i", "x"), ("x", "k"), ("x", "y"))] == [*rows[:2], None]
        assert store.node_of("p", ("i", "k")) is None
        assert [store.known("w", 9), store.known("w", 1), store.known("x", 9)] == [2, 1, 1]
        for asked in ("wid IN ('w', '') AND jti = ''", "jti = '' AND issuer IN ('', '')"):
            plan = [row[3] for row in store._rows(f"EXPLAIN QUERY PLAN SELECT token FROM nodes WHERE {asked}")]
            assert "USING INDEX" in plan[0]
