"""Drafts of bindings: what was seen, what is added to it on purpose, and what hostile entries cannot bring in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import entry

from lictor.bindings.catalog import Catalog
from lictor.bindings.learning import MAX_TARGETS, Learner, generalised
from lictor.bindings.lint import lint
from lictor.bindings.model import Action, ActionType, Binding
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.formats.errors import UsageError

A, B = "spiffe://e.example/agent/a", "spiffe://e.example/agent/b"
H = "https://h.example"
UUIDS = [f"0b54eb0{i}-fd01-4a57-9e1e-6a0d3f2f8a1{i}" for i in range(5)]


def learned(entries: list[Any], agent: str = "a", generalise: int = 3, **options: Any) -> tuple[Learner, Binding]:
    learner = Learner(agent, **options)
    for seq, one in enumerate(entries):
        learner.take(one, seq)
    draft = learner.binding("e.example/monitor/m", generalise)
    return learner, load_binding(json.dumps(draft).encode(), "draft")


def values(binding: Binding) -> dict[str, list[str]]:
    return {next(iter(b.observable_actions)).value: b.criteria["values"] for b in binding.behaviors}


def test_a_draft_says_whose_it_is_and_where_it_comes_from() -> None:
    tool = entry("urn:e1:mcp#tools/read", action_type="tool_call")
    learner, binding = learned([entry(f"{H}/x"), entry(f"{H}/other", agent_id=B), tool, tool])
    assert values(binding) == {"http_request": [f"{H}/x"], "tool_call": ["urn:e1:mcp#tools/read"]}
    assert (binding.subjects, binding.version, binding.mode) == ((A,), "0.1.0", "enforce")
    assert binding.document["description"].startswith(
        "Draft from 3 allowed actions among the entries 0 to 3 of e.example/monitor/m."
    )
    assert (learner.actions, lint([binding])) == (3, [])


@pytest.mark.parametrize(
    ("targets", "patterns"),
    [
        ([f"{H}/u/{i}" for i in range(3)], [f"{H}/u/*"]),
        ([f"{H}/u/{i}" for i in range(2)], [f"{H}/u/0", f"{H}/u/1"]),
        ([f"{H}/u/{u}/edit" for u in UUIDS], [f"{H}/u/*/edit"]),
        ([f"{H}/u/{i}/items/{i}" for i in range(3)], [f"{H}/u/*/items/*"]),
        ([f"{H}/u/{i}/items/7" for i in range(3)], [f"{H}/u/*/items/7"]),
        ([f"{H}/u/7/items/{i}" for i in range(3)], [f"{H}/u/7/items/*"]),
        ([f"{H}/u/{i}" for i in range(3)] + [f"{H}/u/1/delete"], [f"{H}/u/*", f"{H}/u/1/delete"]),
        ([f"{H}/u/{i}" for i in range(3)] + [f"{H}/u/me"], [f"{H}/u/*"]),
        ([f"{H}/u/{name}" for name in ("ann", "bob", "cy")], [f"{H}/u/{name}" for name in ("ann", "bob", "cy")]),
        ([f"{H}/u/{i}/" for i in range(3)], [f"{H}/u/*/"]),
        ([f"https://h{i}.example/u/1" for i in range(3)], [f"https://h{i}.example/u/1" for i in range(3)]),
        ([f"https://192.0.2.{i}/" for i in range(3)], [f"https://192.0.2.{i}/" for i in range(3)]),
        ([f"https://cafe000{i}/x" for i in (1, 2, 3)], [f"https://cafe000{i}/x" for i in (1, 2, 3)]),
        ([f"{H}:{i}/x" for i in (1, 2, 3)], [f"{H}:{i}/x" for i in (1, 2, 3)]),
        ([f"urn:e1:me#/u/{i}" for i in range(3)], [f"urn:e1:me#/u/{i}" for i in range(3)]),
        ([f"{H}/u/{i}%2Fx" for i in range(3)], [f"{H}/u/{i}%2Fx" for i in range(3)]),
    ],
)
def test_generalisation(targets: list[str], patterns: list[str]) -> None:
    assert generalised(targets, 3) == patterns


@pytest.mark.parametrize(
    "target",
    [
        f"{H}/a*b",
        f"{H}/*",
        f"{H}/**",
        f"{H}/%2A",
        "https://*.h.example/**",
        "https://*.h.example/",
        "urn:e1:*",
        "urn:e1:me#/a*",
        "urn:e1:me#/ü",
        "https://H.example/x",
        f"{H}:443/x",
        f"{H}/x/../y",
        f"{H}?q",
        f"{H}",
        "",
        "*",
        "/etc/passwd",
        "file:///etc/passwd",
        f"{H}/" + "a" * 5000,
        f"{H}/\udc80",
        "urn:e1:\n",
    ],
)
def test_targets_that_no_pattern_names_are_left_out(target: str) -> None:
    learner, binding = learned([entry(target), entry(f"{H}/x")])
    assert values(binding) == {"http_request": [f"{H}/x"]}
    assert learner.left_out == {"not_a_pattern": 1}


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        "entry",
        {},
        {"agent_id": 7},
        {"agent_id": [A]},
        {"agent_id": "/a"},
        {"agent_id": "spiffe://e.example//a"},
        {"outcome_of": 0, "agent_id": A},
        entry(f"{H}/y", agent_id=A, action_parameters={"direction": "inbound"}),
    ],
)
def test_what_is_no_action_of_the_agent_is_passed_over(odd: Any) -> None:
    learner, binding = learned([odd, entry(f"{H}/x")])
    assert (values(binding), learner.left_out) == ({"http_request": [f"{H}/x"]}, {})


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (entry(None), "malformed"),
        (entry({"a": 1}), "malformed"),
        (entry(f"{H}/y", action_type="log_retention"), "malformed"),
        (entry(f"{H}/y", action_type=["http_request"]), "malformed"),
        (entry(f"{H}/y", decision="sure"), "malformed"),
        (entry(f"{H}/y", decision=["allow"]), "malformed"),
        (entry(f"{H}/y", action_parameters=None), "malformed"),
        (entry(f"{H}/y", decision="deny"), "denied"),
    ],
)
def test_what_is_malformed_or_denied_is_counted(odd: Any, why: str) -> None:
    learner, binding = learned([odd, entry(f"{H}/x")])
    assert (values(binding), learner.left_out) == ({"http_request": [f"{H}/x"]}, {why: 1})


def test_what_bindings_denied_can_be_learned_and_what_the_monitor_refused_cannot() -> None:
    entries = [
        entry(f"{H}/a", decision="flag"),
        entry(f"{H}/b", decision="deny"),
        entry(f"{H}/c", decision="deny", behaviors=[], reason="default_deny"),
        entry(f"{H}/", decision="deny", behaviors=[], reason="name_mismatch"),
        entry(f"{H}/", decision="deny", action_parameters={"method": "CONNECT"}),
    ]
    assert values(learned(entries)[1]) == {"http_request": [f"{H}/a"]}
    learner, binding = learned(entries, include_denied=True)
    assert values(binding) == {"http_request": [f"{H}/a", f"{H}/b", f"{H}/c"]}
    assert learner.left_out == {"refused_by_the_monitor": 1, "refused_at_connect": 1}


def test_nothing_to_learn_from() -> None:
    with pytest.raises(UsageError, match=r"no action of b to learn from; it has spiffe://e.example/agent/a"):
        learned([entry(f"{H}/x")], agent="b")
    with pytest.raises(UsageError, match=r"\(1 denied left out\)"):
        learned([entry(f"{H}/x", decision="deny")])
    twice = [entry(f"{H}/x"), entry(f"{H}/x", agent_id="spiffe://other.example/agent/a")]
    with pytest.raises(UsageError, match=r"'a' fits spiffe://e.example/agent/a, spiffe://other.example/agent/a"):
        learned(twice)
    assert learned(twice, agent=A)[1].subjects == (A,)


def test_memory_has_a_bound() -> None:
    learner = Learner(A)
    for i in range(MAX_TARGETS + 5):
        learner.take(entry(f"{H}/x{i}"), i)
    assert (learner.actions, learner.left_out) == (MAX_TARGETS, {"too_many_targets": 5})


IDS = st.integers(1, 9).map(str) | st.sampled_from(UUIDS)
SEGMENTS = IDS | st.sampled_from(["u", "items", "me", "a%2Fb", "a*", "*", "**"])


@st.composite
def urls(draw: st.DrawFn) -> str:
    host = draw(st.sampled_from(["h.example", "x.h.example", "192.0.2.1"]))
    return f"https://{host}/" + "/".join(draw(st.lists(SEGMENTS, min_size=1, max_size=3)))


def is_from(target: str, seen: list[str], enough: int) -> bool:
    """Whether a target is one that was seen, other segments standing only where enough ids were."""
    path = target.split("/")
    for other in seen:
        parts = other.split("/")
        if len(parts) != len(path) or parts[:3] != path[:3]:
            continue
        differing = [i for i in range(len(path)) if path[i] != parts[i]]
        ids = [{s.split("/")[i] for s in seen if s.count("/") >= i and is_id(s.split("/")[i])} for i in differing]
        if all(is_id(parts[i]) and len(found) >= enough for i, found in zip(differing, ids, strict=True)):
            return True
    return False


def is_id(text: str) -> bool:
    return text.isdecimal() or text in UUIDS


@settings(max_examples=200, deadline=None)
@given(st.lists(urls(), min_size=1, max_size=25), st.lists(urls(), max_size=25), st.sampled_from([0, 2, 3, 5]))
def test_a_draft_allows_what_was_seen_and_only_what_is_stated_beyond(
    seen: list[str], others: list[str], generalise: int
) -> None:
    _, binding = learned([entry(url) for url in [*seen, f"{H}/always"]], generalise=generalise)
    policy = Policy([binding], Catalog([]))

    def allowed(url: str, agent: str = A) -> bool:
        return policy.judge(Action(agent, ActionType.HTTP_REQUEST, url)).allowed

    for url in seen:
        assert allowed(url) or "*" in url
    for url in [*others, *(url + "/1" for url in seen), *(url.replace("://", "://evil.") for url in seen)]:
        if allowed(url):
            assert url in seen or (generalise and is_from(url, seen, generalise)), url
        assert not allowed(url, B)
    assert {finding.kind for finding in lint([binding])} <= set()


@pytest.mark.parametrize(("decision", "learns"), [("allow", True), ("deny", False)])
def test_of_what_was_held_the_decision_is_learned(decision: str, learns: bool) -> None:
    of = entry(f"{H}/held", decision, decision_of=1, behaviors=[{"behavior_id": "b", "result": "approved"}])
    learner, binding = learned([entry(f"{H}/a"), entry(f"{H}/held", "hold"), of])
    assert binding.behaviors[0].criteria["values"] == [f"{H}/a", *([f"{H}/held"] if learns else [])]
    assert learner.left_out == ({} if learns else {"denied": 1})
