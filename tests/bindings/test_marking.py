"""Looking up many lists at once says what asking each of them says, and a policy decides by it as one by one."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.catalog import Catalog
from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Stateless
from lictor.bindings.marking import Marks
from lictor.bindings.model import Action, ActionType, Behavior, Binding
from lictor.bindings.patterns import AllowSet
from lictor.bindings.policy import Policy

URNS = st.sampled_from(["urn:e1:a", "urn:e1:a#t", "urn:e1:ab", "urn:e1:abc#t/x", "urn:e1:b"])
HOSTS = [
    "https://h.example",
    "https://a.h.example",
    "https://a.b.h.example",
    "http://h.example",
    "https://h.example:444",
]
SEGMENTS = st.sampled_from(["a", "b", "ab", "aab", "a%2Fb"])
PATTERNS = st.one_of(
    URNS,
    URNS.map(lambda urn: f"{urn}*"),
    st.builds(
        lambda host, path, end: f"{host}/{'/'.join(path)}{end}",
        st.sampled_from([*HOSTS, "https://*.h.example", "https://*.b.h.example"]),
        st.lists(st.sampled_from(["a", "b", "*", "a*", "*b", "a*b"]), min_size=1, max_size=3),
        st.sampled_from(["", "/**", "/"]),
    ),
    st.sampled_from(["https://h.example/**", "https://*.h.example/**"]),
)
TARGETS = URNS | st.builds(
    lambda host, path, end: f"{host}/{'/'.join(path)}{end}",
    st.sampled_from(HOSTS),
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(PATTERNS, max_size=5), max_size=5), st.lists(TARGETS, min_size=1, max_size=4))
def test_it_marks_the_lists_that_match(lists: list[list[str]], targets: list[str]) -> None:
    marks = Marks((1 << i, values) for i, values in enumerate(lists))
    for target in targets:
        expected = sum(1 << i for i, values in enumerate(lists) if AllowSet(values).matches(target))
        assert marks.of(target) == expected, target


def test_what_is_no_target_matches_nothing() -> None:
    marks = Marks([(1, ["https://h.example/**", "urn:e1:*"])])
    assert [marks.of(text) for text in ("", "h.example/a", "https://h.example", "://", "urn:")] == [0] * 5


BEHAVIORS = st.builds(
    lambda kind, values, targets, violation: Behavior(
        "b",
        "",
        frozenset([ActionType.HTTP_REQUEST]),
        {"type": kind, "target": ".*a.*"} if kind == "pattern" else {"type": kind, "values": values},
        on_violation=violation,
        targets=tuple(targets) if targets is not None else None,
    ),
    st.sampled_from(["allowlist", "denylist", "pattern"]),
    st.lists(PATTERNS, max_size=4, unique=True),
    st.none() | st.lists(PATTERNS, max_size=3, unique=True),
    st.sampled_from(["deny", "flag", "hold", "quarantine"]),
)
GRAVITY = ["flag", "hold", "deny"]


def one_by_one(behaviors: list[Behavior], action: Action) -> tuple[str, str, list[str]]:
    """What a policy decides, by asking each behavior by itself."""
    observing = [b for b in behaviors if b.targets is None or AllowSet(b.targets).matches(action.target)]
    said: list[tuple[str, str]] = []
    for behavior in observing:
        compiled = compile_criteria(behavior.criteria)
        assert isinstance(compiled, Stateless)
        outcome = compiled.judge(action)
        effect = "deny" if behavior.on_violation == "quarantine" else behavior.on_violation
        said.append((effect if not outcome.ok else "", outcome.reason))
    if not observing:
        return "deny", "default_deny", []
    gravest = max((effect for effect, _ in said if effect), key=GRAVITY.index, default="allow")
    reason = next((reason for effect, reason in said if effect == gravest), "allowed")
    return gravest, reason, ["fail" if effect else "pass" for effect, _ in said]


@settings(max_examples=200, deadline=None)
@given(st.lists(BEHAVIORS, min_size=1, max_size=6), st.lists(TARGETS, min_size=1, max_size=4))
def test_a_policy_decides_as_if_each_behavior_were_asked_by_itself(
    behaviors: list[Behavior], targets: list[str]
) -> None:
    middle = len(behaviors) // 2
    parts: Any = [tuple(behaviors[:middle]), tuple(behaviors[middle:])]
    policy = Policy(
        [Binding(f"urn:p{i}", "1.0.0", (), p, "", "enforce", "", {}) for i, p in enumerate(parts)], Catalog([])
    )
    for target in (*targets, *targets):
        action = Action("spiffe://e.example/a", ActionType.HTTP_REQUEST, target, {}, {"method": "GET"})
        decision = policy.judge(action)
        found = (decision.verdict.value, decision.reason, [one.result for one in decision.behaviors])
        assert found == one_by_one(behaviors, action)


def test_a_decision_calls_as_little_with_many_behaviors_as_with_few() -> None:
    """How often Python calls a function is counted, not time."""

    def calls(number: int) -> int:
        types = frozenset([ActionType.HTTP_REQUEST])
        lists = [{"type": "allowlist", "values": ["https://h.example/**", f"urn:e1:{i}"]} for i in range(number)]
        behaviors = tuple(Behavior(f"b{i}", "", types, criteria) for i, criteria in enumerate(lists))
        policy = Policy([Binding("urn:p", "1.0.0", (), behaviors, "", "enforce", "", {})], Catalog([]))
        action = Action("spiffe://e.example/a", ActionType.HTTP_REQUEST, "https://h.example/x/y")
        assert policy.judge(action).allowed
        made = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal made
            made += event == "call"

        sys.setprofile(count)
        try:
            policy.judge(action)
        finally:
            sys.setprofile(None)
        return made

    assert calls(200) == calls(2)
