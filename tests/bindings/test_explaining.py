"""Explanations: the verdict is the monitor's, and each behavior says which value, parameter or limit it is about."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.catalog import Catalog
from lictor.bindings.explaining import Explanation, explain, nearest
from lictor.bindings.model import Action, ActionType, Binding
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.proxy.state import Book

A = "spiffe://e.example/agent/a"
H = "https://h.example"
X = "urn:e1:tool:x"
NOW = 1_700_000_000.0


def criteria(kind: str, **more: Any) -> dict[str, Any]:
    outer = {key: more.pop(key) for key in ("targets", "on_violation") if key in more}
    return {"observable_actions": ["tool_call"], "compliance_criteria": {"type": kind, **more}, **outer}


def bound(*behaviors: dict[str, Any], **more: Any) -> Binding:
    named = [{"behavior_id": f"b{i}", **one} for i, one in enumerate(behaviors)]
    document = {"policy_id": "urn:p:1", "evaluation_mode": "continuous", "expected_behaviors": named, **more}
    return load_binding(json.dumps(document).encode(), "test")


def explained(
    *behaviors: dict[str, Any], target: str = X, content: dict[str, Any] | None = None, calls: int = 0, **more: Any
) -> Explanation:
    policy = Policy([bound(*behaviors, **more)] if behaviors else [], Catalog([]))
    action = Action(A, ActionType.TOOL_CALL, target, content=content)

    def ask(binding: Binding) -> Any:
        book = Book((binding,))
        done = {"agent_id": A, "action_type": "tool_call", "action_target": target, "action_parameters": {}, "wid": ""}
        for seq in range(calls):
            book.take({**done, "decision": "allow"}, seq, NOW - 1)
        return book.judge(A, "tool_call", target, "", NOW)

    return explain(policy, action, NOW, ask)


ARGUMENTS = {"arguments": {"path": "/etc/passwd", "amount": 700}}


@pytest.mark.parametrize(
    ("behavior", "more", "because"),
    [
        (
            criteria("allowlist", values=["urn:e1:tool:xy", "urn:e2:b"]),
            {},
            "none of 2 values, nearest is urn:e1:tool:xy",
        ),
        (criteria("denylist", values=["urn:e2:b", "urn:e1:tool:*"]), {}, "the target matches urn:e1:tool:*"),
        (criteria("pattern", target="urn:e2:.*"), {}, "the target does not match 'urn:e2:.*'"),
        (criteria("pattern", parameters={"/arguments/path": "/srv/.*"}), {}, "and none are given"),
        (
            criteria("pattern", parameters={"/arguments/path": "/srv/.*"}),
            {"content": ARGUMENTS},
            "/arguments/path does not match '/srv/.*'",
        ),
        (criteria("pattern", parameters={"/arguments/q": "x"}), {"content": ARGUMENTS}, "there is no /arguments/q"),
        (
            criteria("pattern", forbidden={"/arguments": "passwd"}),
            {"content": ARGUMENTS},
            "something that is forbidden stands in '/arguments'",
        ),
        (
            criteria("schema", parameter="/arguments", schema={"properties": {"amount": {"maximum": 100}}}),
            {"content": ARGUMENTS},
            "/arguments/amount: 700 is greater than the maximum of 100",
        ),
        (criteria("schema", parameter="/params", schema=True), {"content": ARGUMENTS}, "there is no /params"),
        (criteria("time", timezone="UTC", hours=["03:00-03:01"]), {}, "it is Tue 2023-11-14 22:13 in UTC"),
        (
            criteria("rate", limit=2, period_s=60),
            {"calls": 2},
            "limit 2, period_s 60: Too many in too short a time; try again in 59 s.",
        ),
        (criteria("budget", per="day", calls=1), {"calls": 1}, "per day, calls 1: The budget"),
        (
            criteria("sequence", scope="workflow", must_follow=["urn:e2:b"]),
            {},
            "scope workflow, must_follow ['urn:e2:b'] (judged as the first action of a workflow)",
        ),
    ],
    ids=lambda value: value["compliance_criteria"]["type"] if "compliance_criteria" in value else "",
)
def test_a_denial_says_what_it_is_about(behavior: dict[str, Any], more: dict[str, Any], because: str) -> None:
    one = explained(behavior, **more)
    assert (one.decision.allowed, one.said[0].result) == (False, "fail")
    assert because in one.said[0].because
    assert one.because == f"b0 of urn:p:1: {one.said[0].because}"
    assert one.said[0].reason == one.decision.reason


def test_what_allows_is_named() -> None:
    one = explained(criteria("allowlist", values=[H + "/**", "urn:e1:tool:*"]), criteria("rate", limit=1, period_s=5))
    assert (one.decision.verdict, one.because) == ("allow", "every behavior is satisfied")
    assert [(said.result, said.matched) for said in one.said] == [("pass", "urn:e1:tool:*"), ("pass", None)]


def test_default_deny_says_what_is_missing() -> None:
    assert explained().because == f"none of the 0 bindings applies to {A}"
    elsewhere = criteria("allowlist", values=[X], targets=["urn:e1:tool:y"])
    one = explained(elsewhere)
    assert one.because == "the behaviors that observe tool_call are for other targets"
    assert (one.said[0].result, one.said[0].nearest) == ("other_target", "urn:e1:tool:y")
    web = {**criteria("allowlist", values=[X]), "observable_actions": ["http_request"]}
    assert explained(web).because == "no behavior observes tool_call; those of this agent observe http_request"
    assert "applies to" in explained(web, subjects=["spiffe://e.example/agent/b"]).because


def test_what_only_reports_does_not_deny() -> None:
    one = explained(criteria("allowlist", values=[], on_violation="flag"))
    assert (one.decision.verdict, one.said[0].result, one.said[0].effect) == ("flag", "fail", "flag")
    one = explained(criteria("rate", limit=1, period_s=5), calls=1, mode="audit")
    assert (one.decision.verdict, one.decision.reason) == ("flag", "audit:rate_exceeded")


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (f"{H}/a/b", f"{H}/a/*"),
        (f"{H}/b", f"{H}/b/c"),
        ("https://other.example/", None),
        ("urn:e1:tool:mcp#tools/x", "urn:e1:tool:mcp"),
    ],
)
def test_the_nearest_value(target: str, value: str | None) -> None:
    assert nearest([f"{H}/a/*", f"{H}/b/c", "urn:e1:tool:mcp", "urn:e1:tool:"], target) == value
    assert nearest([], target) is None


BEHAVIORS = st.lists(
    st.sampled_from(
        [
            criteria("allowlist", values=[X]),
            criteria("allowlist", values=[], on_violation="flag"),
            criteria("denylist", values=["urn:e1:tool:y"]),
            criteria("rate", limit=2, period_s=60),
            criteria("rate", limit=1, period_s=60, targets=[X], on_violation="flag"),
            criteria("budget", per="day", calls=3),
        ]
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(BEHAVIORS, st.sampled_from([X, "urn:e1:tool:y"]), st.integers(0, 4), st.booleans())
def test_the_verdict_is_that_of_the_monitor(
    behaviors: list[dict[str, Any]], target: str, calls: int, audit: bool
) -> None:
    more = {"mode": "audit"} if audit else {}
    one = explained(*behaviors, target=target, calls=calls, **more)
    bindings = [bound(*behaviors, **more)]
    wanted = Policy(bindings, Catalog([])).judge(Action(A, ActionType.TOOL_CALL, target))
    book = Book(bindings)
    done = {"agent_id": A, "action_type": "tool_call", "action_target": target, "action_parameters": {}, "wid": ""}
    for seq in range(calls):
        book.take({**done, "decision": "allow"}, seq, NOW - 1)
    said = book.judge(A, "tool_call", target, "", NOW) if wanted.allowed else None
    if said is not None and (not said.allowed or (said.verdict == "flag" and wanted.verdict == "allow")):
        wanted = said
    assert (one.decision.verdict, one.decision.reason) == (wanted.verdict, wanted.reason)
