"""The memories of the running monitor: exact under concurrency, the same after a restart, taken over at a reload."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from remembering import PEER, TOOL, A, Monitor, bound, draft, handed, rate

from lictor.bindings.criteria.rate import RateMemory
from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.evidence.entry import InboundDraft, OutcomeDraft, Resolution
from lictor.evidence.sqlite_store import SqliteReader
from lictor.formats import base64url
from lictor.proxy import state as module
from lictor.proxy.state import State, first_since


@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    return Monitor(tmp_path)


async def test_exactly_the_limit_goes_out_of_many_at_once(monitor: Monitor) -> None:
    monitor.start(bound(rate(7)))
    decisions = await asyncio.gather(*(monitor.act() for _ in range(100)))
    assert sorted(set(decisions)) == [("allow", "allowed"), ("deny", "rate_exceeded")]
    assert decisions.count(("allow", "allowed")) == 7
    assert [e["decision"] for e in monitor.entries()].count("allow") == 7
    await monitor.ledger.close()


async def test_the_receipt_of_a_denial_names_behavior_and_way_out(monitor: Monitor) -> None:
    monitor.start(bound({"type": "denylist", "values": []}, rate(1)))
    said = {"policy_id": "urn:p", "version": "1.0.0", "binding": "d", "behavior_id": "b0", "result": "pass"}
    await monitor.recorder.record_action(draft(behaviors=[said]))
    receipt = await monitor.recorder.record_action(draft(behaviors=[said]))
    assert "try again in" in receipt.detail
    assert receipt.behavior is not None
    assert (receipt.behavior["behavior_id"], receipt.behavior["result"]) == ("b1", "fail")
    assert receipt.behavioral_evidence
    first, second = monitor.entries()
    assert [b["result"] for b in first["behaviors"]] == ["pass", "pass"]
    assert [b["result"] for b in second["behaviors"]] == ["pass", "fail"]
    await monitor.ledger.close()


async def test_a_restart_forgets_nothing(monitor: Monitor) -> None:
    monitor.start(bound(rate(3)))
    assert [(await monitor.act())[0] for _ in range(2)] == ["allow", "allow"]
    await monitor.ledger.close()
    monitor.start(bound(rate(3)))
    assert [(await monitor.act())[0] for _ in range(3)] == ["allow", "deny", "deny"]
    await monitor.ledger.close()


async def test_what_was_denied_does_not_count(monitor: Monitor) -> None:
    monitor.start(bound(rate(1)))
    assert await monitor.act(decision="deny", reason="not_in_allowlist") == ("deny", "not_in_allowlist")
    assert await monitor.act() == ("allow", "allowed")
    await monitor.ledger.close()


async def test_audit_counts_and_lets_pass(monitor: Monitor) -> None:
    monitor.start(bound(rate(1), mode="audit"))
    assert [await monitor.act() for _ in range(2)] == [("allow", "allowed"), ("flag", "audit:rate_exceeded")]
    assert await monitor.act(decision="flag", reason="first", behaviors=[]) == ("flag", "first")
    await monitor.ledger.close()


async def test_an_action_that_nothing_judged_is_denied(monitor: Monitor) -> None:
    """The worker knew of a stateful behavior that is no longer in force."""
    monitor.start(bound(rate(1), targets=["urn:example:tool:y"]))
    assert await monitor.act() == ("deny", "default_deny")
    assert await monitor.act("urn:example:tool:y") == ("allow", "allowed")
    await monitor.ledger.close()


async def test_a_delegation_that_comes_in_counts_for_the_peer(monitor: Monitor) -> None:
    monitor.start(bound(rate(1)))

    def inbound(n: int) -> InboundDraft:
        parent = {"jti": f"j{n}", "wid": "w", "agent_id": PEER, "issuer": PEER, "iat": 1, "parents": [], "token": "t"}
        return InboundDraft(A, PEER, TOOL, {}, "allow", "allowed", wid="w", parents=[parent])

    assert (await monitor.recorder.accept_delegation(inbound(1))).decision == "allow"
    second = await monitor.recorder.accept_delegation(inbound(2))
    assert (second.decision, second.reason) == ("deny", "rate_exceeded")
    assert (await monitor.act())[0] == "allow"
    await monitor.ledger.close()
    monitor.start(bound(rate(1)))
    assert (await monitor.recorder.accept_delegation(inbound(3))).reason == "rate_exceeded"
    await monitor.ledger.close()


def chain(**asked: Any) -> tuple[Binding, ...]:
    behavior = {
        "behavior_id": "chain",
        "observable_actions": ["delegation"],
        "compliance_criteria": {"type": "delegation", **asked},
    }
    document = {"policy_id": "urn:p", "version": "1.0.0", "evaluation_mode": "continuous"}
    return (load_binding(json.dumps({**document, "expected_behaviors": [behavior]}).encode(), "test"),)


async def test_what_a_caller_shows_is_judged_recorded_as_its_action_and_counted(monitor: Monitor) -> None:
    monitor.start(chain(incoming={"result": "pass", "max_depth": 2}))
    good = await monitor.recorder.accept_delegation(handed(1))
    assert (good.decision, good.reason) == ("allow", "allowed")
    bad = await monitor.recorder.accept_delegation(handed(2, result="partial"))
    assert (bad.decision, bad.reason, bad.execution_context) == ("deny", "result_not_accepted", ())
    assert bad.behavior is not None
    assert bad.behavior["behavior_id"] == "chain"
    assert "must be pass" in bad.detail
    assert len(bad.behavioral_evidence) == 1, "the violation is told at once"
    deep = await monitor.recorder.accept_delegation(handed(3, depth=3))
    assert deep.reason == "chain_too_deep"
    entry = monitor.entries()[1]
    assert (entry["agent_id"], entry["decision"], entry["reason"]) == (PEER, "deny", "result_not_accepted")
    assert [b["result"] for b in entry["behaviors"]] == ["fail"]
    parameters = entry["action_parameters"]
    assert (parameters["callee"], parameters["evidence"][0]["result"], parameters["depth"]) == (A, "partial", 1)
    assert [row.jti for row in monitor.store.nodes() if row.origin == "received"] == [
        f"00000000-0000-4000-8000-{1:012}"
    ]
    assert (await monitor.recorder.accept_delegation(handed(2))).decision == "allow", "what was refused was not taken"
    await monitor.ledger.close()


async def test_audit_of_what_a_caller_shows_is_recorded_and_lets_in(monitor: Monitor) -> None:
    (binding,) = chain(incoming={"result": "pass"})
    monitor.start((dataclasses.replace(binding, mode="audit"),))
    receipt = await monitor.recorder.accept_delegation(handed(1, result="fail"))
    assert (receipt.decision, receipt.reason) == ("flag", "audit:result_not_accepted")
    assert receipt.execution_context
    assert monitor.entries()[0]["decision"] == "flag"
    await monitor.ledger.close()


async def test_an_incoming_delegation_that_nothing_judged_is_denied(monitor: Monitor) -> None:
    monitor.start(bound(rate(1), targets=["urn:example:tool:y"]))
    assert (await monitor.recorder.accept_delegation(handed(1))).reason == "default_deny"
    behaviors = [said_pass()]
    assert (await monitor.recorder.accept_delegation(handed(2, behaviors=behaviors))).decision == "allow"
    await monitor.ledger.close()


async def test_the_depth_goes_along_and_is_judged_at_every_step(monitor: Monitor) -> None:
    """The first delegation of a workflow is 1 deep on both sides; what comes in deeper may go on only so deep."""
    monitor.start(chain(outgoing={"max_depth": 2, "to": [TOOL, "spiffe://e.example/agent/b"]}))
    out = draft(type_="delegation", audience=["spiffe://e.example/agent/b"])
    first = await monitor.recorder.record_action(out)
    assert first.decision == "allow"
    assert monitor.entries()[-1]["action_parameters"] == {
        "method": "POST",
        "to": ["spiffe://e.example/agent/b"],
        "depth": 1,
    }
    claims = json.loads(base64url.decode(first.execution_context[0].split(".")[1]))
    assert claims["ext"]["depth"] == 0

    inbound = await monitor.recorder.accept_delegation(handed(1, depth=1))
    line = (inbound.execution_context[0],)
    claims = json.loads(base64url.decode(line[0].split(".")[1]))
    assert claims["ext"]["depth"] == 1
    second = await monitor.recorder.record_action(dataclasses.replace(out, execution_context=line))
    assert (second.decision, monitor.entries()[-1]["action_parameters"]["depth"]) == ("allow", 2)
    inbound = await monitor.recorder.accept_delegation(handed(2, depth=2))
    third = await monitor.recorder.record_action(dataclasses.replace(out, execution_context=inbound.execution_context))
    assert (third.decision, third.reason) == ("deny", "chain_too_deep")
    inbound = await monitor.recorder.accept_delegation(handed(3, depth=None))
    fourth = await monitor.recorder.record_action(dataclasses.replace(out, execution_context=inbound.execution_context))
    assert (fourth.decision, fourth.reason) == ("deny", "depth_unknown")
    elsewhere = await monitor.recorder.record_action(dataclasses.replace(out, action_target="urn:o", audience=()))
    assert elsewhere.reason == "delegate_not_allowed"
    await monitor.ledger.close()


async def test_other_bindings_take_over_what_the_log_holds(monitor: Monitor) -> None:
    monitor.start(bound(rate(1000)))
    for _ in range(3):
        await monitor.act()
    reading, gate = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> SqliteReader:
        loop.call_soon_threadsafe(reading.set)
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return SqliteReader(monitor.path)

    change = asyncio.ensure_future(monitor.state.change(bound(rate(5)), monitor.ledger, slow))
    await reading.wait()
    assert (await monitor.act())[0] == "allow"  # taken by the former memories, and later by the new ones
    gate.set()
    put_in_force = await change
    assert (await monitor.act())[0] == "allow"
    put_in_force()
    assert [await monitor.act()] == [("deny", "rate_exceeded")]
    await monitor.ledger.close()


async def test_a_reload_that_fails_leaves_the_memories_in_force(monitor: Monitor) -> None:
    monitor.start(bound(rate(1)))

    def broken() -> SqliteReader:
        raise OSError("gone")

    with pytest.raises(OSError):
        await monitor.state.change(bound(rate(5)), monitor.ledger, broken)
    assert monitor.state._late is None
    assert [(await monitor.act())[0] for _ in range(2)] == ["allow", "deny"]
    await monitor.ledger.close()


async def test_a_short_horizon_reads_the_end_of_the_log_only(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor.start(())
    for _ in range(20):
        await monitor.recorder.record_action(draft(behaviors=[{**said_pass()}]))
    times = [e["timestamp"] for e in monitor.entries()]
    for at, time in enumerate(times):
        assert first_since(monitor.store, 20, time) == at
    assert first_since(monitor.store, 20, times[-1] + 1) == 20
    assert first_since(monitor.store, 0, 0.0) == 0
    taken: list[int] = []
    real: Callable[..., None] = module.Book.take

    def counting(book: Any, entry: Any, seq: int, timestamp: float) -> None:
        taken.append(seq)
        real(book, entry, seq, timestamp)

    monkeypatch.setattr(module.Book, "take", counting)
    State(bound(rate(1, 10)), monitor.store, 20, times[15] + 10)
    assert taken == [15, 16, 17, 18, 19]
    await monitor.ledger.close()


def said_pass() -> dict[str, str]:
    return {"policy_id": "urn:q", "version": "1.0.0", "binding": "d", "behavior_id": "q", "result": "pass"}


PRIVATE, OUTSIDE = "urn:example:ds:private", "https://outside.example/"


async def test_a_flow_rule_spans_action_types_and_survives_a_restart(monitor: Monitor) -> None:
    flow = bound(
        {"type": "sequence", "scope": "agent", "never_after": [PRIVATE]}, targets=["https://outside.example/**"]
    )
    reading = bound({"type": "denylist", "values": []})[0]
    reading = dataclasses.replace(reading, policy_id="urn:q", digest="q")
    bindings = (*flow, reading)
    passed = [said_pass()]
    monitor.start(bindings)
    assert await monitor.act(OUTSIDE, "http_request", behaviors=passed) == ("allow", "allowed")
    assert await monitor.act(PRIVATE, "data_source_access", behaviors=passed) == ("allow", "allowed")
    assert await monitor.act(OUTSIDE, "http_request", behaviors=passed) == ("deny", "forbidden_after")
    await monitor.ledger.close()
    monitor.start(bindings)
    assert await monitor.act(OUTSIDE, "http_request", behaviors=passed) == ("deny", "forbidden_after")
    assert await monitor.act(PRIVATE, "data_source_access", behaviors=passed) == ("allow", "allowed")
    await monitor.ledger.close()


async def test_octets_come_from_outcomes_also_after_a_restart(monitor: Monitor) -> None:
    budget = bound({"type": "budget", "per": "workflow", "bytes": 100})
    line = {"traceparent": None}
    monitor.start(budget)
    receipt = await monitor.recorder.record_action(draft(**line))
    assert (await monitor.act())[0] == "allow"
    outcome = {"status": 200, "request_bytes": 40, "response_bytes": 60}
    await monitor.recorder.record_outcome(OutcomeDraft(receipt.seq, outcome))
    assert await monitor.act() == ("deny", "budget_exhausted")
    await monitor.ledger.close()
    again = State(budget, SqliteReader(monitor.path), 4, 0.0)
    judged = again.judge(draft(), receipt.wid, 1e10)
    assert (judged.draft.decision, judged.draft.reason) == ("deny", "budget_exhausted")
    assert again.judge(draft(), "another", 1e10).draft.decision == "allow"


@pytest.mark.parametrize(
    ("horizon", "erased", "warned"), [(10, 14, False), (10, 15, True), (None, 1, True), (None, 0, False)]
)
async def test_a_memory_that_was_erased_is_said(
    monitor: Monitor, caplog: pytest.LogCaptureFixture, horizon: float | None, erased: int, warned: bool
) -> None:
    monitor.start(())
    for _ in range(20):
        await monitor.recorder.record_action(draft(behaviors=[said_pass()]))
    times = [e["timestamp"] for e in monitor.entries()]
    monitor.store.erased = lambda: erased  # type: ignore[method-assign]
    criteria = {"type": "sequence", "scope": "agent", "never_after": [PRIVATE]}
    if horizon is not None:
        criteria["within_s"] = horizon
    State(bound(criteria), monitor.store, 20, times[15] + 10)
    assert ("were erased" in caplog.text) is warned
    await monitor.ledger.close()


async def test_an_error_in_a_memory_lets_nothing_out(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor.start(bound(rate(5)))

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(RateMemory, "judge", broken)
        assert await monitor.act() == ("deny", "monitor_error")
    assert [e["reason"] for e in monitor.entries()] == ["monitor_error"]
    assert (await monitor.act())[0] == "allow"
    await monitor.ledger.close()


@pytest.mark.parametrize(
    ("worker", "memory", "decision"),
    [
        ("allow", "hold", "hold"),
        ("flag", "hold", "hold"),
        ("hold", "flag", "hold"),
        ("hold", "hold", "hold"),
        ("hold", "deny", "deny"),
        ("deny", "hold", "deny"),
    ],
)
async def test_the_gravest_of_worker_and_memories_counts(
    monitor: Monitor, worker: str, memory: str, decision: str
) -> None:
    monitor.start(bound(rate(1), on_violation=memory))
    await monitor.act()
    judged = monitor.state.judge(draft(decision=worker, reason="of the worker"), "w", monitor.ledger.now()).draft
    mine = worker == decision and worker != "deny"
    assert (judged.decision, judged.reason) == (
        decision,
        "of the worker" if mine or worker == "deny" else "rate_exceeded",
    )
    await monitor.ledger.close()


async def test_what_was_held_counts_from_when_it_goes_out(monitor: Monitor) -> None:
    """And again after a restart: one out of two that wait at once."""
    said = {"policy_id": "urn:q", "version": "1", "binding": "d", "behavior_id": "ask", "result": "fail"}
    for again in range(2):
        monitor.start(bound(rate(1)))
        tasks = [
            asyncio.ensure_future(
                monitor.recorder.record_action(draft(decision="hold", reason="not_in_allowlist", behaviors=[said]))
            )
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        holds = monitor.recorder._holds
        async with asyncio.timeout(10):
            while len(holds.waiting()) < 2 - 2 * again:
                await asyncio.sleep(0.005)
        holds.resolve_all(lambda one: True, Resolution(True, "approved", "user:me"))
        reasons = sorted([(await task).reason for task in tasks])
        assert reasons == (["approved", "rate_exceeded"] if not again else ["rate_exceeded"] * 2)
        await monitor.ledger.close()


async def test_it_is_idle_only_while_nothing_has_a_memory(tmp_path: Path) -> None:
    """Then the recorder asks it nothing, so it must be exact."""
    monitor = Monitor(tmp_path).start(bound({"type": "allowlist", "values": [TOOL]}))
    assert monitor.state.idle(A)
    put_in_force = await monitor.state.change(bound(rate(1)), monitor.ledger, lambda: SqliteReader(monitor.path))
    assert not monitor.state.idle(A), "what is let out meanwhile has to be remembered"
    put_in_force()
    assert not monitor.state.idle(A)
    await monitor.ledger.close()
