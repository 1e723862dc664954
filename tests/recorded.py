"""Entries as a log has them, for what reads logs."""

from __future__ import annotations

from typing import Any


def entry(target: Any, decision: str = "allow", **more: Any) -> dict[str, Any]:
    """An http_request of agent a, with `more` in place of what it says or besides."""
    return {
        "agent_id": "spiffe://e.example/agent/a",
        "action_type": "http_request",
        "action_target": target,
        "action_parameters": {"method": "GET"},
        "decision": decision,
        "reason": "allowed" if decision == "allow" else "not_in_allowlist",
        "behaviors": [{"behavior_id": "b"}],
        **more,
    }
