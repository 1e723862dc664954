"""Calls and octets per hour, day, month (UTC) or workflow."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Happening, Memory, Stateless
from lictor.bindings.schema import load_binding
from lictor.bindings.used import Tokens, Used, used_of
from lictor.formats.canonical import canonical
from lictor.formats.errors import UsageError

A, B = "spiffe://e.example/a", "spiffe://e.example/b"


def memory(**criteria: Any) -> Memory:
    compiled = compile_criteria({"type": "budget", **criteria})
    assert not isinstance(compiled, Stateless)
    return compiled.begin()


def at(text: str, agent: str = A, wid: str = "w") -> Happening:
    return Happening(agent, "tool_call", "urn:e1:x", wid, datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def do(on: Memory, happening: Happening, size: int = 0) -> str:
    outcome = on.judge(happening)
    if outcome.ok:
        on.took(happening)
        on.ended(happening, Used(size))
    return outcome.reason


@pytest.mark.parametrize(
    ("per", "last", "first"),
    [
        ("hour", "2026-03-01T09:59:59.999999", "2026-03-01T10:00:00"),
        ("day", "2026-03-01T23:59:59.999999", "2026-03-02T00:00:00"),
        ("month", "2026-02-28T23:59:59.999999", "2026-03-01T00:00:00"),
        ("month", "2026-12-31T23:59:59.999999", "2027-01-01T00:00:00"),
    ],
)
def test_a_window_ends_when_the_next_begins(per: str, last: str, first: str) -> None:
    budget = memory(per=per, calls=2)
    assert [do(budget, at(last)) for _ in range(3)] == ["", "", "budget_exhausted"]
    assert do(budget, at(last, B)) == ""
    assert [do(budget, at(first)) for _ in range(3)] == ["", "", "budget_exhausted"]


def test_octets_of_what_ended_count() -> None:
    budget = memory(per="day", bytes=1000)
    now = at("2026-03-01T12:00:00")
    assert [do(budget, now, 999), do(budget, now, 5000), do(budget, now)] == ["", "", "budget_exhausted"]
    assert "next day (UTC)" in budget.judge(now).hint


def test_octets_count_for_the_window_in_which_the_exchange_ended() -> None:
    budget = memory(per="hour", bytes=10)
    budget.took(at("2026-03-01T09:59:59"))
    budget.ended(at("2026-03-01T10:00:01"), Used(4, 6))
    assert do(budget, at("2026-03-01T10:00:02")) == "budget_exhausted"


def test_either_limit_exhausts_it() -> None:
    both = memory(per="day", calls=2, bytes=10)
    now = at("2026-03-01T12:00:00")
    assert [do(both, now, 1), do(both, now, 1), do(both, now)] == ["", "", "budget_exhausted"]


def test_a_workflow_is_shared_by_its_agents_and_has_no_end() -> None:
    budget = memory(per="workflow", calls=2)
    assert do(budget, at("2026-03-01T12:00:00")) == ""
    assert do(budget, at("2026-03-20T12:00:00", B)) == ""
    assert do(budget, at("2026-04-10T12:00:00")) == "budget_exhausted"
    assert do(budget, at("2026-04-10T12:00:00", wid="other")) == ""


def test_how_far_back_the_log_matters() -> None:
    assert [
        compile_criteria({"type": "budget", "per": per, "calls": 1}).horizon
        for per in ("hour", "day", "month", "workflow")
    ] == [3600.0, 86400.0, 31 * 86400.0, None]


STATED = {"model": "m", "input_tokens": 1, "output_tokens": 2}
PRICES = {"large-*": {"input": 10, "output": 40.5}, "large-2-mini": {"input": 0.1, "output": 0.4}}


def infer(on: Memory, used: Used) -> str:
    now = at("2026-03-01T12:00:00")
    outcome = on.judge(now)
    if outcome.ok:
        on.took(now)
        on.ended(now, used)
    return outcome.reason


def test_tokens_of_both_directions_count() -> None:
    budget = memory(per="day", tokens=1000)
    assert infer(budget, Used(9, 9, Tokens("m", 600, 399))) == ""
    assert infer(budget, Used(9, 9, Tokens("m", 1, 0))) == ""
    assert infer(budget, Used()) == "budget_exhausted"


@pytest.mark.parametrize(
    ("what", "used", "cost"),
    [
        ("exact name before prefix", Used(tokens=Tokens("large-2-mini", 1_000_000, 1_000_000)), 0.5),
        ("prefix", Used(tokens=Tokens("large-9", 100_000, 100_000)), 5.05),
        ("unknown model costs the highest", Used(tokens=Tokens("other", 100_000, 100_000)), 5.05),
        ("unstated: an octet is a token of the highest price", Used(100_000, 100_000), 5.05),
        ("unstated and failed costs nothing", Used(100_000, 100_000, failed=True), 0),
        ("stated though failed", Used(1, 1, Tokens("large-9", 100_000, 0), failed=True), 1),
    ],
)
def test_what_it_costs(what: str, used: Used, cost: float) -> None:
    for limit, after in ((cost, "budget_exhausted"), (cost + 0.000001, "")):
        if limit:
            budget = memory(per="day", cost=limit, prices=PRICES)
            assert infer(budget, used) == ""
            assert infer(budget, Used()) == after


def test_money_is_counted_without_rounding() -> None:
    budget = memory(per="month", cost=0.3, prices={"m": {"input": 0.1, "output": 0}})
    for _ in range(3):
        assert infer(budget, Used(tokens=Tokens("m", 1_000_000, 0))) == ""
    assert infer(budget, Used()) == "budget_exhausted"


@pytest.mark.parametrize(
    ("outcome", "used"),
    [
        ({}, Used(failed=True)),
        ({"status": 200, "request_bytes": 3, "response_bytes": 4}, Used(3, 4)),
        ({"status": 404, "request_bytes": 3}, Used(3, failed=True)),
        ({"status": 0, "usage": STATED}, Used(0, 0, Tokens("m", 1, 2), True)),
        ({"status": 200, "usage": {**STATED, "input_tokens": -1}}, Used()),
        ({"status": 200, "usage": {**STATED, "input_tokens": True}}, Used()),
        ({"status": 200, "usage": {**STATED, "model": 5}}, Used()),
        ({"status": 200, "usage": [1]}, Used()),
        ({"status": "200", "request_bytes": 1 << 60, "response_bytes": 1.5}, Used(failed=True)),
    ],
)
def test_what_an_outcome_says_was_used(outcome: dict[str, Any], used: Used) -> None:
    assert used_of(outcome) == used


@pytest.mark.parametrize(
    "criteria",
    [
        {"per": "day"},
        {"per": "week", "calls": 1},
        {"per": "day", "calls": 0},
        {"per": "day", "cost": 5},
        {"per": "day", "calls": 5, "prices": PRICES},
        {"per": "day", "prices": PRICES},
        {"per": "day", "cost": 5, "prices": {}},
        {"per": "day", "cost": 5, "prices": {"m": {"input": 1}}},
        {"per": "day", "cost": 0, "prices": PRICES},
        {"per": "day", "tokens": 1.5},
    ],
)
def test_wrong_criteria_are_refused(criteria: dict[str, Any]) -> None:
    behavior = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "budget", **criteria},
    }
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    with pytest.raises(UsageError, match=r"^x: \$\.expected_behaviors\[0\]\.compliance_criteria"):
        load_binding(canonical(document), "x")
