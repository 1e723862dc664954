"""`lictor approve`, `agent quarantine` and `release`: what is asked of the monitor, and how its answers read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lictor.cli import ordering
from lictor.formats.errors import UsageError

WAITING = {
    "seq": 7,
    "agent": "spiffe://lictor.internal/agent/default",
    "action_type": "tool_call",
    "action_target": "urn:x:tool",
    "action_parameters": {},
    "reason": "not_in_allowlist",
    "behaviors": [{"policy_id": "urn:p", "behavior_id": "ask\x1b[2J"}],
    "since": 1.5,
    "waiting_s": 12.4,
}
STANDING = {**WAITING, "approval": 3, "by": "user:me", "why": ""}
Run = Callable[..., tuple[int, str]]


class Monitor:
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {
            "waiting": [WAITING],
            "standing": [STANDING],
            "decide": {**WAITING, "approval": 9},
            "revoke": STANDING,
            "quarantine": {"agent": WAITING["agent"], "entry": 5, "why": "strange"},
            "release": {"agent": WAITING["agent"]},
            "quarantined": [{"agent": WAITING["agent"], "why": "strange"}],
        }

    def ask(self, ledger: Any, order: str, **arguments: Any) -> Any:
        self.asked.append({"order": order, **arguments})
        if isinstance(self.answers[order], Exception):
            raise self.answers[order]
        return self.answers[order]


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch, run: Run) -> Monitor:
    made = Monitor()
    monkeypatch.setattr(ordering, "ask", made.ask)
    assert run("init", ".")[0] == 0
    return made


def test_what_waits_and_what_is_approved(run: Run, monitor: Monitor) -> None:
    code, text = run("approve")
    flat = " ".join(text.split())
    assert code == 0
    assert "default" in flat
    assert "ask\\x1b[2J of urn:p" in flat, "nothing steers the terminal"
    assert "lictor approve SEQ [--always | --deny]" in flat
    assert "lictor approve --revoke N" in flat
    assert json.loads(run("approve", "--json")[1]) == {"waiting": [WAITING], "standing": [STANDING]}


def test_nothing_waits(run: Run, monitor: Monitor) -> None:
    monitor.answers |= {"waiting": [], "standing": []}
    assert run("approve") == (0, "nothing waits for a decision\n")


@pytest.mark.parametrize(
    ("arguments", "asked", "text"),
    [
        (["7"], {"allow": True, "always": False, "why": ""}, "approved: tool_call urn:x:tool of default"),
        (["7", "--deny", "--why", "no"], {"allow": False, "always": False, "why": "no"}, "denied: tool_call"),
        (["7", "--always"], {"allow": True, "always": True, "why": ""}, "from now on (standing approval 9)"),
    ],
)
def test_deciding(run: Run, monitor: Monitor, arguments: list[str], asked: dict[str, Any], text: str) -> None:
    code, said = run("approve", *arguments)
    assert (code, monitor.asked) == (0, [{"order": "decide", "seq": 7, **asked}])
    assert text in said
    assert json.loads(run("approve", *arguments, "--json")[1])["ok"] is True


def test_taking_an_approval_back(run: Run, monitor: Monitor) -> None:
    assert run("approve", "--revoke", "3")[1] == "revoked: tool_call urn:x:tool of default is held again\n"
    assert monitor.asked == [{"order": "revoke", "approval": 3, "why": ""}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--always"], "give its SEQ"),
        (["--deny"], "give its SEQ"),
        (["7", "--revoke", "3"], "--revoke stands alone"),
        (["-c", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_wrong_use(run: Run, monitor: Monitor, arguments: list[str], text: str) -> None:
    code, said = run("approve", *arguments)
    assert (code, monitor.asked) == (2, [])
    assert text in said


@pytest.mark.parametrize("name", ["default", "spiffe://lictor.internal/agent/default"])
def test_quarantine_and_release(run: Run, monitor: Monitor, name: str) -> None:
    code, said = run("agent", "quarantine", name, "--why", "strange")
    assert (code, said) == (0, f"{WAITING['agent']} is in quarantine since entry 5: strange\n")
    assert run("agent", "release", name)[0] == 0
    assert monitor.asked == [
        {"order": "quarantine", "agent": WAITING["agent"], "why": "strange"},
        {"order": "release", "agent": WAITING["agent"], "why": ""},
    ]


def test_the_list_of_agents_tells(run: Run, monitor: Monitor) -> None:
    assert "in quarantine" in run("agent", "list")[1]
    [listed] = json.loads(run("agent", "list", "--json")[1])
    assert listed["quarantine"] == {"agent": WAITING["agent"], "why": "strange"}
    monitor.answers["quarantined"] = []
    assert json.loads(run("agent", "list", "--json")[1])[0]["quarantine"] is None
    monitor.answers["quarantined"] = UsageError("no monitor runs")
    assert "quarantine" not in json.loads(run("agent", "list", "--json")[1])[0]
