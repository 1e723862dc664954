"""Memories against a model that keeps everything that ever happened and looks at all of it each time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.criterion import Happening
from lictor.bindings.memory import Memories
from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.bindings.used import Tokens, Used

AGENTS = ("spiffe://e.example/agent/a", "spiffe://e.example/agent/b")
X, Y, PRIVATE = "urn:e1:tool:x", "urn:e1:tool:y", "urn:e1:ds:private"
START = 1_790_035_200.0
PRICES = {"small": {"input": 1, "output": 2}, "lar*": {"input": 10, "output": 30.5}}


@dataclass
class Past:
    """Everything that was let out, and everything that ended."""

    took: list[Happening] = field(default_factory=list)
    ended: list[tuple[Happening, Used]] = field(default_factory=list)


def observes(behavior: dict[str, Any], one: Happening) -> bool:
    return one.type in behavior["observable_actions"] and one.target in behavior.get("targets", (X, Y, PRIVATE))


def breaks(behavior: dict[str, Any], past: Past, now: Happening) -> bool:
    criteria = behavior["compliance_criteria"]
    counted = [one for one in past.took if observes(behavior, one)]
    if criteria["type"] == "rate":
        same = [one for one in counted if one.agent_id == now.agent_id]
        if criteria.get("per") == "target":
            same = [one for one in same if one.target == now.target]
        return sum(one.time + criteria["period_s"] > now.time for one in same) >= criteria["limit"]
    if criteria["type"] == "sequence":
        mine = [one for one in past.took if together(criteria["scope"] == "workflow", one, now)]
        before = criteria.get("must_follow") or criteria["never_after"]
        happened = any(
            one.target in before and now.time - one.time <= criteria.get("within_s", float("inf")) for one in mine
        )
        if now.target in criteria.get("except", ()):
            return False
        return not happened and now.target not in before if "must_follow" in criteria else happened
    per = criteria["per"]
    mine = [one for one in counted if together(per == "workflow", one, now) and window(per, one) == window(per, now)]
    used = [
        used
        for one, used in past.ended
        if observes(behavior, one) and together(per == "workflow", one, now) and window(per, one) == window(per, now)
    ]
    spent = {
        "calls": len(mine),
        "bytes": sum(one.sent + one.received for one in used),
        "tokens": sum(sum(tokens(one)[1:]) for one in used),
        "cost": sum(cost(*tokens(one)) for one in used),
    }
    return any(
        spent[name] >= criteria[name] * (1_000_000 if name == "cost" else 1) for name in spent if name in criteria
    )


def together(workflow: bool, one: Happening, other: Happening) -> bool:
    return one.wid == other.wid if workflow else one.agent_id == other.agent_id


def window(per: str, one: Happening) -> str:
    return datetime.fromtimestamp(one.time, UTC).strftime(
        {"hour": "%Y%m%d%H", "day": "%Y%m%d", "month": "%Y%m"}.get(per, "")
    )


def tokens(used: Used) -> tuple[str, int, int]:
    if used.tokens is not None:
        return used.tokens.model, used.tokens.input, used.tokens.output
    return ("", 0, 0) if used.failed else ("", used.sent, used.received)


def cost(model: str, sent: int, received: int) -> float:
    """In millionths."""
    price = PRICES["small"] if model == "small" else PRICES["lar*"]
    return sent * price["input"] + received * price["output"]


def behavior(criteria: dict[str, Any], targets: list[str] | None) -> dict[str, Any]:
    return {
        "observable_actions": ["tool_call"],
        "compliance_criteria": criteria,
        **({"targets": targets} if targets else {}),
    }


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


LISTS = st.lists(st.sampled_from([X, Y, PRIVATE]), min_size=1, max_size=2, unique=True)
RATES = st.builds(
    lambda limit, period, more: {"type": "rate", "limit": limit, "period_s": period, **more},
    st.integers(1, 4),
    st.sampled_from([5, 60.5, 4000]),
    some(per=st.sampled_from(["agent", "target"])),
)
BUDGETS = st.builds(
    lambda per, limits: {
        "type": "budget",
        "per": per,
        **(limits or {"calls": 2}),
        **({"prices": PRICES} if "cost" in limits else {}),
    },
    st.sampled_from(["hour", "day", "month", "workflow"]),
    some(
        calls=st.integers(1, 5), bytes=st.sampled_from([1, 400]), tokens=st.sampled_from([1, 300]), cost=st.just(0.005)
    ),
)
SEQUENCES = st.builds(
    lambda scope, kind, before, more: {"type": "sequence", "scope": scope, kind: before, **more},
    st.sampled_from(["agent", "workflow"]),
    st.sampled_from(["must_follow", "never_after"]),
    LISTS,
    some(within_s=st.sampled_from([5, 63.0, 5000]), **{"except": LISTS}),
)
KINDS = ["rate", "budget", "sequence", "all"]
USED = st.builds(
    Used,
    st.integers(0, 300),
    st.integers(0, 300),
    st.none()
    | st.builds(Tokens, st.sampled_from(["small", "large", "other"]), st.integers(0, 300), st.integers(0, 300)),
    st.booleans(),
)
WAITS = st.sampled_from([0.0, 0.5, 2.5, 5.0, 60.5, 3000.0, 42_000.0])
ACTS = st.tuples(
    WAITS,
    st.sampled_from([*["tool_call"] * 4, "data_source_access"]),
    st.sampled_from([X, X, X, Y, PRIVATE]),
    st.sampled_from([AGENTS[0], AGENTS[0], AGENTS[1]]),
    st.sampled_from(["w1", "w1", "w2"]),
)
ENDS = st.tuples(WAITS, st.integers(0, 5), USED)


def bound(behaviors: list[dict[str, Any]]) -> Binding:
    numbered = [{"behavior_id": f"b{i}", **one} for i, one in enumerate(behaviors)]
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": numbered}
    return load_binding(json.dumps(document).encode(), "test")


def again(binding: Binding, past: Past, now: float, horizon: float | None) -> Memories:
    """As after a restart: from what the log holds, no further back than it matters."""
    memories = Memories([binding])
    log: list[tuple[float, int, Happening, Used | None]] = [(one.time, 0, one, None) for one in past.took]
    log += [(one.time, 1, one, used) for one, used in past.ended]
    for time, _, one, used in sorted(log, key=lambda line: line[:2]):
        if horizon is not None and time < now - horizon:
            continue
        if used is None:
            memories.took(one)
        else:
            memories.ended(one, used)
    return memories


@pytest.mark.parametrize("kind", [RATES, BUDGETS, SEQUENCES, RATES | BUDGETS | SEQUENCES], ids=KINDS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_memories_say_what_looking_at_everything_says(kind: st.SearchStrategy[Any], data: st.DataObject) -> None:
    behaviors = data.draw(st.lists(st.builds(behavior, kind, st.none() | LISTS), min_size=1, max_size=3))
    steps: list[tuple[Any, ...]] = data.draw(st.lists(ACTS | ENDS, min_size=8, max_size=30))
    binding = bound(behaviors)
    live, past, open_, now = Memories([binding]), Past(), list[Happening](), START
    for step in steps:
        now += step[0]
        if len(step) == 3:
            if open_:
                one = open_.pop(step[1] % len(open_))
                done = Happening(one.agent_id, one.type, one.target, one.wid, now)
                live.ended(done, step[2])
                past.ended.append((done, step[2]))
            continue
        _, type_, target, agent, wid = step
        happening = Happening(agent, type_, target, wid, now)
        expected = {
            f"b{i}": "fail" if breaks(one, past, happening) else "pass"
            for i, one in enumerate(behaviors)
            if observes(one, happening)
        }
        for memories in (live, again(binding, past, now, live.horizon)):
            said = memories.judge(happening)
            assert (said is None) == (not expected)
            assert said is None or {r.behavior_id: r.result for r in said.behaviors} == expected
        if "fail" not in expected.values():
            live.took(happening)
            past.took.append(happening)
            open_.append(happening)
