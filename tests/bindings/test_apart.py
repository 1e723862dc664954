"""Behaviors one by one: whoever is told of any number of agents remembers a bounded number."""

from __future__ import annotations

from lictor.bindings.apart import MAX_FOUND, Rules
from lictor.bindings.model import ActionType, Behavior, Binding


def test_agents_are_not_remembered_without_bound() -> None:
    criteria = {"type": "allowlist", "values": ["urn:example:x"]}
    behavior = Behavior("b", "", frozenset([ActionType.TOOL_CALL]), criteria)
    rules = Rules([Binding("urn:p", "1.0.0", (), (behavior,), "continuous", "enforce", "d", {})])
    for number in range(MAX_FOUND + 10):
        (rule,) = rules.of(f"spiffe://x/agent/{number}", ActionType.TOOL_CALL)
        assert rule.behavior is behavior
    assert len(rules._found) <= MAX_FOUND
