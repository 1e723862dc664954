"""A sliding window, exact at its edges: checked against a slow and obvious model."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.bindings import remembered
from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Happening, Memory, Stateless

A, B = "spiffe://e.example/a", "spiffe://e.example/b"
X, Y = "urn:example:tool:x", "urn:example:tool:y"


def memory(limit: int, period: float, **more: Any) -> Memory:
    compiled = compile_criteria({"type": "rate", "limit": limit, "period_s": period, **more})
    assert not isinstance(compiled, Stateless)
    assert compiled.horizon == period
    return compiled.begin()


def do(on: Memory, time: float, agent: str = A, target: str = X) -> str:
    """Judge and, if that is good, take; the reason."""
    happening = Happening(agent, "tool_call", target, "w", time)
    outcome = on.judge(happening)
    if outcome.ok:
        on.took(happening)
    return outcome.reason


def test_limit_and_recovery() -> None:
    rate = memory(2, 10)
    assert [do(rate, t) for t in (100.0, 104.0, 105.0, 109.999)] == ["", "", "rate_exceeded", "rate_exceeded"]
    assert do(rate, 110.0) == ""
    assert do(rate, 113.0) == "rate_exceeded"
    assert do(rate, 114.0) == ""


def test_the_hint_says_when() -> None:
    rate = memory(1, 60)
    do(rate, 100.0)
    assert rate.judge(Happening(A, "tool_call", X, "w", 130.5)).hint.endswith("try again in 30 s.")


def test_of_each_agent_and_of_each_target() -> None:
    rate = memory(1, 10)
    assert [do(rate, 1.0), do(rate, 1.0, B), do(rate, 2.0, A, Y)] == ["", "", "rate_exceeded"]
    each = memory(1, 10, per="target")
    assert [do(each, 1.0), do(each, 2.0, A, Y), do(each, 3.0)] == ["", "", "rate_exceeded"]


def test_what_was_let_out_over_the_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = memory(2, 10)
    for time in (1.0, 2.0, 3.0, 4.0):
        rate.took(Happening(A, "tool_call", X, "w", time))
    assert do(rate, 12.9) == "rate_exceeded"
    assert do(rate, 13.0) == ""


def test_too_many_targets_are_refused_until_some_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered.Remembered.__init__, "__defaults__", (3,))
    each = memory(5, 10, per="target")
    assert [do(each, t, A, f"urn:example:tool:{t}") for t in (1.0, 2.0, 3.0)] == ["", "", ""]
    assert do(each, 4.0, A, Y) == "rate_exceeded"
    assert do(each, 5.0, A, "urn:example:tool:3.0") == ""
    assert do(each, 11.1, A, Y) == ""


@given(
    st.integers(1, 4),
    st.floats(0.5, 20),
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from((A, B))), max_size=60),
)
def test_never_more_than_the_limit_in_any_stretch(
    limit: int, period: float, steps: Iterable[tuple[float, str]]
) -> None:
    rate, now = memory(limit, period), 0.0
    out: dict[str, list[float]] = {A: [], B: []}
    for wait, agent in steps:
        now += wait
        free = sum(1 for time in out[agent] if time + period > now) < limit
        assert (do(rate, now, agent) == "") is free
        if free:
            out[agent].append(now)
