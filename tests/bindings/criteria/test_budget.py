"""Calls and octets per hour, day, month (UTC) or workflow."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Happening, Memory, Stateless
from lictor.bindings.schema import load_binding
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
        on.ended(happening, size)
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
    budget.ended(at("2026-03-01T10:00:01"), 10)
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


@pytest.mark.parametrize("criteria", [{"per": "day"}, {"per": "week", "calls": 1}, {"per": "day", "calls": 0}])
def test_wrong_criteria_are_refused(criteria: dict[str, Any]) -> None:
    behavior = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "budget", **criteria},
    }
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    with pytest.raises(UsageError, match=r"^x: \$\.expected_behaviors\[0\]\.compliance_criteria"):
        load_binding(canonical(document), "x")
