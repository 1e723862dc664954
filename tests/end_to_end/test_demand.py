"""`lictor bet issue` and `lictor bet show` beside a running monitor."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import command_line
import pytest
from command_line import Done, spawned
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Server, target


def lictor(monitor: Monitor, *args: object) -> Done:
    return command_line.lictor(*args, "-c", monitor.config)


@pytest.fixture
def busy(make_monitor: Callable[..., Monitor], make_binding: Any, server: Server, outside: Any) -> Monitor:
    """A monitor that has recorded two actions and a refusal."""
    authority = f"localhost:{server.port}"
    monitor = make_monitor(
        "demand",
        {"main": make_binding(data_source_access=["urn:test:data"])},
        target("urn:test:data", "data_source", f"https://{authority}/good/**"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
    )
    for path, status in (("good/1", 200), ("good/2", 200), ("bad", 403)):
        with Wire(monitor) as wire:
            assert wire.tunnel(authority).request("GET", f"/{path}").status == status
    monitor.wait_for(lambda e: e.get("outcome_of", 0) > 1)
    return monitor


def test_a_bet_on_demand(busy: Monitor) -> None:
    entries = busy.of_agents()
    until = entries[-1]["timestamp"] + 1e-6
    issued = spawned("bet", "issue", "--agent", "default", "--to", until, "--json", "-c", busy.config)
    assert issued.returncode == 0, issued.stderr
    [one] = json.loads(issued.stdout)
    assert (one["result"], one["ext"]["trigger"], one["ext"]["count"]) == ("partial", "demand", len(entries))
    assert one["window"]["start"] == entries[0]["timestamp"]
    part = lictor(busy, "bet", "issue", "--agent", one["agent"], "--from", one["window"]["start"], "--to",
                  entries[1]["timestamp"], "--policy", one["policy"])  # fmt: skip
    token = part.stdout.strip()
    verified = lictor(busy, "bet", "verify", token, "--json")
    assert (verified.returncode, json.loads(verified.stdout)["bets"][0]["ext"]["count"]) == (0, 1), verified.stdout
    assert lictor(busy, "log", "verify").returncode == 0
    busy.stop()
    assert lictor(busy, "log", "verify").returncode == 0


def test_what_cannot_be_issued(busy: Monitor) -> None:
    for args, text in [
        (("--agent", "nobody"), "the log holds no entry of spiffe://test.internal/agent/nobody"),
        (("--agent", "default", "--policy", "urn:x"), "this log has no binding of the policy urn:x; it has"),
        (("--agent", "default", "--to", "2100-01-01"), "which is to come"),
        (("--agent", "default", "--from", "soon"), "neither seconds since 1970 nor an ISO 8601 time"),
    ]:
        asked = lictor(busy, "bet", "issue", *args)
        assert asked.returncode == 2
        assert text in asked.stderr
    busy.stop()
    asked = lictor(busy, "bet", "issue", "--agent", "default")
    assert (asked.returncode, "start it with `lictor up`" in asked.stderr) == (2, True)


def test_show_lists_the_bets_of_the_ledger(busy: Monitor) -> None:
    shown = spawned("bet", "show", "-c", busy.config)
    assert shown.returncode == 0, shown.stderr
    for part in ("agent/default", "urn:test:policy:main", "partial", "violation"):
        assert part in shown.stdout
    lictor(busy, "bet", "issue", "--agent", "default")
    listed = json.loads(lictor(busy, "bet", "show", "--json").stdout)
    assert [one["ext"]["trigger"] for one in listed] == ["violation", "demand"]
    assert json.loads(lictor(busy, "bet", "show", "--last", 1, "--json").stdout) == listed[-1:]
    assert "there is no BET" in lictor(busy, "bet", "show", "--agent", "nobody").stdout
