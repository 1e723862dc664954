"""What is refused never reaches an upstream and is an entry with its reason; what is allowed does and is."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from end_to_end.attempts import CALL, FORBIDDEN
from end_to_end.refused_bodies import BODIES
from end_to_end.refused_heads import HEADS
from end_to_end.refused_names import NAMES
from end_to_end.refused_requests import REFUSED
from end_to_end.wire import Wire, head
from end_to_end.world import Monitor, Outside, Server, binding, target, until

URN_MCP = "urn:test:tool:mcp"


class Upgrading(Server):
    """Answers /open/switch with 101 and then takes whatever comes."""

    def __init__(self, outside: Outside) -> None:
        super().__init__(outside)
        self.after_upgrade = b""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path != "/open/switch":
            super().answer(handler)
            return
        handler.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        handler.wfile.flush()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.settimeout(2)
            self.after_upgrade += handler.connection.recv(100)


@dataclass
class Place:
    """One monitor, a server that bindings know and one that they do not."""

    monitor: Monitor
    known: Upgrading
    unknown: Server
    plain: Server

    @property
    def at(self) -> str:
        return f"localhost:{self.known.port}"

    @property
    def seen(self) -> list[tuple[int, int]]:
        return [s.seen for s in (self.known, self.unknown, self.plain)]


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        known, unknown, plain = Upgrading(outside), Server(outside), Server(None)
        for server in (known, unknown, plain):
            stack.callback(server.close)
        url = f"https://localhost:{known.port}"
        monitor = share_monitor(
            "judge",
            {
                "main": binding(
                    tool_call=[URN_MCP, f"{URN_MCP}#tools/add"],
                    data_source_access=["urn:test:data:*"],
                    http_request=[f"{url}/open/**", f"https://127.0.0.1:{known.port}/open/**"],
                )
            },
            target(URN_MCP, "tool", f"{url}/mcp", protocol="mcp")
            + target("urn:test:data:api", "data_source", f"{url}/data/**")
            + target("urn:test:data:ip", "data_source", f"https://127.0.0.1:{known.port}/data/**")
            + target("urn:test:data:plain", "data_source", f"http://localhost:{plain.port}/data/**")
            + target("urn:test:other:db", "data_source", f"https://localhost:{unknown.port}/**"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n[limits]\njudged_body_bytes = 65536\n',
        )
        yield Place(monitor, known, unknown, plain)


ATTEMPTS = {**REFUSED, **NAMES, **HEADS, **BODIES}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_refused(place: Place, name: str) -> None:
    case, monitor = ATTEMPTS[name], place.monitor
    seen, since = place.seen, len(monitor.entries())
    with Wire(monitor) as wire:
        answer = case.send(wire, place)
    entries = [until(lambda: monitor.entries()[since:], what="an entry")[0]]
    if answer is not None:
        assert answer.status == case.status, answer
        told = answer.json()
        told = told[0] if isinstance(told, list) else told
        told = told["error"]["data"] if "error" in told else told
        assert told["reason"] == case.reason
        assert case.reason in answer.headers["proxy-status"]
        entries = [e for e in monitor.entries()[since:] if "outcome_of" not in e]
        assert told["entry"] in [e["seq"] for e in entries]
    assert {e["decision"] for e in entries} == {"deny"}
    assert case.reason in [e["reason"] for e in entries]
    assert {e["agent_id"] for e in entries} == {"spiffe://test.internal/agent/default"}
    assert place.seen == seen, "an upstream was reached"


def test_allowed(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at)
        assert wire.request("GET", "/data/x?q=secret").json() == {"path": "/data/x?q=secret"}
        assert wire.request("PUT", "/open/y", body=b"abc").status == 200
        assert wire.post_json("/mcp", CALL).status == 200
        assert wire.request("HEAD", "/open/z").status == 200
    until(lambda: sum("outcome_of" in e for e in place.monitor.entries_of(since)) == 4)
    entries = place.monitor.entries_of(since)
    actions = [e for e in entries if "outcome_of" not in e]
    assert [(e["action_type"], e["action_target"]) for e in actions] == [
        ("data_source_access", "urn:test:data:api"),
        ("http_request", f"https://{place.at}/open/y"),
        ("tool_call", f"{URN_MCP}#tools/add"),
        ("http_request", f"https://{place.at}/open/z"),
    ]
    assert {e["decision"] for e in actions} == {"allow"}
    assert "secret" not in json.dumps(entries)
    assert [e["outcome"]["status"] for e in entries if "outcome_of" in e] == [200] * 4
    assert place.known.requests[-3][3] == b"abc"


@pytest.mark.parametrize(
    ("sent", "length", "statuses", "arrives"),
    [(CALL, None, [100, 200], True), (FORBIDDEN, None, [100, 403], False), (CALL, 70_000, [413], False)],
    ids=["allowed", "forbidden", "announced as too large"],
)
def test_expect_100_continue_where_the_body_is_judged(
    place: Place, sent: Any, length: int | None, statuses: list[int], arrives: bool
) -> None:
    """The body must be read, so it is asked for; nothing of what is refused arrives."""
    body, seen = json.dumps(sent).encode(), len(place.known.requests)
    fields = ("Content-Type: application/json", f"Content-Length: {length or len(body)}", "Expect: 100-continue")
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", "/mcp", f"Host: {place.at}", *fields))
        got = [wire.read_head()[0]]
        if got == [100]:
            wire.send(body)
            got.append(wire.read_answer().status)
    assert got == statuses
    assert len(place.known.requests) - seen == arrives


@pytest.mark.parametrize(
    ("version", "fields", "status", "stays"),
    [
        ("1.0", ["Host: HERE"], 200, False),
        ("1.0", ["Host: HERE", "Connection: keep-alive"], 200, True),
        ("1.0", [], 400, False),
        ("1.1", ["Host: HERE", "Connection: close"], 200, False),
        ("1.1", ["Host: HERE", "Connection: keep-alive"], 200, True),
    ],
)
def test_old_and_plain_clients(place: Place, version: str, fields: list[str], status: int, stays: bool) -> None:
    lines = [f"GET /open/x HTTP/{version}", *fields]
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send("\r\n".join(lines).replace("HERE", place.at).encode() + b"\r\n\r\n")
        answer = wire.read_answer()
        assert answer.status == status
        if status == 200:
            assert answer.json() == {"path": "/open/x"}
        if stays:
            assert wire.request("GET", "/open/x").status == 200
        elif status == 200:
            with pytest.raises((EOFError, ConnectionError)):
                wire.read_some()


def test_empty_segments(place: Place) -> None:
    """Object stores have them in names. They arrive as they are, and only where the target is the same without them."""
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at)
        assert wire.request("GET", "/data/a//b/https://x/").status == 200
        assert place.known.requests[-1][1] == "/data/a//b/https://x/"
        seen = place.seen
        for path in ("/open//x", "/mcp//x", "/open/%2Fx", "//data/x"):
            answer = wire.request("GET", path)
            assert (answer.status, answer.json()["reason"]) in ((400, "ambiguous_path"), (400, "doubtful_name")), path
    assert place.seen == seen


def test_one_upstream_connection_serves_a_whole_tunnel(place: Place) -> None:
    before = place.known.connections
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at)
        for _ in range(3):
            assert wire.request("GET", "/open/x").status == 200
    assert place.known.connections == before + 1


def test_address_instead_of_a_name(place: Place) -> None:
    """A client sends no TLS server name for an address."""
    with Wire(place.monitor) as wire:
        assert wire.tunnel(f"127.0.0.1:{place.known.port}").request("GET", "/open/x").status == 200


@pytest.mark.parametrize("form", ["absolute", "origin"])
def test_plain_http(place: Place, form: str) -> None:
    at = f"localhost:{place.plain.port}"
    with Wire(place.monitor) as wire:
        wire.authority = at
        assert wire.request("GET", f"http://{at}/data/x" if form == "absolute" else "/data/x").status == 200
    assert place.plain.requests[-1][1] == "/data/x"


@pytest.mark.parametrize(
    ("sent", "ids"), [(FORBIDDEN, 2), ({**FORBIDDEN, "id": "x" * 40}, "x" * 40), ([CALL, FORBIDDEN], ["call-1", 2])]
)
def test_jsonrpc_callers_get_their_id(place: Place, sent: Any, ids: Any) -> None:
    with Wire(place.monitor) as wire:
        answer = wire.tunnel(place.at).post_json("/mcp", sent)
    told = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert ([m["id"] for m in told] if isinstance(told, list) else told["id"]) == ids
    first = told[0] if isinstance(told, list) else told
    assert first["error"]["data"]["action_target"] == f"{URN_MCP}#tools/drop_tables"
    assert answer.headers["behavioral-evidence"].count(".") == 2


def test_notification_that_is_refused_gets_a_problem(place: Place) -> None:
    """It has no id to answer to."""
    with Wire(place.monitor) as wire:
        message = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "drop_tables"}}
        answer = wire.tunnel(place.at).post_json("/mcp", message)
    assert answer.headers["content-type"] == "application/problem+json"


def test_refusal_leaves_the_connection_usable(place: Place) -> None:
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at)
        assert wire.request("GET", "/closed").status == 403
        assert wire.request("GET", "/open/x").status == 200
        assert wire.request("POST", "/closed", body=b"x" * 100_000).status == 403
        assert wire.request("GET", "/open/x").status == 200


def test_a_refused_upload_is_answered_before_it_has_ended(place: Place) -> None:
    seen = place.seen
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", "/closed", f"Host: {place.at}", "Content-Length: 1000000000"))
        assert wire.read_answer().status == 403
    assert place.seen == seen


def test_a_server_cannot_upgrade_what_did_not_ask(place: Place) -> None:
    """Agent and server agree on what an ordinary request means: the bytes that follow would be nobody's action."""
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("GET", "/open/switch", f"Host: {place.at}", "Sec-WebSocket-Version: 13"))
        with contextlib.suppress(EOFError, OSError):
            wire.read_head()
            wire.send(b"\x81\x85\x00\x00\x00\x00hello")
            wire.read_rest()
    until(lambda: place.known.requests[-1][1] == "/open/switch")
    outcome = place.monitor.wait_for(lambda e: e.get("outcome", {}).get("status") in (0, 101, 502))
    assert outcome["outcome"]["complete"] is False
    assert place.known.after_upgrade == b""


def test_an_origin_cannot_fake_a_refusal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Behavioral-Evidence", "a.b.c")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(place.known, "answer", answer)
    with Wire(place.monitor) as wire:
        assert "behavioral-evidence" not in wire.tunnel(place.at).request("GET", "/open/x").headers


def test_proxy_credentials_stay_here(place: Place) -> None:
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).request("GET", "/open/x", "Proxy-Authorization: Basic c2VjcmV0", "X-Mine: 1")
    headers = place.known.requests[-1][2]
    assert "Proxy-Authorization" not in headers
    assert headers["X-Mine"] == "1"
    assert headers["Host"] == place.at


def test_tls_1_1_is_not_spoken_in_a_tunnel(place: Place) -> None:
    context = place.monitor.target_context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with Wire(place.monitor) as wire:
        wire.connect(place.at)
        with pytest.raises((OSError, EOFError)):
            wire.tls("localhost", context)
