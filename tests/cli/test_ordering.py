"""`lictor delegation` and `agent hold`: what is asked of the monitor, and how its answers read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lictor.cli import ordering

AGENT = "spiffe://lictor.internal/agent/default"
HOLD = {
    "hold": 7,
    "agent": AGENT,
    "by": "user:me",
    "why": "odd\x1b[2J",
    "since": 1.0,
    "until": 61.0,
    "targets": ["urn:x:*"],
}
OPEN = {"node": "n1", "direction": "in", "agent": AGENT, "other": "spiffe://o.test/agent/far", "wid": "w", "since": 1.5}
OUT = {**OPEN, "node": "n2", "direction": "out", "other": "urn:x:agent"}
REVOKED = {**OPEN, "by": "user:me", "why": "wrong", "entry": 9, "ended": [3, 5]}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, run: Run) -> list[dict[str, Any]]:
    """What the monitor was asked."""
    found: list[dict[str, Any]] = []
    answers: dict[str, Any] = {
        "hold": {**HOLD, "ended": [1]},
        "holds": [HOLD],
        "unhold": [HOLD],
        "delegations": {"open": [OPEN, OUT], "revoked": [REVOKED]},
        "revoke_delegation": REVOKED,
    }

    def ask(ledger: Any, order: str, **arguments: Any) -> Any:
        found.append({"order": order, **arguments})
        return answers[order]

    monkeypatch.setattr(ordering, "ask", ask)
    assert run("init", ".")[0] == 0
    return found


def test_a_hold(run: Run, asked: list[dict[str, Any]]) -> None:
    words = "--for", "1.5m", "--action-type", "tool_call", "--target", "urn:x:*", "--workflow", "w", "--why", "odd"
    code, text = run("agent", "hold", "default", *words)
    assert asked == [
        {
            "order": "hold",
            "agent": AGENT,
            "why": "odd",
            "seconds": 90.0,
            "action_types": ["tool_call"],
            "targets": ["urn:x:*"],
            "workflow": "w",
        }
    ]
    said = "everything on urn:x:* of default waits, until 1970-01-01 00:01:01Z (hold 7); 1 open tunnels end"
    assert (code, said in text) == (0, True), text
    assert json.loads(run("agent", "hold", "default", "--json")[1])["ok"] is True
    assert asked[1] == {"order": "hold", "agent": AGENT, "why": ""}


@pytest.mark.parametrize("text", ["", "m", "10 m", "-1m", "1w", "1e3", "٣m"])
def test_what_is_no_time(run: Run, asked: list[dict[str, Any]], text: str) -> None:
    code, said = run("agent", "hold", "default", f"--for={text}")
    assert (code, "--for: expected a time like 90s, 10m, 2h or 1d" in said, asked) == (2, True, [])


def test_holds_are_listed_and_taken_back(run: Run, asked: list[dict[str, Any]]) -> None:
    listed = run("agent", "holds")[1]
    assert "\x1b" not in listed
    assert "urn:x:*" in listed
    assert "default waits no longer" in run("agent", "unhold", "default", "--hold", "7", "--why", "fine")[1]
    assert run("agent", "unhold", "spiffe://o.test/monitor/m")[0] == 0
    assert asked[1:] == [
        {"order": "unhold", "agent": AGENT, "why": "fine", "hold": 7},
        {"order": "unhold", "agent": "spiffe://o.test/monitor/m", "why": ""},
    ]


def test_delegations(run: Run, asked: list[dict[str, Any]]) -> None:
    listed = run("delegation", "list")[1].splitlines()
    rows = {line.split()[0]: line.split()[1:3] for line in listed if line.split()[0] in ("n1", "n2")}
    assert rows == {"n1": ["default", "user:me"], "n2": ["default", "urn:x:agent"]}
    assert any("n1" in line and "spiffe://o" in line for line in listed)
    text = run("delegation", "revoke", "n1", "--why", "wrong")[1]
    assert text == "revoked: n1 of default, entry 9; 2 open actions end\n"
    assert asked[-1] == {"order": "revoke_delegation", "node": "n1", "why": "wrong"}
    assert json.loads(run("delegation", "revoke", "n1", "--json")[1]) == {"ok": True, **REVOKED}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--monitor", "http://127.0.0.1:1"), "--monitor: expected https://HOST:PORT"),
        (("--monitor", "https://127.0.0.1:1/x"), "--monitor: expected https://HOST:PORT"),
        (("--monitor", "https://127.0.0.1:1", "--key", "k"), "--cert and --key go together"),
        (("--monitor", "https://127.0.0.1:1", "--as", "nobody"), "nobody"),
        (("--monitor", "https://127.0.0.1:1"), "the monitor at https://127.0.0.1:1 does not answer"),
    ],
)
def test_what_cannot_be_ordered_from_afar(
    run: Run, asked: list[dict[str, Any]], words: tuple[str, ...], said: str
) -> None:
    code, text = run("agent", "holds", *words)
    assert (code, said in text, asked) == (2, True, []), text
