"""Windows: the running hash is the hash of the array, and what makes a window fail."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lictor.bindings.model import ActionType, Behavior, Binding
from lictor.evidence.bet import EMPTY_EVIDENCE
from lictor.evidence.windows import AgentWindows, PolicyInfo, Window
from lictor.formats import base64url
from lictor.formats.canonical import canonical

AGENT = "spiffe://example.test/agent/a"
P, Q = (
    PolicyInfo("urn:p", "1.0.0", "p", {"p1": "high", "p2": "critical"}),
    PolicyInfo("urn:q", "1.0.0", "q", {"q1": "low"}),
)


def windows() -> AgentWindows:
    return AgentWindows([Window(AGENT, policy, 1.0, 0, None) for policy in (P, Q)], 0.0)


def said(policy: str, behavior: str, result: str = "pass") -> dict[str, str]:
    return {"policy_id": policy, "behavior_id": behavior, "result": result, "version": "1.0.0", "binding": "x"}


def results(of: AgentWindows) -> list[str]:
    return [window.result() for window in of.open]


entries = st.lists(st.dictionaries(st.text(max_size=4), st.integers(-(2**53) + 1, 2**53 - 1) | st.text(), max_size=4))


@given(entries)
def test_the_running_hash_is_that_of_the_array(made: list[dict[str, Any]]) -> None:
    made = [{k: v for k, v in entry.items() if not k or max(k) < "\ue000"} for entry in made]
    window = Window(AGENT, P, 1.0, 0, None)
    for seq, entry in enumerate(made):
        window.add(seq, canonical(entry))
        window.evidence()
    assert window.evidence() == base64url.encode(hashlib.sha256(canonical(made)).digest())
    assert window.count == len(made)


def test_an_empty_window() -> None:
    assert Window(AGENT, P, 1.0, 0, None).evidence() == EMPTY_EVIDENCE


def test_the_next_window_begins_where_this_one_ends() -> None:
    window = Window(AGENT, P, 1.0, 0, None)
    window.add(3, b"{}")
    window.judge("p1", True, True)
    window.restart(2.5, 9, "bet-1")
    assert (window.start, window.first_seq, window.count, window.prev_bet) == (2.5, 9, 0, "bet-1")
    assert window.evidence() == EMPTY_EVIDENCE
    assert window.result() == "pass"
    row = window.row()
    assert (row.agent_id, row.policy_id, row.start, row.first_seq, row.prev_bet) == (AGENT, "urn:p", 2.5, 9, "bet-1")


def test_every_entry_is_in_the_window_of_every_policy() -> None:
    both = windows()
    both.action(4, b"1", [said("urn:p", "p1")], "allow")
    both.note(5, b"2")
    expected = base64url.encode(hashlib.sha256(b"[1,2]").digest())
    assert [(w.count, w.first_entry, w.evidence()) for w in both.open] == [(2, 4, expected)] * 2


def test_a_violation_is_of_the_policy_whose_behavior_failed() -> None:
    both = windows()
    violated = both.action(0, b"1", [said("urn:p", "p1", "fail"), said("urn:q", "q1")], "deny")
    assert [window.policy for window in violated] == [P]
    assert results(both) == ["fail", "pass"]
    assert both.open[0].tallies["p1"].prevented == 1
    assert [window.default_denied for window in both.open] == [0, 0]


def test_a_flagged_violation_was_not_prevented() -> None:
    both = windows()
    assert both.action(0, b"1", [said("urn:p", "p1", "fail"), said("urn:p", "p2")], "flag") == [both.open[0]]
    tally = both.open[0].tallies["p1"]
    assert (tally.violations, tally.prevented) == (1, 0)
    assert results(both) == ["partial", "pass"]


def test_default_deny_is_a_violation_of_every_policy() -> None:
    both = windows()
    both.action(0, b"1", [said("urn:p", "p1")], "allow")
    assert both.action(1, b"2", [], "deny") == list(both.open)
    assert [window.default_denied for window in both.open] == [1, 1]
    assert results(both) == ["partial", "fail"]


def test_a_denial_that_no_behavior_asked_for_is_no_pass() -> None:
    """The monitor itself refused, although the behaviors passed."""
    both = windows()
    assert both.action(0, b"1", [said("urn:p", "p1"), said("urn:q", "q1")], "deny") == list(both.open)
    assert results(both) == ["partial", "partial"]


def test_an_allowed_action_that_nothing_judged_is_no_pass() -> None:
    both = windows()
    assert both.action(0, b"1", [said("urn:gone", "x")], "allow") == list(both.open)
    assert results(both) == ["fail", "fail"]
    assert [window.unjudged for window in both.open] == [1, 1]


def test_outcomes_need_no_judgement() -> None:
    both = windows()
    both.note(0, b"1")
    assert results(both) == ["pass", "pass"]


def test_what_evidence_needs_of_a_binding() -> None:
    behavior = Behavior("b", "", frozenset({ActionType.TOOL_CALL}), {}, "critical")
    binding = Binding("urn:p", "1.2.3", (), (behavior,), "continuous", "enforce", "digest", {})
    assert PolicyInfo.of(binding) == PolicyInfo("urn:p", "1.2.3", "digest", {"b": "critical"})
