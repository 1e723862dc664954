"""How long is too long: waits that last, that change, and bodies that bring what they should."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lictor.engine.patience import BODY_RATE, Patience, TimeLimits, Wait

LIMITS = TimeLimits(head=10, body=20, idle=30, stream=40, answer=50)


def wait(what: Any, key: Any = 1, size: int = 0) -> Wait:
    return Wait(what, key, None, SimpleNamespace(request_body_buf=b"x" * size))  # type: ignore[arg-type]


def over(patience: Patience, now: float, *waits: Wait) -> list[str]:
    return [one.what for one in patience.over(list(waits), now)]


@pytest.mark.parametrize(("what", "allowed"), [("head", 10), ("handshake", 10), ("body", 20), ("answer", 50)])
def test_a_wait_that_lasts(what: str, allowed: float) -> None:
    patience = Patience(LIMITS)
    assert over(patience, 100, wait(what)) == []
    assert over(patience, 100 + allowed - 0.1, wait(what)) == []
    assert over(patience, 100 + allowed, wait(what)) == [what]


def test_another_request_is_another_wait() -> None:
    patience = Patience(LIMITS)
    for now in range(0, 100, 9):
        assert over(patience, now, wait("head", key=now)) == []


def test_a_wait_that_has_ended_is_forgotten() -> None:
    patience = Patience(LIMITS)
    over(patience, 0, wait("head"))
    assert over(patience, 9) == []
    assert over(patience, 12, wait("head")) == []


def test_waits_of_one_connection_are_apart() -> None:
    patience = Patience(LIMITS)
    over(patience, 0, wait("answer", 1))
    over(patience, 30, wait("answer", 1), wait("answer", 2))
    assert [w.key for w in patience.over([wait("answer", 1), wait("answer", 2)], 60)] == [1]


def test_a_body_must_bring_its_rate() -> None:
    """What it brings gives it time; a trickle does not."""
    patience = Patience(LIMITS)
    over(patience, 0, wait("body"))
    assert over(patience, 59, wait("body", size=40 * BODY_RATE)) == []
    assert over(patience, 60, wait("body", size=40 * BODY_RATE)) == ["body"]


@pytest.mark.parametrize(("shortest", "interval"), [(0.04, 0.02), (2, 0.5), (60, 1.0)])
def test_sweeps_are_as_frequent_as_the_shortest_limit_needs(shortest: float, interval: float) -> None:
    assert TimeLimits(head=shortest, body=90, idle=90, stream=90, answer=90).interval == interval
