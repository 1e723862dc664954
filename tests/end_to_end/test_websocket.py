"""WebSocket through the monitor: real clients and servers, message by message, and what is refused of it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from end_to_end.refused_upgrades import FRAMES, GRANTS, HANDSHAKES, Asked, handshake
from end_to_end.talkers import (
    PING,
    PONG,
    TEXT,
    Hostile,
    Talker,
    frame,
    granted,
    read_close,
    read_frame,
    send_until_blocked,
    upgrade,
)
from end_to_end.wire import Wire, head
from end_to_end.world import Monitor, Outside, binding, target, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

URN = "urn:test:tool:chat"


@dataclass
class Place:
    monitor: Monitor
    talker: Talker
    plain: Talker
    liar: Hostile

    @property
    def at(self) -> str:
        return f"localhost:{self.talker.port}"

    def talk(self, path: str = "/chat", **options: Any) -> ClientConnection:
        """A real client (`websockets`)."""
        return connect(
            f"wss://{self.at}{path}",
            proxy=self.monitor.url,
            proxy_ssl=self.monitor.agent_context(),
            ssl=self.monitor.target_context(),
            ping_interval=None,
            **options,
        )

    @contextlib.contextmanager
    def wire(self, path: str = "/open/x", *headers: str) -> Iterator[Wire]:
        """A WebSocket of which every byte is written by hand; at the end the server has seen the end too."""
        before, known = self.talker.open, len(self.talker.handshakes)
        with Wire(self.monitor) as wire:
            answer = upgrade(wire, self.at, path, *headers)
            assert answer.status == 101, answer
            until(lambda: len(self.talker.handshakes) > known, what="the server counts it")
            yield wire
        until(lambda: self.talker.open <= before)

    @property
    def both(self) -> ssl.SSLContext:
        """For aiohttp, which has one context for proxy and target."""
        context = self.monitor.agent_context()
        context.load_verify_locations(self.monitor.domain.interception_root)
        return context


def actions(monitor: Monitor, since: int) -> list[dict[str, Any]]:
    return [entry for entry in monitor.entries()[since:] if "outcome_of" not in entry]


def messages(monitor: Monitor, since: int) -> list[dict[str, Any]]:
    """The messages of WebSockets that were opened from entry `since` on."""
    found = [entry for entry in actions(monitor, since) if entry["action_type"] == "websocket_message"]
    return [entry for entry in found if entry["action_parameters"]["upgrade"] >= since]


def ended(monitor: Monitor, since: int) -> dict[str, Any]:
    """The outcome of the first upgrade from entry `since` on."""

    def wanted(entry: dict[str, Any]) -> bool:
        return entry.get("outcome_of", -1) >= since and "messages_out" in entry["outcome"]

    found: dict[str, Any] = monitor.wait_for(wanted, since)["outcome"]
    return found


def rules(url: str, plain: str) -> dict[str, Any]:
    document = binding(
        tool_call=[URN, "urn:test:tool:mcp"],
        http_request=[f"{url}/{path}/**" for path in ("open", "silent", "guarded", "typed")] + [f"{plain}/open/**"],
        websocket_message=[URN, *(f"{url}/{path}/**" for path in ("open", "guarded", "typed")), f"{plain}/open/**"],
    )
    forbidden = {"type": "pattern", "forbidden": {"": "(?i)password|this is secret"}}
    typed = {
        "type": "schema",
        "parameter": "/json",
        "schema": {"type": "object", "required": ["op"], "properties": {"op": {"enum": ["list"]}}},
    }
    for path, criteria in (("guarded", forbidden), ("typed", typed)):
        document["expected_behaviors"].append(
            {
                "behavior_id": path,
                "observable_actions": ["websocket_message"],
                "targets": [f"{url}/{path}/**"],
                "compliance_criteria": criteria,
            }
        )
    return document


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        talker, plain = Talker(outside), Talker(None)
        liar = Hostile(
            outside,
            {f"/open/{i}": (answer, frame(TEXT, b"hello", masked=False)) for i, answer in enumerate(GRANTS.values())}
            | {
                "/open/masked": (granted(), frame(TEXT, b"hello")),
                "/open/deaf": (granted(), b""),
                "/open/early": (granted(), frame(TEXT, b"at once", masked=False)),
                "/open/gone": ("HTTP/1.1 426 Upgrade Required\nContent-Length: 0\n", b""),
            },
        )
        for server in (talker, plain, liar):
            stack.callback(server.close)
        url = f"https://localhost:{talker.port}"
        document = rules(url, f"http://localhost:{plain.port}")
        for behavior in document["expected_behaviors"][1:3]:
            behavior["compliance_criteria"]["values"].append(f"https://localhost:{liar.port}/open/**")
        monitor = share_monitor(
            "talk",
            {"main": document},
            target(URN, "tool", f"{url}/chat/**")
            + target("urn:test:tool:mcp", "tool", f"{url}/mcp", protocol="mcp")
            + target(
                "urn:test:tool:local", "tool", f"http://localhost:{plain.port}/", f"https://localhost:{liar.port}/"
            ),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n[limits]\nwebsocket_message_bytes = 65536\n',
        )
        yield Place(monitor, talker, plain, liar)


@pytest.fixture(autouse=True)
def _quiet(place: Place) -> None:
    """What an earlier test has opened has ended, for the server too."""
    until(lambda: place.talker.open == 0)


def test_every_message_is_an_action_with_its_outcome(place: Place) -> None:
    since = len(place.monitor.entries())
    with place.talk() as client:
        client.send("hello")
        assert client.recv(10) == "hello"
        client.send(b"\x00\x01\x02")
        assert client.recv(10) == b"\x00\x01\x02"
    assert {k: v for k, v in ended(place.monitor, since).items() if k != "duration_ms"} == {
        "status": 101,
        "complete": True,
        "request_bytes": 0,
        "response_bytes": 0,
        "messages_out": 2,
        "messages_out_bytes": 8,
        "messages_in": 2,
        "messages_in_bytes": 8,
        "close_code": 1000,
        "closed_by": "client",
    }
    opened, *said = actions(place.monitor, since)
    assert (opened["action_type"], opened["action_target"]) == ("tool_call", URN)
    assert {(e["action_type"], e["action_target"], e["decision"]) for e in said} == {
        ("websocket_message", URN, "allow")
    }
    found = [[e["action_parameters"][name] for name in ("direction", "opcode", "bytes", "upgrade")] for e in said]
    assert found == [
        ["out", "text", 5, opened["seq"]],
        ["in", "text", 5, opened["seq"]],
        ["out", "binary", 3, opened["seq"]],
        ["in", "binary", 3, opened["seq"]],
    ]
    out, back = (e["action_parameters"]["digest"] for e in said[:2])
    assert out == back
    assert out.startswith("hmac-sha-256:")
    outcomes = {e["outcome_of"]: e["outcome"] for e in place.monitor.entries()[since:] if "outcome_of" in e}
    assert [outcomes[e["seq"]]["complete"] for e in said] == [True] * 4
    assert [outcomes[e["seq"]]["request_bytes"] for e in said] == [5, 0, 3, 0]


def test_a_message_in_pieces_arrives_whole(place: Place) -> None:
    with place.wire() as wire:
        wire.send(frame(TEXT, b"one ", fin=False) + frame(PING, b"meanwhile") + frame(0, b"mess", fin=False))
        wire.send(frame(0, b"age \xc3", fin=False) + frame(0, b"\xa9"))
        found = [read_frame(wire), read_frame(wire)]
    assert sorted(found) == [(TEXT, "one message é".encode()), (PONG, b"meanwhile")]
    assert place.talker.got[-1] == "one message é"


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "é"), (4999, "x" * 123)])
def test_a_close_of_the_client_passes(place: Place, code: int, reason: str) -> None:
    since = len(place.monitor.entries())
    with place.talk() as client:
        client.close(code, reason)
    until(lambda: (code, reason) in place.talker.closed)
    assert (ended(place.monitor, since)["close_code"], ended(place.monitor, since)["closed_by"]) == (code, "client")
    assert [e["action_parameters"]["opcode"] for e in messages(place.monitor, since)] == (["close"] if reason else [])


def test_a_close_of_the_server_passes(place: Place) -> None:
    since = len(place.monitor.entries())
    with place.talk() as client:
        client.send("close 4001")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")
    assert ended(place.monitor, since)["closed_by"] == "server"


def test_a_connection_that_is_dropped_is_dropped_on_the_other_side(place: Place) -> None:
    since, before = len(place.monitor.entries()), len(place.talker.closed)
    with place.wire():
        pass
    until(lambda: len(place.talker.closed) > before)
    assert place.talker.closed[-1] == (1006, "")
    outcome = ended(place.monitor, since)
    assert (outcome["complete"], outcome["error"]) == (False, "the connection ended without a close")


def test_the_subprotocol_is_kept_and_no_extension_is_offered(place: Place) -> None:
    with place.talk(subprotocols=["superchat", "chat"]) as client:
        assert client.subprotocol == "chat"
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
    assert place.talker.handshakes[-1]["Sec-WebSocket-Protocol"] == "superchat, chat"
    assert "Sec-WebSocket-Extensions" not in place.talker.handshakes[-1]


def test_a_ping_carries_nothing_across_and_is_answered_by_the_other_side(place: Place) -> None:
    with place.talk() as client:
        assert client.ping("of the client").wait(10)
        client.send("ping me")
        assert client.recv(10) == "you are there"
    with place.wire() as wire:
        wire.send(frame(TEXT, b"ping me"))
        assert read_frame(wire) == (PING, b"")
        wire.send(frame(PONG, b"whatever I like") + frame(PONG, b"and more"))
        assert read_frame(wire) == (TEXT, b"you are there")


def test_pings_do_not_pile_up(place: Place) -> None:
    """The server is asked once at a time, and the latest ping is the one that is answered."""
    with place.wire() as wire:
        wire.send(b"".join(frame(PING, b"%d" % i) for i in range(50)) + frame(TEXT, b"done"))
        found = [read_frame(wire)]
        while found[-1] != (TEXT, b"done"):
            found.append(read_frame(wire))
    assert found[:-1] in ([], [(PONG, b"49")])


@pytest.mark.parametrize("path", ["/silent/x", "/guarded/x"])
def test_what_is_denied_on_its_way_out_never_arrives(place: Place, path: str) -> None:
    since, got, closed = len(place.monitor.entries()), len(place.talker.got), len(place.talker.closed)
    with place.talk(path) as client:
        with contextlib.suppress(ConnectionClosed):
            for text in ("the password", "hello"):
                client.send(text)
        with pytest.raises(ConnectionClosed) as refused:
            client.recv(10)
    until(lambda: len(place.talker.closed) > closed)
    assert place.talker.got[got:] == []
    assert place.talker.closed[-1] == (1008, "")
    (denied,) = [e for e in messages(place.monitor, since) if e["decision"] == "deny"]
    assert refused.value.rcvd is not None
    assert refused.value.rcvd.reason == f"lictor refused ({denied['reason']}, entry {denied['seq']})"
    outcome = ended(place.monitor, since)
    assert (outcome["closed_by"], outcome["error"], outcome["messages_out"]) == ("monitor", denied["reason"], 0)


def test_what_is_denied_on_its_way_in_never_arrives(place: Place) -> None:
    since = len(place.monitor.entries())
    with place.wire("/guarded/x") as wire:
        wire.send(frame(TEXT, b"say something secret"))
        received = wire.read_rest()
    assert b"this is secret" not in received
    denied = messages(place.monitor, since)[-1]
    assert (denied["decision"], denied["reason"]) == ("deny", "forbidden_pattern")
    assert denied["action_parameters"]["direction"] == "in"
    assert denied["agent_id"] == "spiffe://test.internal/agent/default"


def test_what_came_before_a_denied_message_arrives_and_nothing_after_it(place: Place) -> None:
    before = len(place.talker.got)
    with place.wire("/guarded/x") as wire:
        wire.send(frame(TEXT, b"one") + frame(TEXT, b"password") + frame(TEXT, b"three"))
        assert read_close(wire)[0] == 1008
    until(lambda: place.talker.got[before:])
    assert place.talker.got[before:] == ["one"]


def test_a_denied_message_does_not_touch_other_connections(place: Place) -> None:
    with place.wire() as other:
        with place.wire("/silent/x") as wire:
            wire.send(frame(TEXT, b"hello"))
            assert read_close(wire)[0] == 1008
        other.send(frame(TEXT, b"still here"))
        assert read_frame(other) == (TEXT, b"still here")


@pytest.mark.parametrize("name", FRAMES)
def test_refused_frames(place: Place, name: str) -> None:
    case = FRAMES[name]
    since, got, closed = len(place.monitor.entries()), len(place.talker.got), len(place.talker.closed)
    with place.wire(case.path) as wire:
        wire.send(case.data)
        code, told = read_close(wire)
    assert code == case.code
    assert case.reason in told
    until(lambda: len(place.talker.closed) > closed)
    assert place.talker.closed[-1] == (case.code, "")
    assert place.talker.got[got:] == []
    (denied,) = [e for e in messages(place.monitor, since) if e["decision"] == "deny"]
    assert denied["reason"] == case.reason
    assert (denied["agent_id"], denied["action_parameters"]["direction"]) == (
        "spiffe://test.internal/agent/default",
        "out",
    )


@pytest.mark.parametrize("name", HANDSHAKES)
def test_refused_handshakes(place: Place, name: str) -> None:
    case = HANDSHAKES[name]
    since, seen = len(place.monitor.entries()), len(place.talker.handshakes)
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(request_of(case, place.at))
        answer = wire.read_answer()
    assert answer.status == case.status, answer
    assert answer.json()["reason"] == case.reason
    (entry,) = actions(place.monitor, since)
    assert (entry["decision"], entry["reason"], entry["seq"]) == ("deny", case.reason, answer.json()["entry"])
    assert len(place.talker.handshakes) == seen


def request_of(case: Asked, at: str) -> bytes:
    data = head(case.method, case.path, f"Host: {at}", *case.headers).replace(b"HTTP/1.1", case.version.encode(), 1)
    return data + case.body


@pytest.mark.parametrize("name", GRANTS)
def test_refused_grants(place: Place, name: str) -> None:
    """A server that grants what was not asked for: nothing of what follows gets through, either way."""
    path, since = f"/open/{list(GRANTS).index(name)}", len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        wire.tunnel(f"localhost:{place.liar.port}").send(
            head("GET", path, f"Host: localhost:{place.liar.port}", *handshake())
        )
        wire.send(frame(TEXT, b"hello"))
        with contextlib.suppress(EOFError, OSError):
            assert b"hello" not in wire.read_rest()
    outcome = place.monitor.outcome(since)
    assert (outcome["status"], outcome["complete"]) == (101, False)
    assert place.liar.after_upgrade == b""
    assert messages(place.monitor, since) == []


def test_a_server_that_masks_its_frames(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        upgrade(wire, f"localhost:{place.liar.port}", "/open/masked", *handshake())
        assert read_close(wire)[0] == 1002
    (denied,) = messages(place.monitor, since)
    assert (denied["reason"], denied["action_parameters"]["direction"]) == ("bad_frame", "in")


def test_a_message_that_comes_with_the_answer(place: Place) -> None:
    with Wire(place.monitor) as wire:
        upgrade(wire, f"localhost:{place.liar.port}", "/open/early", *handshake())
        assert read_frame(wire) == (TEXT, b"at once")


def test_a_server_that_does_not_read_stops_the_agent(place: Place) -> None:
    """What cannot be passed on does not pile up in the monitor."""
    with Wire(place.monitor) as wire:
        upgrade(wire, f"localhost:{place.liar.port}", "/open/deaf", *handshake())
        send_until_blocked(wire, frame(TEXT, b"x" * 60_000), 48 << 20)


def test_a_server_may_say_no(place: Place) -> None:
    with Wire(place.monitor) as wire:
        wire.tunnel(f"localhost:{place.liar.port}")
        assert wire.request("GET", "/open/gone", *handshake()).status == 426


def test_a_refused_handshake_tells_a_real_client_why(place: Place) -> None:
    with pytest.raises(InvalidStatus) as refused:
        place.talk("/closed")
    assert refused.value.response.status_code == 403
    assert b"not_in_allowlist" in (refused.value.response.body or b"")


async def test_a_thousand_messages_keep_their_order(place: Place) -> None:
    """Sent without waiting, so that many are judged together; through an absolute form, without TLS to the server."""
    url = f"http://localhost:{place.plain.port}/open/x"
    since = len(place.monitor.entries())
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, proxy=place.monitor.url, proxy_headers={}, ssl=place.both) as socket,
    ):
        sent = [f"message {i}" for i in range(1000)]
        for text in sent:
            await socket.send_str(text)
        assert [await socket.receive_str(timeout=60) for _ in sent] == sent
    assert place.plain.got[-1000:] == sent
    assert ended(place.monitor, since)["messages_in"] == 1000
    digests = [e["action_parameters"]["digest"] for e in messages(place.monitor, since)]
    assert len(digests) == 2000
    assert len(set(digests)) == 1000


async def test_ten_megabytes(share_monitor: Callable[..., Monitor], outside: Outside) -> None:
    """And at an ingress listener: what callers say to the local agent, and it to them."""
    with contextlib.closing(Talker(None)) as talker:
        at = f"localhost:{talker.port}"
        monitor = share_monitor(
            "large",
            {
                "main": binding(
                    http_request=[f"http://{at}/**", "urn:test:agent:b#/chat"],
                    websocket_message=[f"http://{at}/**", "urn:test:agent:b#/chat"],
                )
            },
            target("urn:test:tool:local", "tool", f"http://{at}/x"),
            ingress='agent = "spiffe://test.internal/agent/default"\nurn = "urn:test:agent:b"\n'
            f'upstream = "http://127.0.0.1:{talker.port}"',
            more="[limits]\nwebsocket_message_bytes = 16777216\n",
        )
        place = Place(monitor, talker, talker, None)  # type: ignore[arg-type]
        data = bytes(range(256)) * 40960
        options: dict[str, Any] = {"ssl": place.both, "max_msg_size": 1 << 26}
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"http://{at}/open/x", proxy=monitor.url, **options) as socket:
                await socket.send_bytes(data)
                assert await socket.receive_bytes(timeout=60) == data
            since = len(monitor.entries())
            async with session.ws_connect(f"https://127.0.0.1:{monitor.ingress_port}/chat", **options) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str(timeout=60) == "hello"
            ended(monitor, since)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"https://127.0.0.1:{monitor.ingress_port}/message:send", **options)
    entries = actions(monitor, since)
    assert [(e["action_type"], e["action_target"], e["reason"]) for e in entries] == [
        ("http_request", "urn:test:agent:b#/chat", "allowed"),
        ("websocket_message", "urn:test:agent:b#/chat", "allowed"),
        ("websocket_message", "urn:test:agent:b#/chat", "allowed"),
        ("http_request", "urn:test:agent:b", "upgrade_refused"),
    ]
