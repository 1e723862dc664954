"""To whom work may be handed on, how often, and what a caller's side must show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Happening, Stateless
from lictor.bindings.handed import Handed, Shown, handed_of
from lictor.bindings.schema import load_binding
from lictor.formats.errors import UsageError

AGENT, MONITOR = "spiffe://e.example/agent/a", "spiffe://e.example/monitor/m"
B, URN = "spiffe://other.example/agent/b", "urn:example:agent:b"
NOW, NAN = 1_790_000_000.0, float("nan")
GOOD = Handed(True, (), 2, (Shown("urn:p", "pass", NOW - 5), Shown("urn:q", "pass", NOW - 9)), {"safety": 0.9})


def judge(criteria: dict[str, Any], handed: Handed | None, target: str = URN, who: str = AGENT) -> str:
    compiled = compile_criteria({"type": "delegation", **criteria})
    assert not isinstance(compiled, Stateless)
    return compiled.begin().judge(Happening(who, "delegation", target, "w", NOW, handed)).reason


@pytest.mark.parametrize(
    ("asked", "handed", "reason"),
    [
        ({"to": [URN]}, Handed(False), ""),
        ({"to": ["urn:example:agent:*"]}, Handed(False), ""),
        ({"to": ["urn:example:agent:c"]}, Handed(False), "delegate_not_allowed"),
        ({"to": []}, Handed(False, (B,)), "delegate_not_allowed"),
        ({"to": [B]}, Handed(False, (B,)), ""),
        ({"to": ["spiffe://other.example/agent/*"]}, Handed(False, (B,)), ""),
        ({"to": ["spiffe://other.example/agent/*"]}, Handed(False), "delegate_not_allowed"),
        ({"to": ["spiffe://other.example/agent/c"]}, Handed(False, (B,)), "delegate_not_allowed"),
        ({"to": ["urn:example:agent:c", B]}, Handed(False, (B,)), ""),
        ({"max_depth": 2}, Handed(False, depth=2), ""),
        ({"max_depth": 2}, Handed(False, depth=3), "chain_too_deep"),
        ({"max_depth": 2}, Handed(False, depth=None), "depth_unknown"),
    ],
)
def test_going_out(asked: dict[str, Any], handed: Handed, reason: str) -> None:
    assert judge({"outgoing": asked}, handed) == reason
    assert judge({"incoming": {"result": "pass"}}, handed) == ""


@pytest.mark.parametrize(
    ("asked", "change", "reason"),
    [
        ({"issuers": [MONITOR]}, {}, ""),
        ({"issuers": ["spiffe://e.example/monitor/*"]}, {}, ""),
        ({"issuers": ["spiffe://other.example/monitor/*"]}, {}, "issuer_not_accepted"),
        ({"result": "pass"}, {}, ""),
        ({"result": "pass"}, {"shown": ()}, "result_not_accepted"),
        ({"result": "pass"}, {"shown": (*GOOD.shown, Shown("urn:r", "partial", NOW))}, "result_not_accepted"),
        ({"result": "partial"}, {"shown": (*GOOD.shown, Shown("urn:r", "partial", NOW))}, ""),
        ({"result": "partial"}, {"shown": (*GOOD.shown, Shown("urn:r", "fail", NOW))}, "result_not_accepted"),
        ({"result": "partial"}, {"shown": (Shown("urn:p", "passed", NOW),)}, "result_not_accepted"),
        ({"max_age_s": 9}, {}, ""),
        ({"max_age_s": 8.9}, {}, "evidence_too_old"),
        ({"max_age_s": 60}, {"shown": ()}, "evidence_too_old"),
        ({"max_age_s": 60}, {"shown": (Shown("urn:p", "pass", NAN),)}, "evidence_too_old"),
        ({"policies": ["urn:q", "urn:z"]}, {}, ""),
        ({"policies": ["urn:z"]}, {}, "policy_not_accepted"),
        ({"max_depth": 2}, {}, ""),
        ({"max_depth": 1}, {}, "chain_too_deep"),
        ({"max_depth": 9}, {"depth": None}, "depth_unknown"),
        ({"performance": {"profile": "safety", "min_score": 0.9}}, {}, ""),
        ({"performance": {"profile": "safety", "min_score": 0.91}}, {}, "performance_not_shown"),
        ({"performance": {"profile": "speed", "min_score": 0}}, {}, "performance_not_shown"),
        ({"performance": {"profile": "safety", "min_score": 0}}, {"scores": {"safety": NAN}}, "performance_not_shown"),
    ],
)
def test_coming_in(asked: dict[str, Any], change: dict[str, Any], reason: str) -> None:
    given = {name: getattr(GOOD, name) for name in GOOD.__slots__}
    assert judge({"incoming": asked}, Handed(**{**given, **change}), who=MONITOR) == reason
    assert judge({"outgoing": {"to": []}}, GOOD) == ""


def test_what_is_no_delegation_is_refused() -> None:
    assert judge({"outgoing": {"to": [URN]}}, None) == "delegation_unknown"


EVIDENCE = [{"jti": "j", "policy": "urn:p", "result": "pass", "until": 5, "digest": "d"}]


@pytest.mark.parametrize(
    ("parameters", "handed"),
    [
        ({"method": "POST"}, Handed(False)),
        ({"to": [B], "depth": 1}, Handed(False, (B,), 1)),
        ({"evidence": EVIDENCE, "depth": 2}, Handed(True, (), 2, (Shown("urn:p", "pass", 5.0),))),
        ({"evidence": [], "scores": {"s": 0.5}}, Handed(True, scores={"s": 0.5})),
        ({"evidence": []}, Handed(True)),
        ({"depth": "1"}, None),
        ({"depth": True}, None),
        ({"to": "x"}, None),
        ({"to": [5]}, None),
        ({"scores": [1]}, None),
        ({"scores": {"s": "1"}}, None),
        ({"evidence": [{"policy": [], "result": "pass", "until": 1}]}, None),
        ({"evidence": 5}, None),
        ({"evidence": ["x"]}, None),
        ({"evidence": [{"policy": "p", "result": "pass"}]}, None),
        ({"evidence": [{"policy": "p", "result": "pass", "until": []}]}, None),
    ],
)
def test_what_an_entry_says(parameters: dict[str, Any], handed: Handed | None) -> None:
    assert handed_of(parameters) == handed


@pytest.mark.parametrize(
    ("criteria", "types"),
    [
        ({}, ["delegation"]),
        ({"outgoing": {}}, ["delegation"]),
        ({"outgoing": {"to": ["spiffe://x"]}}, ["delegation"]),
        ({"outgoing": {"to": ["https://x"]}}, ["delegation"]),
        ({"outgoing": {"max_depth": 0}}, ["delegation"]),
        ({"incoming": {"issuers": []}}, ["delegation"]),
        ({"incoming": {"issuers": ["urn:x:y"]}}, ["delegation"]),
        ({"incoming": {"result": "fail"}}, ["delegation"]),
        ({"incoming": {"performance": {"profile": "p"}}}, ["delegation"]),
        ({"incoming": {"witnesses": 1}}, ["delegation"]),
        ({"incoming": {"result": "pass"}}, ["delegation", "tool_call"]),
    ],
)
def test_wrong_criteria_are_refused(criteria: dict[str, Any], types: list[str]) -> None:
    behavior = {
        "behavior_id": "b",
        "observable_actions": types,
        "compliance_criteria": {"type": "delegation", **criteria},
    }
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    with pytest.raises(UsageError, match=r"^x: \$\.expected_behaviors\[0\]"):
        load_binding(json.dumps(document).encode(), "x")
