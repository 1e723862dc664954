"""Single windows judged again from entries: every BET of an honest log holds, and what is altered in one is found."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from lictor.evidence.bet import EMPTY_EVIDENCE, Bet
from lictor.evidence.sqlite_store import SqliteReader
from lictor.evidence.windows import DEFAULT_DENY, PolicyInfo
from lictor.verifier.bets import parse_bet
from lictor.verifier.service import sampling
from lictor.verifier.service.appraisal import References
from lictor.verifier.service.reevaluation import Reevaluation
from lictor.verifier.service.sampling import judge_window
from lictor.verifier.service.tiles import Unchecked


class Entries:
    """The entries of the log that all tests of the Verifier share."""

    def __init__(self, reader: SqliteReader) -> None:
        self.all = list(reader.entries())
        self.bets = [parse_bet(row.token) for row in reader.bets()]
        self.read_from: list[int] = []

    def read(self, first: int, end: int) -> Iterable[tuple[int, bytes]]:
        self.read_from.append(first)
        if first > len(self.all):
            raise Unchecked("the log has no such entries")
        return iter(self.all[first:end])

    def judge(self, one: Bet, references: References | None = None) -> list[str]:
        return [what for what, _ in judge_window(one, self.read, references or References())]

    def some(self) -> Bet:
        """A BET over several entries, not at the beginning, that says partial."""
        return next(one for one in self.bets[3:] if one.ext["count"] > 2 and one.result == "partial")


@pytest.fixture(scope="module")
def log(made: Any) -> Entries:
    with closing(SqliteReader(made.ledger)) as reader:
        return Entries(reader)


def test_every_bet_of_an_honest_log_holds(log: Entries) -> None:
    assert len(log.bets) > 20
    assert [log.judge(one) for one in log.bets] == [[]] * len(log.bets)


def test_a_bet_over_other_entries_is_found(log: Entries) -> None:
    one = log.some()
    assert log.judge(one) == []
    first, count, size = (one.ext[name] for name in ("first_seq", "count", "checkpoint_size"))
    for changes in (
        {"count": count - 1},
        {"count": 0, "first_seq": size},
        {"first_seq": first + 1},
        {"first_seq": first - 1},
        {"first_seq": size + 1000},
    ):
        assert log.judge(replace(one, ext={**one.ext, **changes})) == ["other_entries"], changes
    assert log.judge(replace(one, evidence="x" * 43)) == ["other_entries"]
    empty = replace(one, evidence=EMPTY_EVIDENCE, ext={**one.ext, "count": 0, "first_seq": size})
    assert log.judge(empty) == ["other_entries"], "what it leaves out stands before the place that it names"
    assert log.judge(replace(one, end=(one.start + one.end) / 2)) == ["other_entries"]


@pytest.fixture
def severities(made: Any, monkeypatch: pytest.MonkeyPatch) -> References:
    """Copies of the bindings of which nothing but the severities is looked at."""
    monkeypatch.setattr(sampling, "judge_again", lambda *_: Reevaluation((), ""))
    known = {one.digest: one for one in (*made.applying, *made.later)}
    monkeypatch.setattr(sampling, "PolicyInfo", Fake(known))
    return References(bindings=known)  # type: ignore[arg-type]


class Fake:
    """Makes of a policy itself, in place of a binding."""

    def __init__(self, known: dict[str, PolicyInfo]) -> None:
        self._known = known

    def __call__(self, *given: Any) -> PolicyInfo:
        return PolicyInfo(*given)

    def of(self, info: PolicyInfo) -> PolicyInfo:
        return self._known[info.digest]


def test_what_behaviors_counted_is_found(log: Entries, severities: References, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [log.judge(one, severities) for one in log.bets] == [[]] * len(log.bets)
    one = log.some()
    (first, *rest) = one.details
    lies: list[dict[str, Any]] = [
        {"result": "pass"},
        {"result": "fail"},
        {"details": ({**first, "violations": first["violations"] + 1}, *rest)},
        {"details": tuple(rest)},
    ]
    for lie in lies:
        assert log.judge(replace(one, **lie), severities) == ["other_entries"], lie
        assert log.judge(replace(one, **lie)) == [], "nothing is known of a binding of which there is no copy"
    denied = next(one for one in log.bets if one.ext.get("default_denied") and one.policy == DEFAULT_DENY.policy_id)
    ext = {**denied.ext, "binding_digest": ""}
    nothing = References(bindings={"": DEFAULT_DENY})  # type: ignore[dict-item]
    monkeypatch.setattr(sampling, "PolicyInfo", Fake({"": DEFAULT_DENY}))
    assert log.judge(replace(denied, ext=ext), nothing) == []
    hidden = replace(denied, result="pass", ext={**ext, "default_denied": 0})
    assert log.judge(hidden, nothing) == ["other_entries"], "what it does not say it does not count either"


def test_an_entry_that_is_not_what_its_binding_says_is_found(log: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "judge_again", lambda *_: Reevaluation((), "entry 1 is not what its bindings say"))
    assert set(log.judge(log.some())) == {"misjudged"}


def test_what_is_held_is_bounded(log: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_OCTETS", 1000)
    with pytest.raises(Unchecked, match="more than 1000 octets"):
        log.judge(log.some())


def test_windows_that_are_too_long_are_left_alone(log: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_SPAN", 2)
    with pytest.raises(Unchecked, match="more than 2 entries"):
        log.judge(log.some())


def test_what_cannot_be_read_accuses_nobody(log: Entries) -> None:
    for data in (b"x", b"{}", b"[]", b'{"timestamp":"now"}'):
        with pytest.raises(Unchecked, match="cannot be read"):
            judge_window(log.some(), lambda first, end, data=data: [(first, data)], References())  # type: ignore[misc]
