"""The recorder over a real ledger: receipts, evidence on each trigger, chains of windows, restarts."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lictor.evidence import agents as module
from lictor.evidence import awaited, bet, ect
from lictor.evidence.bet import Bet
from lictor.evidence.claims import KeyResolver, new_id
from lictor.evidence.issuer import next_due
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import ActionDraft, InboundDraft, OutcomeDraft, PolicyInfo, Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.windows import Window
from lictor.formats import base64url
from lictor.formats.errors import FormatError, LedgerError, UsageError
from lictor.formats.keys import KeySigner

MONITOR, PEER, CALLEE = (
    "spiffe://example.test/monitor/one",
    "spiffe://example.test/monitor/two",
    "spiffe://example.test/agent/callee",
)
A, B = "spiffe://example.test/agent/a", "spiffe://example.test/agent/b"
P = PolicyInfo("urn:p", "1.0.0", "digest-p", {"p1": "critical"})
Q = PolicyInfo("urn:q", "2.0.0", "digest-q", {"q1": "high", "q2": "low"})
DEFAULT = "urn:lictor:policy:default-deny"


class Monitor:
    """A recorder that can be ended and begun again on the same ledger."""

    def __init__(self, opened: Callable[[], tuple[Ledger, SqliteStore]], signer: KeySigner) -> None:
        self._open, self._signer = opened, signer
        self.policies: dict[str, tuple[PolicyInfo, ...]] = {A: (P, Q)}

    def start(self, **options: Any) -> Monitor:
        self.ledger, self.store = self._open()
        self.recorder = Recorder(
            self.ledger,
            self._signer,
            MONITOR,
            lambda agent: self.policies.get(agent, ()),
            **{"interval": 0.0, **options},
            stored=self.store,
        )
        return self

    async def stop(self, orderly: bool = True) -> None:
        if orderly:
            await self.recorder.close()
        await self.ledger.close()

    def bets(self, agent: str = A, policy: str | None = None) -> list[Bet]:
        def resolve(*_: object) -> Any:
            return self._signer.public_key()

        return [bet.verify(row.token, resolve) for row in self.store.bets(agent, policy)]

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self.store.entries()]


@pytest.fixture
async def monitor(open_ledger: Callable[[], tuple[Ledger, SqliteStore]], signer: KeySigner) -> AsyncIterator[Monitor]:
    monitor = Monitor(open_ledger, signer).start()
    yield monitor
    await monitor.ledger.close()


def said(policy: PolicyInfo, behavior: str, result: str = "pass") -> dict[str, str]:
    return {
        "policy_id": policy.policy_id,
        "version": policy.version,
        "binding": policy.digest,
        "behavior_id": behavior,
        "result": result,
    }


def action(agent: str = A, **changes: Any) -> ActionDraft:
    given: dict[str, Any] = {
        "agent_id": agent,
        "action_type": "tool_call",
        "action_target": "urn:x:tool",
        "action_parameters": {"method": "POST"},
        "decision": "allow",
        "reason": "allowed",
        "behaviors": [said(P, "p1"), said(Q, "q1")],
    }
    return ActionDraft(**{**given, **changes})


def inbound(agent: str = B, **changes: Any) -> InboundDraft:
    jti, wid = new_id(), changes.pop("wid", new_id())
    parent = {"jti": jti, "wid": wid, "agent_id": A, "issuer": PEER, "iat": 1_790_000_000, "parents": [], "token": jti}
    given: dict[str, Any] = {
        "agent_id": agent,
        "peer_id": PEER,
        "action_target": agent,
        "action_parameters": {"method": "POST"},
        "decision": "allow",
        "reason": "allowed",
        "wid": wid,
        "parents": [parent],
        "evidence": [{"jti": new_id(), "policy": "urn:p", "result": "pass", "digest": "x"}],
    }
    return InboundDraft(**{**given, **changes})


def covers(one: Bet, entries: list[dict[str, Any]]) -> bool:
    """Whether the BET is about exactly what the log holds of its agent in its window."""
    own = [e for e in entries if e["agent_id"] == one.subject and one.start <= e["timestamp"] < one.end]
    array = json.dumps(own, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return (
        one.evidence == base64url.encode(hashlib.sha256(array).digest())
        and one.ext["count"] == len(own)
        and one.ext["first_seq"] == (own[0]["seq"] if own else one.ext["checkpoint_size"])
    )


def assert_chained(bets: list[Bet]) -> None:
    """Windows of one policy are contiguous, and each BET names the one before."""
    assert bets[0].ext["prev_bet"] is None
    for before, after in itertools.pairwise(bets):
        assert after.start == before.end
        assert after.ext["prev_bet"] == before.jti


async def test_an_allowed_action_is_recorded_and_costs_no_evidence(monitor: Monitor) -> None:
    receipt = await monitor.recorder.record_action(action())
    assert (receipt.seq, receipt.decision, receipt.reason) == (0, "allow", "allowed")
    assert (receipt.execution_context, receipt.behavioral_evidence) == ((), ())
    [entry] = monitor.entries()
    assert entry == {
        "seq": 0,
        "timestamp": receipt.timestamp,
        "agent_id": A,
        "action_type": "tool_call",
        "action_target": "urn:x:tool",
        "action_parameters": {"method": "POST"},
        "decision": "allow",
        "reason": "allowed",
        "behaviors": [said(P, "p1"), said(Q, "q1")],
        "wid": receipt.wid,
        "node": receipt.node,
        "lineage": "root",
    }
    [node] = monitor.store.nodes()
    assert (node.jti, node.wid, node.agent_id, node.origin) == (receipt.node, receipt.wid, A, "minted")
    assert list(monitor.store.bets()) == []


async def test_an_outcome_repeats_what_it_is_about(monitor: Monitor) -> None:
    receipt = await monitor.recorder.record_action(action())
    await monitor.recorder.record_outcome(OutcomeDraft(receipt.seq, {"status": 200}))
    await monitor.recorder.tick()
    entry = monitor.entries()[1]
    assert entry | {"timestamp": 0} == {
        "seq": 1,
        "timestamp": 0,
        "agent_id": A,
        "action_type": "tool_call",
        "action_target": "urn:x:tool",
        "action_parameters": {},
        "wid": receipt.wid,
        "node": receipt.node,
        "outcome_of": 0,
        "outcome": {"status": 200},
    }


async def test_an_outcome_that_is_not_awaited(monitor: Monitor) -> None:
    receipt = await monitor.recorder.record_action(action())
    denied = await monitor.recorder.record_action(action(decision="deny", reason="default_deny", behaviors=[]))
    await monitor.recorder.record_outcome(OutcomeDraft(receipt.seq, {}))
    for seq in (receipt.seq, denied.seq, 99):
        with pytest.raises(UsageError, match=f"of entry {seq}"):
            await monitor.recorder.record_outcome(OutcomeDraft(seq, {}))


async def test_awaited_outcomes_are_bounded(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaited, "MAX_AWAITED", 2)
    for _ in range(3):
        await monitor.recorder.record_action(action())
    with pytest.raises(UsageError):
        await monitor.recorder.record_outcome(OutcomeDraft(0, {}))
    await monitor.recorder.record_outcome(OutcomeDraft(2, {}))
    given_up = next(e for e in monitor.entries() if e.get("outcome_of") == 0)
    assert given_up["outcome"]["error"].startswith("unknown: more than ")


async def test_a_violation_yields_evidence_of_its_policy_at_once(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action())
    receipt = await monitor.recorder.record_action(
        action(decision="deny", reason="not_in_allowlist", behaviors=[said(P, "p1", "fail"), said(Q, "q1")])
    )
    [one] = monitor.bets()
    assert receipt.behavioral_evidence == (one.token,)
    assert (one.policy, one.result, one.parents, one.wid) == ("urn:p", "fail", (receipt.node,), receipt.wid)
    assert one.ext["trigger"] == "violation"
    assert one.ext["refused"] == {"seq": 1, "action_target": "urn:x:tool", "reason": "not_in_allowlist"}
    assert one.details == ({"behavior_id": "p1", "result": "fail", "evaluated": 2, "violations": 1, "prevented": 1},)
    assert one.audience == (MONITOR, A)
    assert "default_denied" not in one.ext
    assert covers(one, monitor.entries())


async def test_a_flagged_violation_refuses_nothing(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action(decision="flag", behaviors=[said(Q, "q1", "fail"), said(Q, "q2")]))
    [one] = monitor.bets()
    assert (one.policy, one.result, "refused" in one.ext) == ("urn:q", "partial", False)
    assert [item["prevented"] for item in one.details] == [0, 0]


async def test_default_deny_yields_evidence_of_every_policy(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action(behaviors=[said(Q, "q1")]))
    receipt = await monitor.recorder.record_action(action(decision="deny", reason="default_deny", behaviors=[]))
    bets = monitor.bets()
    assert receipt.behavioral_evidence == tuple(one.token for one in bets)
    assert [(one.policy, one.result, one.ext["default_denied"]) for one in bets] == [
        ("urn:p", "fail", 1),
        ("urn:q", "partial", 1),
    ]


async def test_an_agent_without_a_policy_is_under_the_default_one(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action(B, decision="deny", reason="default_deny", behaviors=[]))
    [one] = monitor.bets(B)
    assert (one.policy, one.result, one.ext["binding_version"], one.details) == (DEFAULT, "fail", "1.0.0", ())


async def test_a_delegation_takes_its_node_and_the_evidence_along(monitor: Monitor, keys: KeyResolver) -> None:
    first = await monitor.recorder.record_action(action())
    receipt = await monitor.recorder.record_action(action(action_type="delegation", audience=[CALLEE]))
    [token] = receipt.execution_context
    node = ect.verify(token, keys, now=receipt.timestamp, audience={CALLEE}, peer=MONITOR)
    assert (node.jti, node.wid, node.parents) == (receipt.node, first.wid, (first.node,))
    assert (node.subject, node.audience) == (A, (MONITOR, CALLEE))
    bets = [bet.verify(t, keys, now=receipt.timestamp, audience={CALLEE}) for t in receipt.behavioral_evidence]
    assert [one.policy for one in bets] == ["urn:p", "urn:q"]
    for one in bets:
        assert one.parents == (node.jti,)
        assert one.end > receipt.timestamp
        assert (one.ext["count"], one.ext["trigger"], one.ext["checkpoint_size"]) == (2, "delegation", 2)
        assert one.ext["checkpoint_root"] == base64url.encode(monitor.ledger.root())
        assert covers(one, monitor.entries())


async def test_what_witnesses_signed_goes_along_with_a_delegation_and_is_of_the_tree_that_its_evidence_rests_on(
    monitor: Monitor, keys: KeyResolver
) -> None:
    monitor.ledger.witnessed = lambda: f"line at {monitor.ledger.size}"
    for made in (action(action_type="delegation", audience=[CALLEE]), action(action_type="delegation")):
        receipt = await monitor.recorder.record_action(made)
        sizes = [bet.verify(token, keys).ext["checkpoint_size"] for token in receipt.behavioral_evidence]
        assert [receipt.checkpoint] == [(f"line at {size}",) for size in dict.fromkeys(sizes)]
    assert (await monitor.recorder.record_action(action())).checkpoint == ()


async def test_two_delegations_never_share_a_node(monitor: Monitor) -> None:
    receipts = [await monitor.recorder.record_action(action(action_type="delegation")) for _ in range(2)]
    assert receipts[0].node != receipts[1].node
    assert receipts[0].wid == receipts[1].wid


async def test_a_denied_delegation_takes_nothing_along(monitor: Monitor) -> None:
    draft = action(action_type="delegation", decision="deny", reason="x", behaviors=[said(P, "p1", "fail")])
    receipt = await monitor.recorder.record_action(draft)
    assert receipt.execution_context == ()
    assert [one.ext["trigger"] for one in monitor.bets()] == ["violation"]


async def test_the_evidence_of_a_delegation_tells_of_an_earlier_violation(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action(decision="flag", behaviors=[said(Q, "q1", "fail"), said(Q, "q2")]))
    await monitor.recorder.record_action(action())
    await monitor.recorder.record_action(action(action_type="delegation"))
    bets = monitor.bets(policy="urn:q")
    assert [one.result for one in bets] == ["partial", "pass"]
    assert_chained(bets)


async def test_a_delegation_that_comes_in(monitor: Monitor, keys: KeyResolver) -> None:
    draft = inbound()
    receipt = await monitor.recorder.accept_delegation(draft)
    node = ect.verify(receipt.execution_context[0], keys, now=receipt.timestamp, audience={PEER})
    assert (node.jti, node.wid, node.parents) == (receipt.node, draft.wid, (draft.parents[0]["jti"],))
    assert node.subject == B
    [entry] = monitor.entries()
    assert (entry["agent_id"], entry["action_type"], entry["wid"], entry["node"]) == (
        B,
        "delegation",
        node.wid,
        node.jti,
    )
    assert entry["action_parameters"] == {
        "method": "POST",
        "direction": "inbound",
        "peer": PEER,
        "caller": A,
        "parents": [draft.parents[0]["jti"]],
        "evidence": draft.evidence,
    }
    assert {(row.jti, row.origin) for row in monitor.store.nodes(draft.wid)} == {
        (node.jti, "minted"),
        (draft.parents[0]["jti"], "received"),
    }


async def test_work_for_a_delegation_belongs_to_its_workflow_until_it_is_finished(monitor: Monitor) -> None:
    receipt = await monitor.recorder.accept_delegation(inbound(A))
    during = await monitor.recorder.record_action(action())
    assert (during.wid, during.node) == (receipt.wid, receipt.node)
    assert monitor.entries()[1]["lineage"] == "inferred"
    monitor.recorder.finish_delegation(receipt.node)
    monitor.recorder.finish_delegation(receipt.node)
    after = await monitor.recorder.record_action(action())
    assert after.wid != receipt.wid
    with pytest.raises(UsageError, match="no delegation"):
        await monitor.recorder.delegation_response(receipt.node)


async def test_the_response_carries_node_and_evidence(monitor: Monitor, keys: KeyResolver) -> None:
    receipt = await monitor.recorder.accept_delegation(inbound(A))
    await monitor.recorder.record_action(action())
    tokens = await monitor.recorder.delegation_response(receipt.node)
    assert tokens.execution_context == receipt.execution_context
    again = await monitor.recorder.delegation_response(receipt.node)
    bets = [bet.verify(t, keys, audience={PEER}) for t in (*tokens.behavioral_evidence, *again.behavioral_evidence)]
    assert [(one.policy, one.result, one.ext["count"]) for one in bets] == [
        ("urn:p", "pass", 2),
        ("urn:q", "pass", 2),
        ("urn:p", "pass", 0),
        ("urn:q", "pass", 0),
    ]
    assert bets[2].evidence == bet.EMPTY_EVIDENCE
    assert all(one.parents == (receipt.node,) and one.ext["trigger"] == "response" for one in bets)
    assert_chained([bets[0], bets[2]])
    entries = monitor.entries()
    assert all(covers(one, entries) for one in bets)


async def test_a_refused_delegation_is_a_violation_of_its_caller_and_no_stain_on_the_agent(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action())
    draft = inbound(A, decision="deny", reason="bet_invalid", detail="why", parents=(), evidence=(), wid=None)
    receipt = await monitor.recorder.accept_delegation(draft)
    assert (receipt.decision, receipt.reason, receipt.detail) == ("deny", "bet_invalid", "why")
    assert receipt.execution_context == ()
    entry = monitor.entries()[1]
    assert (entry["agent_id"], entry["decision"], entry["reason"]) == (PEER, "deny", "bet_invalid")
    assert (entry["action_parameters"]["callee"], entry["action_parameters"]["refused"]) == (A, "why")
    [anomaly] = monitor.bets(agent=PEER)
    assert (anomaly.result, anomaly.ext["trigger"], anomaly.ext["refused"]["reason"]) == (
        "fail",
        "violation",
        "bet_invalid",
    )
    assert receipt.behavioral_evidence == (anomaly.token,)
    await monitor.recorder.tick()
    assert [(one.result, one.ext["count"]) for one in monitor.bets(agent=A)] == [("pass", 1), ("pass", 1)]


async def test_a_node_is_taken_once_also_after_a_restart(monitor: Monitor) -> None:
    draft = inbound()
    draft.parents[0]["iat"] = int(monitor.ledger.now())  # type: ignore[index]
    assert (await monitor.recorder.accept_delegation(draft)).decision == "allow"
    again = await monitor.recorder.accept_delegation(draft)
    assert (again.decision, again.reason) == ("deny", "ect_replayed")
    await monitor.stop()
    monitor.start()
    again = await monitor.recorder.accept_delegation(draft)
    assert (again.decision, again.reason) == ("deny", "ect_replayed")
    assert monitor.entries()[-1]["reason"] == "ect_replayed"


async def test_what_a_node_comes_after_is_known_or_said_to_be_pending_also_after_a_restart(monitor: Monitor) -> None:
    first = inbound()
    await monitor.recorder.accept_delegation(first)
    known, unknown = first.parents[0]["jti"], new_id()
    wid = first.wid or ""
    for restarted in (False, True):
        if restarted:
            await monitor.stop()
            monitor.start()
        after = inbound(wid=wid)
        after.parents[0]["parents"] = [known, unknown]  # type: ignore[index]
        assert (await monitor.recorder.accept_delegation(after)).decision == "allow"
        assert monitor.entries()[-1]["action_parameters"]["pending_parents"] == 1
        lie = inbound()
        lie.parents[0]["parents"] = [known]  # type: ignore[index]
        receipt = await monitor.recorder.accept_delegation(lie)
        words = (
            f"Execution-Context: the predecessor {known} of node {lie.parents[0]['jti']} is of another workflow ({wid})"
        )
        assert (receipt.decision, receipt.reason, receipt.detail) == ("deny", "ect_invalid", words)
        assert monitor.entries()[-1]["action_parameters"]["refused"] == words
        again = await monitor.recorder.accept_delegation(lie)
        assert (again.decision, again.reason) == ("deny", "ect_replayed"), "what was refused is taken"


async def test_the_interval_closes_windows_that_have_entries(monitor: Monitor) -> None:
    await monitor.recorder.tick()
    await monitor.recorder.record_action(action())
    await monitor.recorder.tick()
    await monitor.recorder.tick()
    await monitor.recorder.record_action(action())
    await monitor.recorder.tick()
    bets = monitor.bets(policy="urn:p")
    assert [(one.ext["trigger"], one.ext["count"], one.ext["first_seq"]) for one in bets] == [
        ("interval", 1, 0),
        ("interval", 1, 1),
    ]
    assert_chained(bets)


async def test_the_interval_is_kept(open_ledger: Any, signer: KeySigner) -> None:
    monitor = Monitor(open_ledger, signer).start(interval=3600.0)
    await monitor.recorder.record_action(action())
    await monitor.recorder.tick()
    assert monitor.bets() == []
    await monitor.stop(orderly=False)


async def test_violations_do_not_put_off_the_interval_of_other_policies(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action())
    await monitor.recorder.record_action(action(decision="deny", reason="x", behaviors=[said(P, "p1", "fail")]))
    await monitor.recorder.tick()
    assert [(one.policy, one.ext["trigger"]) for one in monitor.bets()] == [
        ("urn:p", "violation"),
        ("urn:q", "interval"),
    ]


def test_the_interval_cannot_be_foretold() -> None:
    ends = [next_due(1000.0, 60.0, 0.2) for _ in range(500)]
    assert 1048.0 <= min(ends) < 1054.0
    assert 1066.0 < max(ends) <= 1072.0
    assert len(set(ends)) > 490
    assert next_due(1000.0, 60.0, 0.0) == 1060.0


async def test_windows_are_contiguous_over_a_shutdown(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action())
    await monitor.stop()
    monitor.start()
    await monitor.recorder.record_action(action())
    await monitor.recorder.tick()
    bets = monitor.bets(policy="urn:p")
    assert [one.ext["trigger"] for one in bets] == ["shutdown", "interval"]
    assert_chained(bets)
    assert all(covers(one, monitor.entries()) for one in bets)


async def test_windows_are_contiguous_over_a_crash(monitor: Monitor) -> None:
    for agent in (A, B, A):
        await monitor.recorder.record_action(action(agent))
        await monitor.recorder.tick()
    receipt = await monitor.recorder.record_action(action())
    await monitor.recorder.record_outcome(OutcomeDraft(receipt.seq, {"status": 200}))
    await monitor.recorder.record_action(action(decision="deny", reason="x", behaviors=[said(Q, "q1", "fail")]))
    await monitor.stop(orderly=False)
    monitor.start()
    await monitor.recorder.record_action(action())
    await monitor.recorder.tick()
    entries = monitor.entries()
    for policy in ("urn:p", "urn:q"):
        bets = monitor.bets(policy=policy)
        assert_chained(bets)
        assert all(covers(one, entries) for one in bets)
    last = monitor.bets(policy="urn:p")[-1]
    assert (last.ext["count"], last.details[0]["evaluated"]) == (6, 2), "with the outcomes unknown of both before"
    assert last.result == "pass"


async def test_what_was_denied_is_not_forgotten_over_a_crash(monitor: Monitor) -> None:
    """The verdict of one policy is in the evidence of another as it was before, neither better nor worse."""
    await monitor.recorder.record_action(action())
    await monitor.recorder.record_action(action(decision="flag", behaviors=[said(Q, "q1", "fail")]))
    await monitor.recorder.record_action(action(decision="deny", reason="x", behaviors=[said(P, "p1", "fail")]))
    await monitor.recorder.record_action(action(decision="flag", behaviors=[said(Q, "q1"), said(Q, "q2")]))
    for seq in (0, 1, 3):
        await monitor.recorder.record_outcome(OutcomeDraft(seq, {}))
    live = {w.policy.policy_id: (w.result(), w.evidence(), w.tallies) for w in windows_of(monitor)}
    await monitor.stop(orderly=False)
    monitor.start()
    assert {w.policy.policy_id: (w.result(), w.evidence(), w.tallies) for w in windows_of(monitor)} == live
    assert [w.default_denied for w in windows_of(monitor)] == [0, 0]


def windows_of(monitor: Monitor) -> tuple[Window, ...]:
    return monitor.recorder._agents.get(A).windows.open


async def test_a_binding_that_changed_while_nothing_ran_judged_its_own_entries_only(monitor: Monitor) -> None:
    document = {"expected_behaviors": [{"behavior_id": "p1", "severity": "critical"}, {"behavior_id": "p2"}]}
    monitor.ledger.put_document("binding", P.digest, document)
    await monitor.recorder.record_action(action())
    await monitor.stop(orderly=False)
    newer = PolicyInfo("urn:p", "1.1.0", "digest-new", {"p1": "low"})
    monitor.policies[A] = (newer,)
    monitor.start()
    await monitor.recorder.record_action(action(behaviors=[said(newer, "p1")]))
    await monitor.recorder.tick()
    bets = monitor.bets(policy="urn:p")
    assert [(one.ext["trigger"], one.ext["binding_version"], one.ext["binding_digest"]) for one in bets] == [
        ("reload", "1.0.0", "digest-p"),
        ("interval", "1.1.0", "digest-new"),
    ]
    assert [item["behavior_id"] for item in bets[0].details] == ["p1", "p2"]
    assert_chained(bets)
    [ended] = monitor.bets(policy="urn:q")
    assert ended.ext["trigger"] == "reload"


async def test_reload_ends_what_applies_no_longer_and_begins_what_does(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action())
    monitor.policies[A] = (P,)
    await monitor.recorder.reload()
    assert [(one.policy, one.ext["trigger"]) for one in monitor.bets()] == [("urn:q", "reload")]
    await monitor.recorder.record_action(action(behaviors=[said(P, "p1")]))
    monitor.policies[A] = (P, Q)
    await monitor.recorder.reload()
    await monitor.recorder.record_action(action())
    await monitor.recorder.tick()
    entries = monitor.entries()
    assert [(one.policy, one.ext["count"], one.ext["prev_bet"]) for one in monitor.bets()[1:]] == [
        ("urn:p", 3, None),
        ("urn:q", 1, None),
    ]
    assert all(covers(one, entries) for one in monitor.bets())


async def test_an_ended_window_stays_ended_over_a_restart(monitor: Monitor) -> None:
    await monitor.recorder.record_action(action())
    monitor.policies[A] = (P,)
    await monitor.recorder.reload()
    await monitor.recorder.record_action(action(behaviors=[said(P, "p1")]))
    await monitor.stop(orderly=False)
    monitor.start()
    await monitor.recorder.tick()
    assert [one.ext["count"] for one in monitor.bets(policy="urn:q")] == [1]


@pytest.mark.parametrize("altered", ["first_seq = 2", "first_seq = -3", "first_seq = 'x'", "start = 'x'"])
async def test_a_window_that_cannot_be_is_not_taken_up(monitor: Monitor, altered: str) -> None:
    """One that begins with an entry to come would leave those before it out of every BET."""
    await monitor.recorder.record_action(action())
    await monitor.stop(orderly=False)
    with contextlib.closing(sqlite3.connect(monitor.store.path)) as db:
        db.execute(f"UPDATE windows SET {altered} WHERE policy_id = 'urn:p'")
        db.commit()
    with pytest.raises(LedgerError, match=f"the window of {A} under urn:p began at .*, of 1: it was altered"):
        monitor.start()


async def test_an_idle_window_needs_no_long_way_back(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANCHOR", 2)
    await monitor.recorder.record_action(action(A))
    await monitor.recorder.tick()
    for _ in range(4):
        await monitor.recorder.record_action(action(B))
    await monitor.recorder.tick()
    rows = {(row.agent_id, row.policy_id): row for row in monitor.store.windows()}
    assert rows[A, "urn:p"].first_seq == 5
    await monitor.recorder.record_action(action(A))
    await monitor.recorder.tick()
    bets = monitor.bets(policy="urn:p")
    assert_chained(bets)
    assert covers(bets[-1], monitor.entries())


async def test_a_batch_holds_the_entry_and_what_it_caused(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    append = monitor.store.append
    monkeypatch.setattr(monitor.store, "append", lambda batch: (batches.append(batch), append(batch))[1])
    await monitor.recorder.record_action(action(action_type="delegation"))
    [batch] = batches
    assert (len(batch.entries), len(batch.bets), len(batch.nodes)) == (1, 2, 2)


async def test_no_receipt_without_a_durable_entry(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise LedgerError("no space left on device")

    monkeypatch.setattr(monitor.store, "append", full)
    with pytest.raises(LedgerError):
        await monitor.recorder.record_action(action())
    with pytest.raises(LedgerError):
        await monitor.recorder.record_action(action())
    with pytest.raises(LedgerError):
        await monitor.ledger.close()


async def test_what_has_no_canonical_form_is_not_recorded(monitor: Monitor) -> None:
    with pytest.raises(FormatError):
        await monitor.recorder.record_action(action(action_parameters={"x": float("nan")}))
    receipt = await monitor.recorder.record_action(action())
    assert receipt.seq == 0
    await monitor.recorder.tick()
    assert all(covers(one, monitor.entries()) for one in monitor.bets())


async def test_the_audience_of_the_configuration_is_in_every_token(open_ledger: Any, signer: KeySigner) -> None:
    monitor = Monitor(open_ledger, signer).start(audience=("spiffe://example.test/verifier",))
    receipt = await monitor.recorder.record_action(action(action_type="delegation", audience=(CALLEE,)))
    assert {one.audience for one in monitor.bets()} == {("spiffe://example.test/verifier", CALLEE)}
    assert receipt.execution_context
    await monitor.stop()
