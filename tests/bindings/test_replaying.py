"""Judging a log again: the same bindings change nothing, others what they should, odd entries break nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.catalog import Catalog, Target
from lictor.bindings.model import Action, ActionType, Binding
from lictor.bindings.policy import Policy
from lictor.bindings.replaying import OPENS, Change, Replay
from lictor.bindings.schema import load_binding
from lictor.proxy.state import Book

A, B = "spiffe://e.example/agent/a", "spiffe://e.example/agent/b"
H = "https://h.example"
X, Y, PRIVATE = "urn:e1:tool:x", "urn:e1:tool:y", "urn:e1:ds:private"
NOON = 1_700_000_000.0


def criteria(kind: str, name: str = "", **more: Any) -> dict[str, Any]:
    outer = {key: more.pop(key) for key in ("targets", "on_violation") if key in more}
    return {
        "behavior_id": name or kind,
        "observable_actions": ["http_request", "tool_call", "data_source_access", "delegation"],
        "compliance_criteria": {"type": kind, **more},
        **outer,
    }


def bound(*behaviors: dict[str, Any], **more: Any) -> Binding:
    document = {"policy_id": "urn:p:1", "evaluation_mode": "continuous", "expected_behaviors": list(behaviors), **more}
    return load_binding(json.dumps(document).encode(), "test")


def allow(*values: str, **more: Any) -> dict[str, Any]:
    return criteria("allowlist", values=list(values), **more)


def entry(target: str, decision: str = "allow", time: float = NOON, **more: Any) -> dict[str, Any]:
    kind = "http_request" if target.startswith("http") else "tool_call"
    return {
        "agent_id": A,
        "action_type": kind,
        "action_target": target,
        "action_parameters": {"method": "GET"},
        "decision": decision,
        "reason": "allowed" if decision == "allow" else "not_in_allowlist",
        "behaviors": [{"behavior_id": "b"}],
        "wid": "w",
        "timestamp": time,
        **more,
    }


def outcome(of: int, size: int, time: float = NOON) -> dict[str, Any]:
    fields = {name: value for name, value in entry(X, time=time).items() if name not in ("decision", "reason")}
    return {**fields, "outcome_of": of, "outcome": {"request_bytes": size}}


def replayed(
    entries: list[Any], *behaviors: dict[str, Any], mode: str = "enforce", **options: Any
) -> tuple[Replay, list[Change]]:
    bindings = [bound(*behaviors, mode=mode)]
    replay = Replay(bindings, Book(bindings), **options)
    changes = (replay.take(one, seq) for seq, one in enumerate(entries))
    return replay, [change for change in changes if change is not None]


def shown(changes: list[Change]) -> list[tuple[int, str, str, str]]:
    return [(change.seq, change.before, change.after, change.reason_after) for change in changes]


def test_what_changes() -> None:
    entries = [entry(f"{H}/a"), entry(f"{H}/b"), entry(f"{H}/c", "deny"), entry(f"{H}/d", "deny"), outcome(0, 5)]
    replay, changes = replayed(entries, allow(f"{H}/a", f"{H}/c"))
    assert shown(changes) == [(1, "allow", "deny", "not_in_allowlist"), (2, "deny", "allow", "allowed")]
    assert (replay.judged, replay.changed, replay.not_judged) == (4, {"allow to deny": 1, "deny to allow": 1}, {})
    assert shown(replayed(entries[:1], allow(f"{H}/b", on_violation="flag"))[1]) == [
        (0, "allow", "flag", "not_in_allowlist")
    ]
    assert shown(replayed(entries[:1], allow(f"{H}/b"), mode="audit")[1]) == [
        (0, "allow", "flag", "audit:not_in_allowlist")
    ]
    assert shown(replayed(entries[:1], allow(f"{H}/a", targets=[f"{H}/b"]))[1]) == [
        (0, "allow", "deny", "default_deny")
    ]


def test_one_agent_is_asked_about() -> None:
    entries = [entry(f"{H}/b"), entry(f"{H}/b", agent_id=B)]
    for agent in ("b", B):
        replay, changes = replayed(entries, allow(), agent=agent)
        assert ([change.seq for change in changes], replay.judged) == ([1], 1)


def test_memories_remember_what_the_other_bindings_would_have_let_out() -> None:
    rate = criteria("rate", limit=2, period_s=10)
    entries = [entry(X, time=NOON + i) for i in range(4)] + [entry(Y, "deny", time=NOON + 20 + i) for i in range(3)]
    assert shown(replayed(entries, rate)[1]) == [
        (2, "allow", "deny", "rate_exceeded"),
        (3, "allow", "deny", "rate_exceeded"),
        (4, "deny", "allow", "allowed"),
        (5, "deny", "allow", "allowed"),
    ]


def test_a_sequence_is_judged_in_the_order_of_the_log() -> None:
    flow = criteria("sequence", scope="workflow", never_after=[PRIVATE], targets=[X])
    entries = [entry(X), entry(PRIVATE), entry(X), entry(X, wid="other")]
    _, changes = replayed(entries, flow, allow(X, PRIVATE))
    assert shown(changes) == [(2, "allow", "deny", "forbidden_after")]
    assert replayed(entries, flow, allow(X))[1][0].seq == 1  # denied, so it rules nothing out
    assert [change.seq for change in replayed(entries, flow, allow(X))[1]] == [1]


def test_octets_of_what_would_not_have_left_do_not_count() -> None:
    budget = criteria("budget", per="workflow", bytes=10)
    entries = [entry(X), outcome(0, 100), entry(Y), entry(Y)]
    assert [change.seq for change in replayed(entries, budget, allow(X, Y))[1]] == [2, 3]
    assert [change.seq for change in replayed(entries, budget, allow(Y))[1]] == [0]


def test_time_is_that_of_the_entry() -> None:
    hours = criteria("time", timezone="UTC", hours=["22:00-23:00"])
    evening = entry(X, time=NOON - NOON % 86400 + 22.5 * 3600)
    later = entry(X, time=NOON - NOON % 86400 + 23 * 3600)
    assert shown(replayed([evening, later], hours)[1]) == [(1, "allow", "deny", "outside_of_time")]


BODY = criteria("schema", parameter="/arguments", schema=True, targets=[X])
QUERY = criteria("pattern", parameters={"/query/q": "a"}, targets=[f"{H}/a"])
METHOD = criteria("pattern", parameters={"/method": "GET"}, targets=[f"{H}/a"])
DIGEST = {"action_parameters": {"method": "GET", "query_digest": "x"}}


@pytest.mark.parametrize(
    ("one", "behaviors", "expected"),
    [
        (entry(X), [allow(X), BODY], "parameters_not_kept"),
        (entry(X), [allow(Y), BODY], "deny"),
        (entry(X), [BODY, allow(Y)], "deny"),
        (entry(X), [BODY, criteria("sequence", scope="agent", must_follow=[Y])], "deny"),
        (entry(Y), [allow(Y), BODY], None),
        (entry(f"{H}/a", **DIGEST), [QUERY], "parameters_not_kept"),
        (entry(f"{H}/a", **DIGEST), [METHOD], "parameters_not_kept"),
        (entry(f"{H}/a"), [QUERY], "deny"),
        (entry(f"{H}/a"), [METHOD], None),
        (entry(f"{H}/a", action_parameters={}), [METHOD], "parameters_not_kept"),
        (entry(X, "deny", reason="batch_member_denied"), [allow(X)], "batch"),
        (entry(f"{H}/", "deny", reason="name_mismatch", behaviors=[]), [allow(f"{H}/**")], "refused_by_the_monitor"),
        (entry(f"{H}/", "deny", reason="default_deny", behaviors=[]), [allow(f"{H}/**")], "allow"),
        (entry(f"{H}/", "deny", action_parameters={"method": "CONNECT"}), [allow(f"{H}/**")], "connect"),
    ],
)
def test_what_cannot_be_judged_is_said(
    one: dict[str, Any], behaviors: list[dict[str, Any]], expected: str | None
) -> None:
    replay, changes = replayed([one], *behaviors)
    assert [change.after for change in changes] == ([expected] if expected in ("allow", "deny") else [])
    assert replay.not_judged == ({} if expected in ("allow", "deny", None) else {expected: 1})


def test_a_connect_is_judged_with_the_catalog() -> None:
    catalog = Catalog([Target(X, "tool", ("https://t.example/**",))])
    connect = {"action_parameters": {"method": "CONNECT"}}
    entries = [entry(f"{H}/", "deny", **connect), entry("https://t.example/", "deny", **connect)]
    assert shown(replayed(entries, allow(f"{H}/x"), catalog=catalog)[1]) == [(0, "deny", OPENS, "allowed")]
    assert [c.seq for c in replayed(entries, allow(X), catalog=catalog)[1]] == [1]
    urn = [entry(X, "deny", **connect)]
    assert shown(replayed(urn, allow(X), catalog=catalog)[1]) == [(0, "deny", OPENS, "allowed")]
    assert replayed(urn, allow(Y), catalog=catalog)[0].judged == 1
    wild = Catalog([Target(X, "tool", ("https://*.t.example/**",))])
    for catalog, target in ((wild, X), (wild, Y), (wild, "https://t example/")):
        one = [entry(target, "deny", **connect)]
        assert replayed(one, allow(X), catalog=catalog)[0].not_judged == {"connect": 1}


def test_a_delegation_that_came_in_is_its_peers() -> None:
    inbound = {"action_type": "delegation", "action_parameters": {"direction": "inbound", "peer": B}, "behaviors": []}
    _, changes = replayed([entry(X, **inbound)], allow(Y), agent=B)
    assert [(change.agent_id, change.after) for change in changes] == [(B, "deny")]
    assert replayed([entry(X, **inbound)], allow(Y, on_violation="flag"))[1] == []
    refused = entry(X, "deny", reason="rate_exceeded", **inbound)
    assert [change.after for change in replayed([refused], allow(X))[1]] == ["allow"]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        [],
        {},
        entry(X, agent_id=None),
        entry(X, wid=None),
        entry(X, time=-1.0),
        entry(X, timestamp="now"),
        entry(X, timestamp=1e300),
        entry(X, decision=["allow"]),
        entry(X, decision="perhaps"),
        entry(X, reason=["batch_member_denied"]),
        entry(X, action_type=["tool_call"]),
        entry(X, action_type="teleport"),
        entry(X, action_parameters=None),
        entry(X, action_parameters={"direction": "inbound", "peer": 7}),
        {**outcome(0, 1), "outcome_of": "0"},
        {**outcome(0, 1), "outcome": None},
        {**outcome(0, 1), "wid": {}},
    ],
)
def test_odd_entries_are_counted(odd: Any) -> None:
    behaviors = criteria("rate", limit=1, period_s=1), criteria("budget", per="workflow", bytes=1)
    replay, changes = replayed([odd, {**outcome(9, 1), "outcome": {"request_bytes": "1"}}], *behaviors)
    assert (replay.judged, replay.not_judged, changes) == (0, {"malformed": 1}, [])


def test_entries_of_the_monitor_about_itself_are_passed_over() -> None:
    own = entry(A, action_type="log_retention", reason="monitor", agent_id="spiffe://e.example/monitor/m")
    assert replayed([own], allow())[0].not_judged == {}


BEHAVIORS = st.lists(
    st.sampled_from(
        [
            allow(X, Y, f"{H}/**"),
            allow(X, on_violation="flag"),
            criteria("denylist", values=[Y]),
            criteria("denylist", values=[X], on_violation="flag"),
            criteria("rate", limit=2, period_s=3),
            criteria("rate", limit=1, period_s=5, targets=[Y], on_violation="flag"),
            criteria("sequence", scope="agent", never_after=[PRIVATE], targets=[X]),
            criteria("sequence", scope="workflow", must_follow=[X], targets=[Y]),
            criteria("budget", per="workflow", calls=3),
            criteria("pattern", target=".*[xy]"),
        ]
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda one: json.dumps(one),
)
DONE = st.tuples(st.sampled_from([A, B]), st.sampled_from([X, Y, PRIVATE, f"{H}/x"]), st.sampled_from(["w", "v"]))


@settings(max_examples=150, deadline=None)
@given(BEHAVIORS, st.lists(DONE, max_size=15), st.booleans())
def test_the_same_bindings_change_nothing(
    behaviors: list[dict[str, Any]], done: list[tuple[str, str, str]], audit: bool
) -> None:
    """The log is made as workers and the control process make it."""
    named = [{**one, "behavior_id": f"b{i}"} for i, one in enumerate(behaviors)]
    bindings = [bound(*named, mode="audit" if audit else "enforce")]
    policy, book = Policy(bindings, Catalog([])), Book(bindings)
    replay = Replay(bindings, Book(bindings))
    for seq, (agent, target, wid) in enumerate(done):
        made = entry(target, time=NOON + seq, agent_id=agent, wid=wid)
        decision = policy.judge(Action(agent, ActionType(made["action_type"]), target, {}))
        if decision.allowed:
            said = book.judge(agent, made["action_type"], target, wid, NOON + seq)
            if said is not None and (not said.allowed or (said.verdict == "flag" and decision.verdict == "allow")):
                decision = dataclasses.replace(decision, verdict=said.verdict, reason=said.reason)
        made |= {"decision": decision.verdict.value, "reason": decision.reason}
        book.take(made, seq, NOON + seq)
        assert replay.take(made, seq) is None
    assert replay.judged == len(done)


def held(target: str, of: int, decision: str = "allow") -> dict[str, Any]:
    """The entry that says what became of a held action."""
    return entry(target, decision, decision_of=of, reason="approved" if decision == "allow" else "hold_denied")


HELD = entry(X, "hold")


@pytest.mark.parametrize(
    ("behaviors", "expected"),
    [
        ([allow(X)], [(0, "hold", "allow", "allowed")]),
        ([allow(Y, on_violation="hold")], []),
        ([allow(Y)], [(0, "hold", "deny", "not_in_allowlist")]),
        ([allow(Y, on_violation="quarantine")], [(0, "hold", "deny", "not_in_allowlist")]),
        ([allow(Y, on_violation="hold"), allow(Y, name="b")], [(0, "hold", "deny", "not_in_allowlist")]),
    ],
)
def test_what_was_held(behaviors: list[dict[str, Any]], expected: list[Any]) -> None:
    assert shown(replayed([HELD, held(X, 0), outcome(0, 5)], *behaviors)[1]) == expected


def test_what_would_be_held() -> None:
    changes = replayed([entry(X)], allow(Y, on_violation="hold"))[1]
    assert shown(changes) == [(0, "allow", "hold", "not_in_allowlist")]


@pytest.mark.parametrize(("decision", "second"), [("allow", "deny"), ("deny", "allow")])
def test_what_was_held_counts_if_it_was_let_out(decision: str, second: str) -> None:
    behaviors = [criteria("rate", limit=1, period_s=60), allow(Y, on_violation="hold")]
    replay, _ = replayed([HELD, held(X, 0, decision), entry(Y)], *behaviors)
    assert replay.changed == ({"allow to deny": 1} if second == "deny" else {})


def test_a_decision_that_cannot_be_read() -> None:
    replay, _ = replayed([{**held(X, 0), "decision_of": "0"}], allow(X))
    assert replay.not_judged == {"malformed": 1}
