"""Open delegations and revoked ones: which actions are work of them, what ends, what is refused from then on."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lictor.evidence import ect, lineage, revoked
from lictor.evidence.claims import new_id
from lictor.evidence.entry import ActionDraft, InboundDraft, OutcomeDraft, Receipt
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.runs import encode, parse_common, parse_run
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner

MONITOR, PEER = "spiffe://e.test/monitor/one", "spiffe://e.test/monitor/two"
AGENT, OTHER, CALLER = (f"spiffe://e.test/agent/{name}" for name in ("b", "other", "a"))
P = PolicyInfo("urn:p", "1.0.0", "d", {"b": "high"})
TRACE = "00-12345678901234567890123456789012-1234567890123456-01"
SAID = {"policy_id": "urn:p", "version": "1.0.0", "binding": "d", "behavior_id": "b", "result": "pass"}


class World:
    """A recorder that can be begun again on the same ledger."""

    def __init__(self, opened: Callable[[], tuple[Ledger, SqliteStore]], signer: KeySigner) -> None:
        self._open, self._signer = opened, signer

    def start(self) -> World:
        self.ledger, self.store = self._open()
        self.recorder = Recorder(self.ledger, self._signer, MONITOR, lambda agent: (P,), stored=self.store)
        return self

    async def again(self) -> None:
        await self.ledger.close()
        self.start()

    async def arrive(self, trace: str | None = None, wid: str = "") -> tuple[str, str, Receipt]:
        """A delegation comes in: the line that came along, that of the agent, and the receipt."""
        came = ect.mint(
            self._signer, issuer=PEER, subject=CALLER, audience=[MONITOR], wid=wid or new_id(), parents=(new_id(),),
            now=self.ledger.now(),
        )  # fmt: skip
        row = {"jti": came.jti, "wid": came.wid, "agent_id": CALLER, "issuer": PEER, "iat": came.iat}
        receipt = await self.take(row | {"parents": came.parents, "token": came.token}, trace)
        return came.token, receipt.execution_context[0], receipt

    async def take(self, parent: dict[str, Any], trace: str | None = None) -> Receipt:
        draft = InboundDraft(
            AGENT, PEER, "urn:me", {}, "allow", "allowed", wid=parent["wid"], parents=[parent], traceparent=trace
        )
        return await self.recorder.accept_delegation(draft, "worker")

    async def act(self, *lines: str, trace: str | None = None, agent: str = AGENT, **changes: Any) -> Receipt:
        given = {"action_type": "tool_call", "decision": "allow", "reason": "allowed", **changes}
        draft = ActionDraft(agent, action_target="urn:x", action_parameters={}, behaviors=[SAID], **given)
        with_lines = ActionDraft(**{**_fields(draft), "execution_context": lines, "traceparent": trace})
        return await self.recorder.record_action(with_lines, "worker")

    async def revoke(self, node: str, why: str = "why") -> tuple[Any, list[int]]:
        await self.ledger.commit()
        found = self.recorder.delegations.revoke(node, "user:me", why, self.store.workflow_of(node))
        await self.ledger.commit()
        return found

    def open(self) -> list[str]:
        return [one.node for one in self.recorder.delegations.open()]


def _fields(draft: ActionDraft) -> dict[str, Any]:
    return {name: getattr(draft, name) for name in draft.__slots__}


def jti(line: str) -> str:
    from lictor.formats import jws

    return str(jws.parse_compact(line, typ=ect.ACCEPTED_TYP).claims()["jti"])


@pytest.fixture
async def world(open_ledger: Callable[[], tuple[Ledger, SqliteStore]], signer: KeySigner) -> AsyncIterator[World]:
    made = World(open_ledger, signer).start()
    yield made
    await made.ledger.close()


async def test_what_is_open(world: World) -> None:
    came, _, receipt = await world.arrive()
    sent = await world.act(action_type="delegation", audience=(OTHER,))
    inbound, outgoing = (one.to_json() for one in world.recorder.delegations.open())
    assert inbound == {
        "node": receipt.node, "direction": "in", "agent": AGENT, "other": CALLER, "wid": receipt.wid,
        "entry": receipt.seq, "since": receipt.timestamp, "monitor": PEER, "came": (jti(came),),
    }  # fmt: skip
    assert outgoing == {
        "node": sent.node, "direction": "out", "agent": AGENT, "other": "urn:x", "wid": receipt.wid, "entry": sent.seq,
        "since": sent.timestamp,
    }  # fmt: skip
    world.recorder.finish_delegation(receipt.node)
    await world.recorder.record_outcome(OutcomeDraft(sent.seq, {"status": 200}))
    assert world.open() == []


async def named_by(world: World, which: str) -> tuple[str, Receipt, str]:
    """A delegation, and the id of a node by which it may be revoked."""
    came, own, receipt = await world.arrive()
    if which == "the node that came along":
        return jti(came), receipt, own
    if which == "a continuation":
        lineage = world.recorder._agents.get(AGENT).lineage
        strand = lineage._open[receipt.node]
        lineage._refresh(strand, world.ledger.now() + ect.FRESH + 1)
        return strand.node.jti, receipt, own
    return receipt.node, receipt, own


@pytest.mark.parametrize("which", ["the node of the agent", "the node that came along", "a continuation"])
async def test_revoked_by_any_of_its_nodes(world: World, which: str) -> None:
    node, receipt, own = await named_by(world, which)
    action = await world.act(own)
    given, ended = await world.revoke(node)
    assert (given.node, ended) == (receipt.node, [receipt.seq, action.seq])
    denied = await world.act(own)
    assert (denied.decision, denied.reason, denied.node) == ("deny", "delegation_revoked", receipt.node)
    assert denied.behavioral_evidence, "a refusal carries evidence"
    entry = json.loads(next(data for seq, data in world.store.entries() if seq == given.entry))
    said = entry["action_parameters"]
    assert (entry["action_type"], said["by"], said["why"]) == ("delegation_revoked", "user:me", "why")
    assert (said["node"], said["agent"], said["ended"]) == (receipt.node, AGENT, ended)
    assert await world.revoke(node, "again") == (given, []), "once"


async def test_what_may_be_work_of_it_ends_and_what_is_of_another_goes_on(world: World) -> None:
    _, first, one = await world.arrive()
    _, second, two = await world.arrive()
    of_first, of_second, of_either = await world.act(first), await world.act(second), await world.act()
    handed = await world.act(first, action_type="delegation", audience=(OTHER,))
    before = await world.act(agent=OTHER)
    _, ended = await world.revoke(one.node)
    assert ended == [one.seq, of_first.seq, of_either.seq, handed.seq]
    assert not {of_second.seq, before.seq, two.seq} & set(ended)
    assert world.open() == [two.node, handed.node], "until the worker has ended it"
    assert (await world.act(second)).decision == "allow"
    assert (await world.act()).node == (await world.act(second)).node, "taken for the one that is open"
    assert (await world.act(first, second)).decision == "deny", "it names both"
    assert (await world.act(first, agent=OTHER)).decision == "deny", "whoever names it"
    assert (await world.act(first, action_type="delegation", audience=(OTHER,))).execution_context == ()
    assert (await world.act(agent=OTHER)).decision == "allow"
    with pytest.raises(UsageError, match="no delegation with the node"):
        await world.recorder.delegation_response(one.node)


@pytest.mark.parametrize("restarted", [False, True])
async def test_with_nothing_else_open_it_is_taken_for_it_for_a_while(
    world: World, restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.act()
    _, own, receipt = await world.arrive(TRACE)
    given, _ = await world.revoke(receipt.node)
    if restarted:
        await world.again()
    denied = await world.act()
    assert (denied.decision, denied.node) == ("deny", receipt.node)
    assert run(world) is None, "runs are looked at one by one"
    assert (await world.act(agent=OTHER)).decision == "allow"
    clock = itertools.count(given.until + 1)
    monkeypatch.setattr(world.ledger, "now", lambda: next(clock))
    assert (await world.act()).decision == "allow"
    assert (await world.act(own)).decision == "deny"
    assert (await world.act(trace=TRACE)).decision == "deny"
    _, _, new = await world.arrive(TRACE)
    assert (await world.act(trace=TRACE)).node == new.node, "the trace goes on with other work"


def run(world: World) -> Any:
    draft = ActionDraft(AGENT, "tool_call", "urn:x", {}, "allow", "allowed", [SAID])
    common, head = encode(draft)
    return world.recorder.enter_run(parse_run(parse_common(common), head))


async def test_runs_go_on_where_nothing_was_revoked(world: World) -> None:
    await world.act()
    assert run(world) is not None


async def test_what_waits_for_a_person_is_denied(world: World) -> None:
    _, own, receipt = await world.arrive()
    asked = asyncio.create_task(world.act(own, decision="hold", reason="x"))
    other = asyncio.create_task(world.act(agent=OTHER, decision="hold", reason="x"))
    while len(world.recorder._holds.waiting()) < 2:
        await asyncio.sleep(0)
    await world.revoke(receipt.node)
    answer = await asked
    assert (answer.decision, answer.reason) == ("deny", "delegation_revoked")
    assert "revoked" in answer.detail
    assert not other.done()
    other.cancel()


async def test_an_approval_that_comes_too_late(world: World) -> None:
    """It was given, and the delegation revoked, before the action could go out."""
    from lictor.evidence.entry import Resolution

    _, own, receipt = await world.arrive()
    asked = asyncio.create_task(world.act(own, decision="hold", reason="x"))
    while not world.recorder._holds.waiting():
        await asyncio.sleep(0)
    [waiting] = world.recorder._holds.waiting()
    world.recorder._holds.resolve(waiting.seq, Resolution(True, "approved", "user:me"))
    world.recorder.delegations.revoke(receipt.node, "user:me", "", [])
    answer = await asked
    assert (answer.decision, answer.reason) == ("deny", "delegation_revoked")


@pytest.mark.parametrize("restarted", [False, True])
async def test_it_is_not_taken_up_again(world: World, restarted: bool) -> None:
    came, _, receipt = await world.arrive()
    await world.revoke(receipt.node)
    if restarted:
        await world.again()
    parent = {"jti": jti(came), "wid": receipt.wid, "agent_id": CALLER, "issuer": PEER, "iat": 1, "parents": ()}
    refused = await world.take({**parent, "token": came})
    assert (refused.decision, refused.reason) == ("deny", "delegation_revoked")
    assert "was revoked" in refused.detail


async def test_one_that_went_out(world: World) -> None:
    own = await world.act()
    sent = await world.act(action_type="delegation", audience=(OTHER,))
    given, ended = await world.revoke(sent.node)
    assert (given.direction, ended) == ("out", [sent.seq])
    assert (await world.act(sent.execution_context[0])).decision == "deny", "it is handed to nobody again"
    assert (await world.act()).node == own.node, "the agent's own work goes on"


async def test_one_that_is_over(world: World) -> None:
    """What names it from now on is refused, by a line or by the trace; nothing else is taken for it."""
    came, own, receipt = await world.arrive(TRACE)
    handed = await world.act(own, action_type="delegation", audience=(OTHER,))
    world.recorder.finish_delegation(receipt.node)
    await world.again()
    given, ended = await world.revoke(jti(came))
    assert (given.node, given.direction, ended) == (receipt.node, "in", [])
    for line in (came, own, handed.execution_context[0]):
        assert (await world.act(line)).decision == "deny"
    denied = await world.act(trace=TRACE)
    assert (denied.decision, denied.node) == ("deny", receipt.node)
    assert (await world.act()).decision == "allow"
    assert (await world.act(trace=TRACE.replace("12345678", "22345678", 1))).decision == "allow"
    assert (await world.act(trace=TRACE, agent=OTHER)).decision == "allow"
    await world.again()
    assert (await world.act(trace=TRACE)).decision == "deny"
    _, _, new = await world.arrive(TRACE)
    assert (await world.act(trace=TRACE)).node == new.node, "the trace goes on with other work"


@pytest.mark.parametrize("work", ["one delegation", "two delegations", "two workflows", "its own"])
async def test_one_that_is_over_by_a_node_of_later_work(
    world: World, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    """The operator has it from the entry of an action, which the agent did much later."""
    receipts = []
    if work != "its own":
        came, own, receipt = await world.arrive(TRACE)
        receipts.append(receipt)
    if work.startswith("two"):
        receipts.append((await world.arrive(wid="" if work == "two workflows" else receipt.wid))[2])
    monkeypatch.setattr(lineage, "FRESH", -1)  # everything has a node of its own
    first, _, later = await world.act(), await world.act(), await world.act()
    handed = await world.act(action_type="delegation", audience=(OTHER,))
    assert later.node != first.node
    for one in receipts:
        world.recorder.finish_delegation(one.node)
    await world.again()
    if work != "one delegation":
        with pytest.raises(UsageError, match="own work and no delegation" if work == "its own" else "of several"):
            await world.revoke(later.node)
    else:
        given, _ = await world.revoke(later.node)
        assert (given.node, given.direction) == (receipt.node, "in")
        assert [(await world.act(line)).decision for line in (came, own)] == ["deny", "deny"]
        assert (await world.act(trace=TRACE)).decision == "deny"
        return
    given, _ = await world.revoke(handed.node)
    assert (given.node, given.direction) == (handed.node, "out")


async def test_what_is_no_delegation(world: World) -> None:
    root = await world.act()
    _, _, one = await world.arrive()
    _, _, two = await world.arrive()
    join = await world.act()
    for node, text in (
        (new_id(), "no delegation with the node"),
        (root.node, "own work and no delegation"),
        (join.node, f"of several delegations; revoke those you mean: {one.node}, {two.node}"),
    ):
        with pytest.raises(UsageError, match=text):
            await world.revoke(node)
    assert world.recorder.delegations.revoked() == []


async def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoked, "MOST", 2)
    monkeypatch.setattr(revoked, "MOST_SAID", 1)
    receipts = [(await world.arrive())[2] for _ in range(3)]
    for receipt in receipts:
        await world.act()
        await world.revoke(receipt.node)
    assert [len(world.recorder._awaited.work_of(receipt.node)) for receipt in receipts] == [2, 3, 4]
    kept = [one.node for one in world.recorder.delegations.revoked()]
    assert kept == [receipt.node for receipt in receipts[1:]]
    entries = [json.loads(data) for _, data in world.store.entries()]
    said = [e["action_parameters"] for e in entries if e["action_type"] == "delegation_revoked"]
    assert [(len(one["ended"]), one.get("ended_omitted")) for one in said] == [(1, 1), (1, 2), (1, 3)]


async def test_a_denied_draft_stays_as_it_was(world: World) -> None:
    _, own, receipt = await world.arrive()
    await world.revoke(receipt.node)
    assert (await world.act(own, decision="deny", reason="default_deny")).reason == "default_deny"
    assert (await world.act("no.token", own)).reason == "delegation_revoked", "beside what is no token"
