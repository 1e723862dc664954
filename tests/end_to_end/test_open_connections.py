"""A WebSocket and an uninterrupted tunnel end as soon as what allowed them is gone: rules, certificate, freedom."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner
from end_to_end.talkers import HANDSHAKE, TEXT, Talker, frame, read_frame, upgrade
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, target, until

from lictor.cli import cli
from lictor.cli.init import write_binding

PINNED, CHAT = "urn:test:tool:pinned", "urn:test:tool:chat"


@dataclass
class Place:
    monitor: Monitor
    talker: Talker
    server: Server
    outside: Outside

    def put_in_force(self, version: str, *urns: str) -> None:
        document = binding(version=version, tool_call=[CHAT, "urn:test:x"], websocket_message=[CHAT], tunnel=list(urns))
        document["expected_behaviors"][0]["compliance_criteria"]["values"] = list(urns)
        write_binding(self.monitor.path / "bindings" / "main.json", document, self.monitor.domain)


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        talker, server = Talker(outside), Server(outside)
        stack.callback(talker.close)
        stack.callback(server.close)
        monitor = share_monitor(
            "open",
            {"main": binding(tool_call=[CHAT], websocket_message=[CHAT], tunnel=[PINNED])},
            target(PINNED, "tool", f"https://localhost:{server.port}/**")
            + "passthrough = true\n"
            + target(CHAT, "tool", f"https://localhost:{talker.port}/**"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, talker, server, outside)


def test_a_hold_lets_messages_wait_and_ends_tunnels(place: Place) -> None:
    """What is on an open WebSocket is judged message by message; into a tunnel nobody sees."""
    monitor, agent = place.monitor, "on-hold"
    monitor.domain.add_agent(agent)
    context, since = monitor.agent_context(agent), len(monitor.entries())
    with contextlib.ExitStack() as stack:
        socket, tunnel = (stack.enter_context(Wire(monitor, context)) for _ in range(2))
        assert upgrade(socket, f"localhost:{place.talker.port}", "/chat", *HANDSHAKE).status == 101
        assert tunnel.connect(f"localhost:{place.server.port}").status == 200
        trusting = ssl.create_default_context(cafile=str(place.outside.ca))
        trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert tunnel.tls("localhost", trusting).request("GET", "/a", host="x").status == 200
        held = lictor(place, "agent", "hold", agent)
        assert len(held["ended"]) == 1
        with contextlib.suppress(OSError, EOFError):
            assert tunnel.read_rest() == b""
        socket.send(frame(TEXT, b"hello"))
        for _ in range(2):  # what the agent says, and what it is told
            [one] = until(lambda: lictor(place, "approve")["waiting"])
            assert one["action_type"] == "websocket_message"
            lictor(place, "approve", str(one["seq"]))
        assert read_frame(socket) == (TEXT, b"hello")
        lictor(place, "agent", "unhold", agent)
    ended = monitor.wait_for(lambda e: e.get("outcome_of") == held["ended"][0], since)["outcome"]
    assert (ended["error"], ended["closed_by"]) == ("hold_demanded", "monitor")
    monitor.wait_for(lambda e: e.get("outcome", {}).get("status") == 101, since)


def lictor(place: Place, *arguments: str) -> Any:
    done = CliRunner().invoke(cli, [*arguments, "-c", str(place.monitor.config), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def end_by_rules(place: Place, agent: str) -> None:
    place.put_in_force("1.0.1", "urn:test:other")


def end_by_revocation(place: Place, agent: str) -> None:
    place.monitor.domain.revoke_agent(agent)


def end_by_quarantine(place: Place, agent: str) -> None:
    done = CliRunner().invoke(cli, ["agent", "quarantine", agent, "-c", str(place.monitor.config)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("end", "why"),
    [(end_by_revocation, "revoked"), (end_by_quarantine, "quarantined"), (end_by_rules, "policy_changed")],
)
def test_what_is_open_ends(place: Place, end: Callable[[Place, str], None], why: str) -> None:
    monitor, agent = place.monitor, f"ended-by-{why.replace('_', '-')}"
    monitor.domain.add_agent(agent)
    since = len(monitor.entries())
    with Wire(monitor, monitor.agent_context(agent)) as socket, Wire(monitor, monitor.agent_context(agent)) as tunnel:
        assert upgrade(socket, f"localhost:{place.talker.port}", "/chat", *HANDSHAKE).status == 101
        socket.send(frame(TEXT, b"hello"))
        assert read_frame(socket) == (TEXT, b"hello")
        assert tunnel.connect(f"localhost:{place.server.port}").status == 200
        trusting = ssl.create_default_context(cafile=str(place.outside.ca))
        trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert tunnel.tls("localhost", trusting).request("GET", "/a", host="x").status == 200
        end(place, agent)
        for wire in (socket, tunnel):
            with contextlib.suppress(OSError, EOFError):
                assert wire.read_rest() == b""
        outcomes = until(
            lambda: (
                (found := [o for e in monitor.entries()[since:] if (o := e.get("outcome", {})).get("error")])
                and len(found) == 2
                and found
            )
        )
    assert [(o["error"], o["closed_by"], o["complete"]) for o in outcomes] == [(why, "monitor", False)] * 2
    assert sorted(o["status"] for o in outcomes) == [0, 101]
    until(lambda: place.talker.open == 0)
