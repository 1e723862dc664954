"""Memories of several behaviors: who speaks, who is remembered, and that the log alone makes them again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.criterion import Happening
from lictor.bindings.memory import Memories
from lictor.bindings.model import Binding, Verdict
from lictor.bindings.schema import load_binding
from lictor.bindings.used import Used

A, B = "spiffe://e.example/agent/a", "spiffe://e.example/agent/b"
X, PRIVATE = "urn:e1:tool:x", "urn:e1:ds:private"


def bound(name: str, *behaviors: dict[str, Any], **more: Any) -> Binding:
    document = {
        "policy_id": f"urn:policy:{name}",
        "evaluation_mode": "continuous",
        "expected_behaviors": [{"observable_actions": ["tool_call"], **behavior} for behavior in behaviors],
        **more,
    }
    return load_binding(json.dumps(document).encode(), name)


def rate(name: str, limit: int, **more: Any) -> dict[str, Any]:
    return {
        "behavior_id": name,
        "compliance_criteria": {"type": "rate", "limit": limit, "period_s": 10},
        **more,
    }


def call(time: float, target: str = X, agent: str = A, type_: str = "tool_call", wid: str = "w") -> Happening:
    return Happening(agent, type_, target, wid, time)


def test_who_speaks() -> None:
    memories = Memories(
        [
            bound("p", rate("all", 9), rate("some", 9, targets=["urn:e1:tool:y"])),
            bound("q", rate("other", 9), subjects=[B]),
            bound("r", {"behavior_id": "list", "compliance_criteria": {"type": "allowlist", "values": []}}),
        ]
    )

    def speaking(happening: Happening) -> list[str] | None:
        said = memories.judge(happening)
        return None if said is None else [result.behavior_id for result in said.behaviors]

    assert not memories.empty
    assert speaking(call(1.0)) == ["all"]
    assert speaking(call(1.0, "urn:e1:tool:y")) == ["all", "some"]
    assert speaking(call(1.0, agent=B)) == ["all", "other"]
    assert speaking(call(1.0, type_="http_request")) is None


def test_without_stateful_behaviors_there_is_nothing_to_do() -> None:
    memories = Memories(
        [bound("r", {"behavior_id": "list", "compliance_criteria": {"type": "allowlist", "values": []}})]
    )
    assert memories.empty
    assert memories.judge(call(1.0)) is None


def test_all_speak_and_the_first_that_denies_gives_the_reason() -> None:
    flow = {"type": "sequence", "scope": "agent", "never_after": [PRIVATE]}
    memories = Memories(
        [
            bound("a", rate("watch", 1), mode="audit"),
            bound("b", rate("flag", 1, on_violation="flag")),
            bound("c", {"behavior_id": "flow", "compliance_criteria": flow}, rate("deny", 1)),
        ]
    )
    memories.took(call(1.0))
    said = memories.judge(call(2.0))
    assert said is not None
    assert (said.verdict, said.reason) == (Verdict.DENY, "rate_exceeded")
    assert said.blamed is not None
    assert said.blamed.behavior_id == "deny"
    assert [(r.behavior_id, r.result) for r in said.behaviors] == [
        ("watch", "fail"),
        ("flag", "fail"),
        ("flow", "pass"),
        ("deny", "fail"),
    ]
    memories.took(call(3.0, PRIVATE, type_="data_source_access"))
    said = memories.judge(call(4.0))
    assert said is not None
    assert said.reason == "forbidden_after"
    assert said.blamed is not None
    assert said.blamed.behavior_id == "flow"


def test_flags_give_the_reason_of_the_first() -> None:
    memories = Memories([bound("a", rate("watch", 1), mode="audit"), bound("b", rate("flag", 1, on_violation="flag"))])
    memories.took(call(1.0))
    said = memories.judge(call(2.0))
    assert said is not None
    assert (said.verdict, said.reason, said.blamed) == (Verdict.FLAG, "audit:rate_exceeded", None)


def test_how_far_back_the_log_matters() -> None:
    def budget(per: str) -> dict[str, Any]:
        return {"behavior_id": per, "compliance_criteria": {"type": "budget", "per": per, "calls": 1}}

    assert Memories([bound("p", rate("r", 1))]).horizon == 10
    assert Memories([bound("p", rate("r", 1), budget("day"))]).horizon == 86400
    assert Memories([bound("p", budget("workflow"), rate("r", 1))]).horizon is None


BINDINGS = [
    bound("p", rate("rate", 3), rate("some", 2, targets=[X])),
    bound(
        "q",
        {"behavior_id": "calls", "compliance_criteria": {"type": "budget", "per": "hour", "calls": 12, "bytes": 9000}},
        {
            "behavior_id": "flow",
            "compliance_criteria": {"type": "sequence", "scope": "workflow", "never_after": [PRIVATE], "within_s": 30},
        },
    ),
]
STEP = st.tuples(
    st.floats(0.001, 400),
    st.sampled_from((X, PRIVATE, "urn:e1:tool:y")),
    st.sampled_from((A, B)),
    st.sampled_from(("w1", "w2")),
    st.integers(0, 900),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=80))
def test_what_was_let_out_makes_the_same_memories_again(steps: list[tuple[float, str, str, str, int]]) -> None:
    live, now = Memories(BINDINGS), 1_790_000_000.0
    log: list[tuple[Happening, int]] = []
    assert live.horizon == 3600
    for wait, target, agent, wid, size in steps:
        now += wait
        happening = call(now, target, agent, "tool_call", wid)
        again = Memories(BINDINGS)
        for past, octets in log:
            if past.time >= now - live.horizon:
                again.took(past)
                again.ended(past, Used(octets))
        said = live.judge(happening)
        assert said == again.judge(happening)
        assert said is not None
        if said.allowed:
            live.took(happening)
            live.ended(happening, Used(size))
            log.append((happening, size))


def test_what_has_a_memory_may_hold_too() -> None:
    memories = Memories([bound("a", rate("flag", 1, on_violation="flag"), rate("hold", 1, on_violation="hold"))])
    memories.took(call(1.0))
    said = memories.judge(call(2.0))
    assert said is not None
    assert said.blamed is not None
    assert (said.verdict, said.blamed.behavior_id) == (Verdict.HOLD, "hold")
