"""Whether bindings allow more than others: what is decided, what is refused, and that no answer is ever too kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.attenuation import exceeds
from lictor.bindings.catalog import Catalog
from lictor.bindings.model import Action, ActionType, Binding
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.formats.cosignature import Witness

H = "https://h.example"
RATE = {"type": "rate", "limit": 10, "period_s": 60}
BUDGET = {"type": "budget", "per": "day", "calls": 10, "bytes": 1000}


def bound(*behaviors: dict[str, Any], mode: str = "enforce") -> Binding:
    numbered = [{"behavior_id": f"b{i}", "observable_actions": ["http_request"], **b} for i, b in enumerate(behaviors)]
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "mode": mode, "expected_behaviors": numbered}
    return load_binding(json.dumps(document).encode(), "test")


def rule(criteria: dict[str, Any] | list[str], **more: Any) -> dict[str, Any]:
    """A behavior; of a list, an allowlist."""
    made = {"type": "allowlist", "values": criteria} if isinstance(criteria, list) else criteria
    return {"compliance_criteria": made, **more}


def deny(*values: str) -> dict[str, Any]:
    return {"type": "denylist", "values": list(values)}


def expression(text: str) -> dict[str, Any]:
    return {"type": "pattern", "target": text}


KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key() for number in range(2)]
ALL = rule([f"{H}/**"])


@pytest.mark.parametrize(
    ("what", "child", "parent"),
    [
        ("the same", [ALL], [ALL]),
        ("nothing at all", [], []),
        ("nothing of what the parent may", [], [ALL]),
        ("nothing, said so", [rule([])], []),
        ("narrower", [rule([f"{H}/a/*", f"{H}/b"])], [ALL]),
        ("a host below", [rule(["https://a.h.example/x"])], [rule(["https://*.h.example/**"])]),
        ("restricted further", [ALL, rule(RATE)], [ALL]),
        ("denies more", [ALL, rule(deny(f"{H}/a/**", f"{H}/b"))], [ALL, rule(deny(f"{H}/a/*"))]),
        ("allows nothing that is denied", [rule([f"{H}/b/**"])], [ALL, rule(deny(f"{H}/a/**"))]),
        ("a lower rate", [ALL, rule({**RATE, "limit": 9})], [ALL, rule(RATE)]),
        ("a lower budget, and one more", [ALL, rule({**BUDGET, "calls": 9, "tokens": 5})], [ALL, rule(BUDGET)]),
        ("holds what the parent's would hold", [rule([], on_violation="hold")], [rule([], on_violation="hold")]),
        ("denies what the parent's would hold", [rule([f"{H}/a"])], [rule([f"{H}/a"], on_violation="hold")]),
        ("the parent only watches", [ALL], [rule([], on_violation="flag")]),
        ("within the parent's targets", [rule([f"{H}/a"])], [rule(deny(), targets=[f"{H}/a", f"{H}/b"])]),
        ("for the same targets", [rule(RATE, targets=[f"{H}/a"])], [rule(RATE, targets=[f"{H}/a"])]),
        ("judges more targets", [ALL, rule(RATE)], [ALL, rule(RATE, targets=[f"{H}/a"])]),
    ],
)
def test_not_more(what: str, child: list[dict[str, Any]], parent: list[dict[str, Any]]) -> None:
    assert exceeds([bound(*child)], [bound(*parent)]) == ""


@pytest.mark.parametrize(
    ("what", "child", "parent"),
    [
        ("what the parent may not at all", [ALL], []),
        ("a wider pattern", [ALL], [rule([f"{H}/a/**"])]),
        ("another host", [rule(["https://x.example/"])], [ALL]),
        ("only watched", [rule([f"{H}/a"], on_violation="flag")], [rule([f"{H}/a"])]),
        ("held and not denied", [rule([f"{H}/a"], on_violation="hold")], [rule([f"{H}/a"])]),
        ("denies less", [ALL, rule(deny(f"{H}/a/b"))], [ALL, rule(deny(f"{H}/a/*"))]),
        ("allows what is denied", [rule([f"{H}/a/b"])], [ALL, rule(deny(f"{H}/a/*"))]),
        ("no rate", [ALL], [ALL, rule(RATE)]),
        ("a higher rate", [ALL, rule({**RATE, "limit": 11})], [ALL, rule(RATE)]),
        ("a rate over another period", [ALL, rule({**RATE, "period_s": 61})], [ALL, rule(RATE)]),
        ("a rate for each target", [ALL, rule({**RATE, "per": "target"})], [ALL, rule(RATE)]),
        ("a budget without octets", [ALL, rule({"type": "budget", "per": "day", "calls": 1})], [ALL, rule(BUDGET)]),
        ("outside of the parent's targets", [ALL], [rule(deny(), targets=[f"{H}/a"])]),
        ("judges fewer targets", [ALL, rule(RATE, targets=[f"{H}/a"])], [ALL, rule(RATE)]),
        ("another expression, which may be narrower", [rule(expression("a"))], [rule(expression("a|b"))]),
    ],
)
def test_more_or_not_decided(what: str, child: list[dict[str, Any]], parent: list[dict[str, Any]]) -> None:
    assert exceeds([bound(*child)], [bound(*parent)]).startswith("http_request: ")


def test_what_else_is_asked_of_callers_is_not_decided() -> None:
    """Not even where the child asks for more."""

    def asking(**incoming: Any) -> Binding:
        rules = [rule({"type": "delegation", "incoming": incoming}), rule(["urn:test:x"])]
        return bound(*({**one, "observable_actions": ["delegation"]} for one in rules))

    one, two = (str(Witness(f"w{i}.example", KEYS[i])) for i in range(2))
    parent = asking(witnesses={"keys": [one], "quorum": 1})
    assert exceeds([asking(witnesses={"keys": [one], "quorum": 1})], [parent]) == ""
    for child in ({"keys": [one, two]}, {"keys": [two], "quorum": 1}, {"keys": [one], "quorum": 1, "max_age_s": 60}):
        assert exceeds([asking(witnesses=child)], [parent]).startswith("delegation: no behavior asks what b0")
    assert exceeds([asking(result="pass")], [parent]) != ""


def test_a_binding_that_only_watches_restricts_nobody() -> None:
    assert exceeds([bound(rule([f"{H}/a"]), mode="audit")], [bound(rule([f"{H}/a"]))])
    assert not exceeds([bound(ALL)], [bound(rule([]), mode="audit")])


def test_several_bindings_count_together() -> None:
    parent = [bound(ALL), bound(rule(deny(f"{H}/a/**")))]
    assert not exceeds([bound(rule([f"{H}/b"])), bound(rule(RATE))], parent)
    assert exceeds([bound(ALL)], parent)
    assert not exceeds([bound(ALL), bound(rule(deny(f"{H}/**")))], parent)


PATTERNS = st.sampled_from(
    [f"{H}/a", f"{H}/b", f"{H}/*", f"{H}/a/*", f"{H}/a/**", f"{H}/**", f"{H}/a*", "https://*.h.example/**", "urn:e1:a*"]
)
LISTS = st.lists(PATTERNS, max_size=3, unique=True)
BEHAVIORS = st.builds(
    lambda allow, values, targets, violation: rule(
        {"type": "allowlist" if allow else "denylist", "values": values},
        on_violation=violation,
        **({"targets": targets} if targets else {}),
    ),
    st.booleans(),
    LISTS,
    st.none() | LISTS,
    st.sampled_from(["deny", "deny", "deny", "flag", "hold"]),
)
TARGETS = [f"{H}/{p}" for p in ("", "a", "b", "ab", "a/", "a/b", "a/b/c", "c")] + ["https://x.h.example/a", "urn:e1:ab"]
PASSES = {"allow": 0, "flag": 0, "hold": 1, "deny": 2}


@settings(max_examples=300, deadline=None)
@given(st.lists(BEHAVIORS, max_size=3), st.lists(BEHAVIORS, max_size=3))
def test_where_nothing_exceeds_nothing_is_let_out_that_the_other_would_not(
    child: list[dict[str, Any]], parent: list[dict[str, Any]]
) -> None:
    ours, theirs = bound(*child), bound(*parent)
    if exceeds([ours], [theirs]):
        return
    policies = Policy([ours], Catalog([])), Policy([theirs], Catalog([]))
    for target in TARGETS:
        action = Action("spiffe://e.example/a", ActionType.HTTP_REQUEST, target)
        mine, other = (PASSES[policy.judge(action).verdict.value] for policy in policies)
        assert mine >= other, target


@given(st.lists(BEHAVIORS, max_size=4))
def test_nothing_exceeds_itself(behaviors: list[dict[str, Any]]) -> None:
    assert exceeds([bound(*behaviors)], [bound(*behaviors)]) == ""
