"""Held actions: nothing goes out before the decision, every end is an entry, what waits is bounded."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from lictor.evidence import bet
from lictor.evidence.entry import ActionDraft, InboundDraft, OutcomeDraft, Resolution
from lictor.evidence.held import APPROVED, Holds, settle
from lictor.evidence.ledger import Ledger
from lictor.evidence.lineage import Within
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.state import Judged
from lictor.formats.keys import KeySigner

A, B, PEER = (f"spiffe://example.test/agent/{name}" for name in ("a", "b", "peer"))
MONITOR = "spiffe://example.test/monitor/one"
P = PolicyInfo("urn:p", "1.0.0", "digest", {"p1": "high", "p2": "high"})
YES = Resolution(True, APPROVED, "user:me", why="fine")
NO = Resolution(False, "hold_denied", "user:me", "not today")


def said(behavior: str, result: str) -> dict[str, str]:
    return {"policy_id": "urn:p", "version": "1.0.0", "binding": "digest", "behavior_id": behavior, "result": result}


def held(agent: str = A, **changes: Any) -> ActionDraft:
    given: dict[str, Any] = {
        "agent_id": agent,
        "action_type": "tool_call",
        "action_target": "urn:x:tool",
        "action_parameters": {},
        "decision": "hold",
        "reason": "not_in_allowlist",
        "behaviors": [said("p1", "fail"), said("p2", "pass")],
    }
    return ActionDraft(**{**given, **changes})


class State:
    """Judges as told; remembers what was let out."""

    def __init__(self) -> None:
        self.says: Callable[[ActionDraft], Judged] = Judged
        self.taken: list[tuple[int, str]] = []

    def idle(self, agent_id: str) -> bool:
        return False

    def judge(self, draft: ActionDraft, wid: str, now: float, depth: int | None = None, within: Within = ()) -> Judged:
        return self.says(draft)

    def admit(self, draft: InboundDraft, now: float) -> InboundDraft | Judged:
        if draft.decision != "hold":
            return draft
        return self.says(held(PEER, action_type="delegation", action_parameters={"callee": draft.agent_id}))

    def take(self, entry: Any, seq: int, timestamp: float) -> None:
        self.taken.append((seq, entry.get("decision", "outcome")))


class World:
    """A recorder with holds of its own, on a ledger that can be opened again."""

    def __init__(self, open_ledger: Callable[[], tuple[Ledger, SqliteStore]], signer: KeySigner) -> None:
        self._open, self._signer = open_ledger, signer
        self.state = State()
        self.told: list[int] = []

    def start(self, **limits: Any) -> World:
        self.ledger, self.store = self._open()
        self.holds = Holds(self.ledger, **limits)
        self.recorder = Recorder(
            self.ledger,
            self._signer,
            MONITOR,
            lambda agent: (P,),
            interval=0.0,
            stored=self.store,
            state=self.state,
            holds=self.holds,
        )
        return self

    def begin(self, draft: ActionDraft, source: object = None) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.recorder.record_action(draft, source, self.told.append))

    async def until_told(self, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while len(self.told) < count:
                await asyncio.sleep(0.005)

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self.store.entries()]

    async def details(self) -> dict[str, Any]:
        """What the next BET says of p1, and its result."""
        await self.recorder.tick()
        row = list(self.store.bets(A, "urn:p"))[-1]
        one = bet.verify(row.token, lambda *a: self._signer.public_key())  # type: ignore[arg-type]
        return {"result": one.result, **next(d for d in one.details if d["behavior_id"] == "p1")}


@pytest.fixture
def world(open_ledger: Callable[[], tuple[Ledger, SqliteStore]], signer: KeySigner) -> World:
    return World(open_ledger, signer)


async def test_it_goes_out_once_it_is_approved(world: World) -> None:
    world.start()
    asked = world.begin(held())
    await world.until_told()
    assert not asked.done()
    [waiting] = world.holds.waiting()
    [entry] = world.entries()
    assert (entry["decision"], entry["seq"], waiting.seq, world.told) == ("hold", 0, 0, [0])
    assert world.holds.resolve(0, YES)
    receipt = await asked
    assert (receipt.seq, receipt.decision, receipt.reason) == (0, "allow", "approved")
    decided = world.entries()[1]
    assert (decided["decision_of"], decided["decision"], decided["by"], decided["why"]) == (
        0,
        "allow",
        "user:me",
        "fine",
    )
    assert decided["behaviors"] == [said("p1", "approved")]
    await world.recorder.record_outcome(OutcomeDraft(0, {"status": 200}))
    assert world.state.taken == [(0, "hold"), (1, "allow"), (2, "outcome")]
    await world.ledger.close()


async def test_a_denial_has_evidence_and_no_outcome(world: World) -> None:
    world.start()
    asked = world.begin(held())
    await world.until_told()
    world.holds.resolve(0, NO)
    receipt = await asked
    assert (receipt.decision, receipt.reason, receipt.detail) == ("deny", "hold_denied", "not today")
    assert len(receipt.behavioral_evidence) == 1
    with pytest.raises(Exception, match="no outcome is awaited of entry 0"):
        await world.recorder.record_outcome(OutcomeDraft(0, {"status": 200}))
    await world.ledger.close()


@pytest.mark.parametrize(
    ("resolution", "more"),
    [(YES, {"prevented": 0, "held": 1, "approved": 1}), (NO, {"prevented": 1, "held": 1})],
    ids=["approved", "denied"],
)
async def test_evidence_tells_what_became_of_it(world: World, resolution: Resolution, more: dict[str, int]) -> None:
    """What was approved was violated all the same."""
    world.start()
    asked = world.begin(held())
    await world.until_told()
    world.holds.resolve(0, resolution)
    await asked
    expected = {"behavior_id": "p1", "result": "fail", "evaluated": 1, "violations": 1, **more}
    assert await world.details() == expected | {"result": "fail"}
    await world.ledger.close()


async def test_a_decision_in_a_later_window_counts_there(world: World) -> None:
    world.start()
    asked = world.begin(held())
    await world.until_told()
    assert (await world.details())["held"] == 1
    world.holds.resolve(0, YES)
    await asked
    later = await world.details()
    assert (later["result"], later["evaluated"], later["approved"]) == ("not-run", 0, 1)
    await world.ledger.close()


async def test_nobody_decides_in_time(world: World) -> None:
    world.start(seconds=0.05)
    receipt = await world.begin(held())
    assert (receipt.decision, receipt.reason) == ("deny", "hold_timed_out")
    assert world.holds.waiting() == []
    await world.ledger.close()


@pytest.mark.parametrize("limits", [{"most": 2}, {"most_of_one": 2}], ids=["in all", "of one agent"])
async def test_only_so_many_wait(world: World, limits: dict[str, int]) -> None:
    world.start(**limits)
    tasks = [world.begin(held()) for _ in range(3)]
    receipt = await tasks[2]
    assert (receipt.decision, receipt.reason) == ("deny", "too_many_holds")
    other = world.begin(held(B))
    await world.until_told(2)
    if "most_of_one" in limits:
        await world.until_told(3)
    else:
        assert (await other).reason == "too_many_holds"
    world.holds.resolve_all(lambda one: True, NO)
    await asyncio.gather(*tasks, other)
    assert world.holds.has_room_for(A), "room is given back"
    await world.ledger.close()


async def test_a_standing_approval_lets_it_out_at_once(world: World) -> None:
    world.start()
    world.state.says = lambda draft: Judged(draft, resolution=Resolution(True, "approved_always", "user:me"))
    receipt = await world.begin(held())
    assert (receipt.seq, receipt.decision, receipt.reason) == (0, "allow", "approved_always")
    assert [e["decision"] for e in world.entries()] == ["hold", "allow"]
    await world.ledger.close()


async def test_what_is_denied_by_now_does_not_go_out(world: World) -> None:
    world.start()
    asked = world.begin(held())
    await world.until_told()
    exceeded = [said("p1", "fail"), said("p2", "fail")]
    world.state.says = lambda draft: Judged(
        dataclasses.replace(draft, decision="deny", reason="rate_exceeded", behaviors=exceeded),
        "wait",
        said("p2", "fail"),
    )
    world.holds.resolve(0, YES)
    receipt = await asked
    assert (receipt.decision, receipt.reason, receipt.detail) == ("deny", "rate_exceeded", "wait")
    assert receipt.behavior == said("p2", "fail")
    assert world.entries()[1]["behaviors"] == [said("p1", "prevented"), said("p2", "fail")]
    await world.ledger.close()


def test_approved_is_only_what_was_asked_about() -> None:
    was = Judged(held())
    same, _ = settle(was, YES, Judged(held()))
    assert same.allows
    more = held(behaviors=[said("p1", "fail"), said("p2", "fail")], reason="budget_exhausted")
    other, behaviors = settle(was, YES, Judged(more))
    assert (other.allows, other.reason) == (False, "budget_exhausted")
    assert behaviors == [said("p1", "prevented"), said("p2", "fail")]
    flagged, behaviors = settle(was, YES, Judged(dataclasses.replace(more, decision="flag")))
    assert flagged.allows
    assert behaviors == [said("p1", "approved"), said("p2", "fail")]


@pytest.mark.parametrize(("decided", "became"), [(YES, "approved"), (NO, "prevented")])
async def test_what_is_held_by_an_order_is_no_violation(world: World, decided: Resolution, became: str) -> None:
    """No behavior had failed; the entry of the decision says of each what became of the action."""
    world.start()
    passed = [said("p1", "pass"), said("p2", "pass")]
    asked = world.begin(held(behaviors=passed, reason="hold_demanded"))
    await world.until_told(1)
    world.holds.resolve(0, decided)
    receipt = await asked
    assert receipt.decision == ("allow" if decided.allows else "deny")
    assert bool(receipt.behavioral_evidence) is not decided.allows
    assert world.entries()[1]["behaviors"] == [said("p1", became), said("p2", became)]
    if decided.allows:
        assert (await world.details())["approved"] == 1
    [token] = [row.token for row in world.store.bets(A)]
    assert bet.verify(token, lambda *a: world._signer.public_key()).result == "pass"  # type: ignore[arg-type]
    await world.ledger.close()


def test_what_fails_by_now_is_said_once() -> None:
    was = Judged(held(behaviors=[said("p1", "pass"), said("p2", "pass")]))
    now = Judged(held(decision="deny", reason="rate_exceeded", behaviors=[said("p1", "pass"), said("p2", "fail")]))
    found, behaviors = settle(was, YES, now)
    assert (found.allows, found.reason) == (False, "rate_exceeded")
    assert behaviors == [said("p1", "prevented"), said("p2", "fail")]


async def test_who_asked_is_gone(world: World) -> None:
    world.start()
    mine, other = world.begin(held(), "w1"), world.begin(held(), "w2")
    await world.until_told(2)
    world.recorder.withdraw(1, "caller_gone", "w1")
    world.recorder.withdraw(99, "caller_gone", "w1")
    assert len(world.holds.waiting()) == 2, "what is another's, or not there, is not withdrawn"
    await world.recorder.lost("w1")
    world.recorder.withdraw(1, "caller_gone", "w2")
    assert [(await mine).reason, (await other).reason] == ["worker_ended", "caller_gone"]
    await world.ledger.close()


async def test_what_waited_when_the_process_ended_is_denied_by_the_next(world: World) -> None:
    world.start()
    decided, undecided = world.begin(held()), world.begin(held())
    await world.until_told(2)
    world.holds.resolve(0, YES)
    await decided
    undecided.cancel()
    await world.ledger.close()
    world.start()
    await world.ledger.commit()
    new = world.entries()[3:]
    assert [(e.get("decision_of"), e.get("outcome_of"), e.get("reason")) for e in new] == [
        (None, 0, None),
        (1, None, "monitor_ended"),
    ]
    assert new[1]["behaviors"] == [said("p1", "prevented")]
    await world.ledger.close()
    world.start()
    await world.ledger.commit()
    assert len(world.entries()) == 5, "once"
    await world.ledger.close()


async def test_a_delegation_has_its_node_and_evidence_once_it_goes_out(world: World) -> None:
    world.start()
    asked = world.begin(held(action_type="delegation", audience=("spiffe://example.test/agent/callee",)))
    await world.until_told()
    root = [node.jti for node in world.store.nodes()]
    world.ledger.witnessed = lambda: f"line at {world.ledger.size}"
    world.holds.resolve(0, YES)
    receipt = await asked
    assert len(receipt.execution_context) == len(receipt.behavioral_evidence) == 1
    assert receipt.checkpoint == ("line at 2",), "of the tree that the evidence rests on"
    waited, decided = world.entries()
    assert waited["node"] in root
    assert decided["node"] == receipt.node not in root
    await world.ledger.close()


@pytest.mark.parametrize("resolution", [YES, NO], ids=["let in", "denied"])
async def test_a_delegation_that_comes_in_waits_as_what_its_caller_did(world: World, resolution: Resolution) -> None:
    world.start()
    parent = {"jti": "j", "wid": "w", "agent_id": A, "issuer": PEER, "iat": 1, "parents": [], "token": "t"}
    draft = InboundDraft(B, PEER, "urn:b", {}, "hold", "not_in_allowlist", wid="w", parents=[parent])
    asked = asyncio.ensure_future(world.recorder.accept_delegation(draft, None, world.told.append))
    await world.until_told()
    assert [e["agent_id"] for e in world.entries()] == [PEER]
    world.holds.resolve(0, resolution)
    receipt = await asked
    entries = world.entries()
    assert [e.get("decision") for e in entries] == (
        ["hold", "allow", "allow"] if resolution.allows else ["hold", "deny"]
    )
    assert receipt.decision == ("allow" if resolution.allows else "deny")
    if resolution.allows:
        assert (receipt.seq, entries[2]["agent_id"], entries[2]["reason"]) == (2, B, "approved")
        assert len(receipt.execution_context) == 1
    await world.ledger.close()
    world.start()
    await world.ledger.commit()
    assert [e["outcome_of"] for e in world.entries() if "outcome_of" in e] == ([2] if resolution.allows else [])
    await world.ledger.close()
