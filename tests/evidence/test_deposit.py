"""What waits is taken once, by whom it is for, in time, and takes nobody else's room."""

from __future__ import annotations

import pytest

from lictor.evidence import deposit
from lictor.evidence.deposit import Deposit
from lictor.evidence.entry import Tokens

A, B = "spiffe://x.test/monitor/a", "spiffe://x.test/monitor/b"
ONE, TWO = Tokens(("node",), ("bet",), ("note",)), Tokens(("node.2",), ("bet.2",))


def test_taken_once_by_its_owner() -> None:
    box = Deposit(30)
    assert box.put(A, "r", ONE, 0.0) == ""
    assert box.take(B, "r", 1.0) is None
    assert box.take(A, "s", 1.0) is None
    assert box.take(A, "r", 1.0) == ONE
    assert box.take(A, "r", 1.0) is None
    assert len(box) == 0


def test_looked_at_more_than_once() -> None:
    box = Deposit(30)
    box.put(A, "r", ONE, 0.0)
    assert [box.look(A, "r", 1.0), box.look(A, "r", 2.0), box.look(B, "r", 2.0)] == [ONE, ONE, None]


@pytest.mark.parametrize(("at", "found"), [(29.9, ONE), (30.0, None)])
def test_forgotten_in_time(at: float, found: Tokens | None) -> None:
    for ask in (Deposit.take, Deposit.look):
        box = Deposit(30)
        box.put(A, "r", ONE, 0.0)
        assert ask(box, A, "r", at) == found


def test_under_one_name_the_first_stays() -> None:
    box = Deposit(30)
    assert [box.put(A, "r", one, 0.0) for one in (ONE, ONE, TWO)] == ["", "", "other evidence waits for this already"]
    assert box.take(A, "r", 1.0) == ONE
    assert box.put(B, "r", TWO, 0.0) == ""


def test_room_of_each_and_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deposit, "OWNER_BYTES", 4000)
    monkeypatch.setattr(deposit, "ALL_BYTES", 12_000)
    box, large = Deposit(30), Tokens(("x" * 1400,))
    said = [box.put(owner, name, large, 0.0) for owner in (A, B) for name in "123"]
    full = "too much evidence waits already"
    assert said == ["", "", full, "", full, full]
    assert box.take(A, "1", 1.0) == large
    assert box.put(B, "2", large, 1.0) == "", "what was taken makes room"
    assert [box.put("spiffe://c/x", str(n), large, 31.0) for n in range(3)] == ["", "", full], (
        "so does what is forgotten"
    )


def test_a_trust_domain_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may call as many monitors its own as it likes."""
    monkeypatch.setattr(deposit, "ALL_BYTES", 64_000)
    box, large = Deposit(30), Tokens(("x" * 1400,))
    said = [box.put(f"spiffe://many.test/monitor/{n}", "r", large, 0.0) for n in range(64)]
    assert 0 < said.count("") <= 17
    assert box.put(A, "r", large, 0.0) == ""


def test_a_flood_leaves_nothing_behind() -> None:
    box = Deposit(1)
    for n in range(20_000):
        box.put(A, str(n), ONE, n / 10_000)
    assert len(box) <= 10_001
    assert box.look(A, "0", 99.0) is None
    assert (len(box), box._bytes, dict(box._bytes_of)) == (0, 0, {})
