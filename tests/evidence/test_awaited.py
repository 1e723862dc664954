"""No action that went on its way stays without an outcome: after a crash, a dead worker, and in long logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lictor.evidence import awaited
from lictor.evidence.entry import ActionDraft, InboundDraft, OutcomeDraft
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats import strict_json
from lictor.formats.keys import KeySigner
from lictor.verifier.bets import parse_bet

MONITOR = "spiffe://example.test/monitor/one"
A = "spiffe://example.test/agent/a"
POLICY = PolicyInfo("urn:p", "1.0.0", "digest-p", {"p1": "high"})
Open = Callable[[], tuple[Ledger, SqliteStore]]


class Running:
    """A recorder on the ledger of the test."""

    def __init__(self, opened: tuple[Ledger, SqliteStore], signer: KeySigner) -> None:
        self.ledger, self.store = opened
        self.recorder = Recorder(self.ledger, signer, MONITOR, lambda _: (POLICY,), stored=self.store)

    async def act(self, decision: str = "allow", source: object = None) -> int:
        reason = "allowed" if decision != "deny" else "default_deny"
        draft = ActionDraft(A, "http_request", "https://x.test/", {}, decision, reason, ())
        return (await self.recorder.record_action(draft, source)).seq

    async def crash(self) -> None:
        await self.ledger.close()

    def outcomes(self) -> dict[int, Any]:
        entries = (strict_json.loads_object(data) for _, data in self.store.entries())
        return {e["outcome_of"]: e["outcome"] for e in entries if "outcome_of" in e}


@pytest.fixture
def run(open_ledger: Open, signer: KeySigner) -> Callable[[], Running]:
    return lambda: Running(open_ledger(), signer)


async def test_after_a_crash_what_was_on_its_way_is_unknown(run: Callable[[], Running]) -> None:
    first = run()
    told, open_ = await first.act(), await first.act()
    await first.act("deny")
    flagged = await first.act("flag")
    await first.recorder.record_outcome(OutcomeDraft(told, {"status": 200}))
    await first.crash()
    second = run()
    await second.ledger.commit()
    expected = {"status": 0, "complete": False, "error": f"unknown: {awaited.MONITOR_ENDED}"}
    assert second.outcomes() == {told: {"status": 200}, open_: expected, flagged: expected}
    size = second.ledger.size
    await second.recorder.close()
    covered = [parse_bet(row.token).ext["count"] for row in second.store.bets(A)]
    assert sum(covered) == size, "the windows hold the outcomes told at start too"
    await second.crash()
    third = run()
    assert third.ledger.size == size, "told once"
    await third.crash()


async def test_a_long_log_is_read_from_where_it_is_needed(
    run: Callable[[], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaited, "ANCHOR", 8)
    first = run()
    old = await first.act()
    for _ in range(30):
        await first.recorder.record_outcome(OutcomeDraft(await first.act(), {}))
    new = await first.act()
    await first.crash()
    read: list[int] = []
    entries = SqliteStore.entries

    def counted(store: SqliteStore, first: int = 0, end: int | None = None) -> Any:
        for seq, data in entries(store, first, end):
            read.append(seq)
            yield seq, data

    second = run()
    await second.ledger.commit()
    assert {seq for seq, outcome in second.outcomes().items() if "error" in outcome} == {old, new}
    monkeypatch.setattr(SqliteStore, "entries", counted)
    assert awaited.left_open(second.store) == {}
    assert len(read) <= 8 + 1, "what was kept, and at most ANCHOR entries"
    await second.crash()


async def test_a_worker_that_is_lost(run: Callable[[], Running]) -> None:
    running = run()
    gone, stays = object(), object()
    lost, kept = await running.act(source=gone), await running.act(source=stays)
    parent = {"jti": "urn:uuid:1", "wid": "w", "agent_id": "x", "issuer": "m", "iat": 1.0, "parents": (), "token": "t"}
    inbound = InboundDraft(
        A, "spiffe://example.test/monitor/two", "urn:a", {}, "allow", "allowed", wid="w", parents=[parent]
    )
    taken = await running.recorder.accept_delegation(inbound, gone)
    await running.recorder.lost(gone)
    assert set(running.outcomes()) == {lost, taken.seq}
    assert "worker" in running.outcomes()[lost]["error"]
    after = await running.recorder.record_action(ActionDraft(A, "http_request", "https://x.test/", {}, "allow", "", ()))
    assert after.wid != taken.wid, "its delegation is over"
    await running.recorder.record_outcome(OutcomeDraft(kept, {}))
    await running.recorder.lost(gone)
    assert set(running.outcomes()) == {lost, taken.seq, kept}
    await running.crash()


async def test_an_outcome_that_waits_for_the_disk_is_not_told_twice(run: Callable[[], Running]) -> None:
    running = run()
    worker = object()
    seq = await running.act(source=worker)
    telling = asyncio.ensure_future(running.recorder.record_outcome(OutcomeDraft(seq, {"status": 200})))
    await asyncio.sleep(0)
    await running.recorder.lost(worker)
    await telling
    assert running.outcomes() == {seq: {"status": 200}}
    await running.crash()


async def test_an_outcome_that_is_known_does_not_go_with_the_worker(run: Callable[[], Running]) -> None:
    """As while more is fetched of what goes into it."""
    running = run()
    worker = object()
    seq = await running.act(source=worker)
    running.recorder.take_over(seq)
    running.recorder.take_over(seq + 99)
    await running.recorder.lost(worker)
    assert running.outcomes() == {}
    await running.recorder.record_outcome(OutcomeDraft(seq, {"status": 200}))
    await running.ledger.commit()
    assert running.outcomes() == {seq: {"status": 200}}
    await running.crash()
