"""The ledger: order, time, durability, group commit, failing closed, taking up where it ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence import ledger as module
from lictor.evidence.checkpoint import Verifier, verify_checkpoint
from lictor.evidence.ledger import Ledger
from lictor.evidence.merkle import leaf_hash, root
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.evidence.store import Batch, BetRow, NodeRow, WindowRow
from lictor.formats.canonical import canonical
from lictor.formats.errors import FormatError, LedgerError, UsageError
from lictor.formats.keys import KeySigner, to_jwk
from lictor.formats.strict_json import loads_object

ORIGIN = "example.test/monitor/one"
SIGNER = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
FIELDS = {"agent_id": "spiffe://example.test/agent/a", "action_parameters": {"ratio": 2.0}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


class Watched(SqliteStore):
    """A store whose writing can be held up, and made to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.batches: list[Batch] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def append(self, batch: Batch) -> None:
        assert self.gate.wait(30)
        if self.failure:
            raise self.failure
        self.batches.append(batch)
        super().append(batch)


@pytest.fixture
async def watched(path: Path) -> AsyncIterator[tuple[Ledger, Watched]]:
    store = Watched(path)
    ledger = Ledger.open(store, ORIGIN, SIGNER)
    store.batches.clear()
    yield ledger, store
    store.gate.set()
    with contextlib.suppress(LedgerError):
        await ledger.close()


def stored(path: Path) -> list[dict[str, Any]]:
    reader = SqliteReader(path)
    entries = [loads_object(data) for _, data in reader.entries()]
    reader.close()
    return entries


def checkpoint_size(path: Path) -> int:
    """The size of the stored checkpoint, after its signature and its root were checked against the entries."""
    reader = SqliteReader(path)
    with reader.snapshot():
        checkpoint = verify_checkpoint(
            reader.last_checkpoint() or "", ORIGIN, [Verifier.of(ORIGIN, SIGNER.public_key())]
        )
        assert checkpoint.root == root(leaf_hash(data) for _, data in reader.entries())
    reader.close()
    return checkpoint.size


async def test_an_entry_is_stamped_canonical_and_durable_when_commit_says_so(path: Path) -> None:
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    before = time.time()
    first, second = ledger.add(FIELDS), ledger.add({})
    assert (first.seq, second.seq) == (0, 1)
    assert before - 1 < first.timestamp < second.timestamp
    assert first.data == canonical({**FIELDS, "seq": 0, "timestamp": first.timestamp})
    assert first.leaf == leaf_hash(first.data)
    await ledger.commit()
    assert stored(path)[0] == {**FIELDS, "seq": 0, "timestamp": first.timestamp}
    assert checkpoint_size(path) == ledger.size == 2
    assert ledger.root() == root([first.leaf, second.leaf])
    await ledger.close()


async def test_nothing_is_acknowledged_before_it_is_written(watched: tuple[Ledger, Watched], path: Path) -> None:
    ledger, store = watched
    store.gate.clear()
    ledger.add(FIELDS)
    done = ledger.commit()
    await asyncio.wait([done], timeout=0.2)
    assert not done.done()
    assert stored(path) == []
    store.gate.set()
    await done
    assert len(stored(path)) == 1


async def test_the_next_batch_collects_while_one_is_written(watched: tuple[Ledger, Watched]) -> None:
    ledger, store = watched
    store.gate.clear()
    ledger.add({})
    first = ledger.commit()
    await asyncio.sleep(0)
    again = ledger.commit()
    later = []
    for _ in range(100):
        ledger.add({})
        later.append(ledger.commit())
    await asyncio.sleep(3 * module.LAZY_FLUSH)
    assert not any(future.done() for future in (first, again, *later))
    store.gate.set()
    await asyncio.gather(first, again, *later)
    assert [len(batch.entries) for batch in store.batches] == [1, 100]


async def test_what_is_added_in_one_turn_is_in_one_batch(watched: tuple[Ledger, Watched]) -> None:
    ledger, store = watched
    entry = ledger.add({})
    ledger.add_bet(BetRow("b", "a", "p", 0, 1, 0, entry.timestamp, "t"))
    ledger.add_node(NodeRow("n", "w", "a", "i", 1, ("m",), "t", "minted"))
    ledger.put_window(WindowRow("a", "p", entry.timestamp, 1, "b"))
    ledger.put_document("binding", "d", {"b": 1, "a": 2.0})
    await ledger.commit()
    (batch,) = store.batches
    assert [len(rows) for rows in (batch.entries, batch.bets, batch.nodes, batch.windows, batch.documents)] == [1] * 5
    assert [row.data for row in store.documents("binding")] == [b'{"a":2,"b":1}']
    assert store.head() == batch.head


async def test_what_nobody_commits_is_written_soon(watched: tuple[Ledger, Watched], path: Path) -> None:
    ledger, store = watched
    ledger.add({})
    async with asyncio.timeout(10):
        while not store.batches:
            await asyncio.sleep(module.LAZY_FLUSH)
    assert len(store.batches) == 1


async def test_commit_of_nothing_is_done_at_once(watched: tuple[Ledger, Watched]) -> None:
    ledger, store = watched
    assert ledger.commit().done()
    assert store.batches == []


async def test_a_waiter_that_gives_up_does_not_harm_the_others(watched: tuple[Ledger, Watched]) -> None:
    ledger, store = watched
    store.gate.clear()
    ledger.add({})
    one, two = ledger.commit(), ledger.commit()
    await asyncio.sleep(0)
    one.cancel()
    store.gate.set()
    await two
    ledger.add({})
    await ledger.commit()


async def test_timestamps_rise_when_the_clock_stands_or_goes_back(
    watched: tuple[Ledger, Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = watched
    start = int(ledger.now() * 1e6) + 10_000_000
    clock = itertools.chain([start, start, start - 5_000_000, start + 1], itertools.repeat(0))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 1000)
    stamps = [ledger.add({}).timestamp, ledger.now(), ledger.add({}).timestamp, ledger.now(), ledger.add({}).timestamp]
    assert [round(stamp * 1e6) - start for stamp in stamps] == [0, 1, 2, 3, 4]


async def test_time_does_not_go_back_over_a_restart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    ledger.add({})
    end = ledger.now()
    await ledger.close()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    assert ledger.now() > end
    await ledger.close()


async def test_every_microsecond_survives_the_json_number(watched: tuple[Ledger, Watched]) -> None:
    ledger, _ = watched
    ledger._clock = 4_102_444_799_999_990
    for _ in range(20):
        stamped = ledger.add({})
        assert loads_object(stamped.data)["timestamp"] == stamped.timestamp == ledger._clock / 1e6


async def test_fields_cannot_choose_their_place_or_time(watched: tuple[Ledger, Watched]) -> None:
    ledger, _ = watched
    assert loads_object(ledger.add({"seq": 99, "timestamp": 1}).data)["seq"] == 0


async def test_what_has_no_canonical_form_is_refused_and_leaves_no_gap(watched: tuple[Ledger, Watched]) -> None:
    ledger, _ = watched
    with pytest.raises(FormatError):
        ledger.add({"n": float("nan")})
    with pytest.raises(FormatError, match="more than 1048576"):
        ledger.add({"n": "x" * (1 << 20)})
    assert ledger.add({}).seq == 0


@pytest.mark.parametrize("failure", [LedgerError("the disk is full"), RuntimeError("the disk is full")])
async def test_after_a_write_error_the_ledger_is_dead(watched: tuple[Ledger, Watched], failure: Exception) -> None:
    ledger, store = watched
    store.gate.clear()
    ledger.add({})
    writing = ledger.commit()
    await asyncio.sleep(0)
    ledger.add({})
    pending = ledger.commit()
    store.failure = failure
    store.gate.set()
    for future in (writing, pending):
        with pytest.raises(LedgerError, match="the disk is full"):
            await future
    store.failure = None
    with pytest.raises(LedgerError, match="the disk is full"):
        await ledger.commit()
    for add in (lambda: ledger.add({}), lambda: ledger.put_window(WindowRow("a", "p", 0, 0, None))):
        with pytest.raises(LedgerError, match="the disk is full"):
            add()
    with pytest.raises(LedgerError, match="the disk is full"):
        await ledger.close()
    assert store.batches == []
    SqliteStore(store.path).close()


async def test_close_writes_what_is_left_and_gives_the_file_back(path: Path) -> None:
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    ledger.add({})
    await ledger.close()
    await ledger.close()
    assert checkpoint_size(path) == 1
    with pytest.raises(LedgerError, match="the ledger is closed"):
        ledger.add({})
    SqliteStore(path).close()


@pytest.fixture(params=[4, 1 << 16], ids=["most rest on the edge", "all hashed again"])
def rehashed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REHASHED", request.param)


@pytest.mark.usefixtures("rehashed")
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 13, 16, 21])
async def test_it_goes_on_where_it_ended(path: Path, size: int) -> None:
    leaves = []
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    leaves += [ledger.add({}).leaf for _ in range(size)]
    await ledger.close()
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    assert ledger.size == size
    leaves += [ledger.add({}).leaf for _ in range(3)]
    assert ledger.root() == root(leaves)
    await ledger.close()
    assert checkpoint_size(path) == size + 3
    stamps = [entry["timestamp"] for entry in stored(path)]
    assert stamps == sorted(set(stamps))


async def test_another_logs_ledger_is_refused(path: Path) -> None:
    await Ledger.open(SqliteStore(path), ORIGIN, SIGNER).close()
    store = SqliteStore(path)
    with pytest.raises(UsageError, match=r"is the log of example\.test/monitor/one, not of example\.test/monitor/two"):
        Ledger.open(store, "example.test/monitor/two", SIGNER)
    store.close()


async def test_a_new_key_takes_over_only_if_the_log_knows_the_old_one(path: Path) -> None:
    other = KeySigner.of(Ed25519PrivateKey.generate())
    await Ledger.open(SqliteStore(path), ORIGIN, SIGNER).close()
    store = SqliteStore(path)
    with pytest.raises(LedgerError, match="no known key signed"):
        Ledger.open(store, ORIGIN, other)
    store.close()
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    ledger.put_document("key", SIGNER.kid, to_jwk(SIGNER.public_key()))
    await ledger.close()
    ledger = Ledger.open(SqliteStore(path), ORIGIN, other)
    ledger.add({})
    await ledger.close()


SPOILT = {
    "an entry altered": "UPDATE entries SET data = CAST('{\"seq\":5}' AS BLOB) WHERE seq = 5",
    "an entry removed": "DELETE FROM entries WHERE seq = 5",
    "the last entry removed": "DELETE FROM entries WHERE seq = :size - 1",
    "all entries removed": "DELETE FROM entries",
    "an entry added": "INSERT INTO entries VALUES (:size, x'00', x'7b7d')",
    "the checkpoint removed": "DELETE FROM head",
    "the edge altered": "UPDATE head SET edge = zeroblob(length(edge))",
    "the edge cut": "UPDATE head SET edge = substr(edge, 33)",
    "the size altered": "UPDATE head SET size = 6",
    "the note altered": "UPDATE head SET checkpoint = replace(checkpoint, x'0a' || size, x'0a36')",
    "the clock altered": "UPDATE head SET clock = 'x'",
    "no note": "UPDATE head SET checkpoint = ''",
}


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("how", SPOILT)
async def test_a_ledger_that_does_not_agree_with_its_checkpoint_is_not_opened(
    path: Path, size: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REHASHED", 16 if size == 8 and how.startswith("an entry") else 4)
    ledger = Ledger.open(SqliteStore(path), ORIGIN, SIGNER)
    for _ in range(size):
        ledger.add({})
    await ledger.close()
    db = sqlite3.connect(path)
    assert db.execute(SPOILT[how], {"size": size}).rowcount > 0
    db.commit()
    db.close()
    store = SqliteStore(path)
    with pytest.raises(LedgerError, match="checkpoint") as caught:
        Ledger.open(store, ORIGIN, SIGNER)
    if how == "an entry removed":
        assert "expected entry 5, found entry 6" in str(caught.value)
    store.close()
