"""Connections that keep us waiting are ended at the stated limits, each refused action with its entry; others go on.

All of them wait at the same time, from the first test on.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import select
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from end_to_end import http2
from end_to_end.http2 import Http2
from end_to_end.refused_http2 import headers
from end_to_end.wire import Answer, Wire, chunked, head
from end_to_end.world import Monitor, Outside, Server, binding, target, until

LIMIT_S = 1.0
URN_MCP = "urn:test:tool:mcp"
PART = b'{"jsonrpc": "2.0", "id": 1, '


class Slow(Server):
    """/silent is never answered; /drip is begun at once and ended when `go_on` is set, as is /take."""

    def __init__(self, outside: Outside) -> None:
        super().__init__(outside)
        self.go_on = threading.Event()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path == "/open/silent":
            handler.close_connection = True
            handler.connection.recv(1)  # until the other side has had enough
        elif handler.path == "/open/drip":
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"1\r\na\r\n")
            self.go_on.wait(30)
            handler.wfile.write(b"1\r\nb\r\n0\r\n\r\n")
        else:
            super().answer(handler)


@dataclass
class Place:
    monitor: Monitor
    server: Slow
    wires: dict[str, Wire] = field(default_factory=dict)
    clients: dict[str, Http2] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)

    @property
    def at(self) -> str:
        return f"localhost:{self.server.port}"

    def wire(self, name: str) -> Wire:
        return self.wires[name]

    def entries(self, reason: str) -> list[dict[str, Any]]:
        return [e for e in self.monitor.entries() if e.get("reason") == reason]


def begin(place: Place, name: str) -> None:
    """One connection on its way to being slow."""
    wire = place.wires[name] = Wire(place.monitor)
    here = f"Host: {place.at}"
    if name == "head to the proxy":
        wire.send(b"GET http://" + place.at.encode())
        return
    if name == "nothing at all":
        return
    assert wire.connect(place.at).status == 200
    if name == "nothing in a tunnel":
        return
    if name == "half a handshake":
        wire.send(b"\x16\x03\x01\x02\x00\x01")
        return
    wire.tls("localhost")
    match name:
        case "head":
            wire.send(b"GET /open/x HTTP/1.1\r\nX-Slow: ")
        case "body":
            wire.send(head("POST", "/mcp", here, "Content-Type: application/json", "Content-Length: 1000") + PART)
        case "answer":
            wire.send(head("GET", "/open/silent", here))
        case "between requests":
            assert wire.request("GET", "/open/x").status == 200
        case "long answer":
            wire.send(head("GET", "/open/drip", here))
        case "long upload":
            wire.send(head("POST", "/open/x", here, "Transfer-Encoding: chunked") + b"1\r\na\r\n")


def begin_http2(place: Place, name: str) -> None:
    client = place.clients[name] = Http2(place.monitor, place.at)
    match name:
        case "head":
            client.send(headers(1, b"\x82").serialize())  # and its CONTINUATION never comes
        case "body":
            fields = http2.head(place.at, "/mcp", "POST", ("content-type", "application/json"))
            place.streams[name] = client.ask(fields, PART, end=False)
        case "answer":
            place.streams[name] = client.ask(http2.head(place.at, "/open/silent"))
        case "between requests":
            assert client.get("/open/x").status == 200


HTTP2 = ["head", "body", "answer", "between requests"]
ENDED = [
    "head to the proxy",
    "nothing at all",
    "nothing in a tunnel",
    "half a handshake",
    "head",
    "body",
    "answer",
    "between requests",
]


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(Slow(outside)) as server:
        url = f"https://localhost:{server.port}"
        monitor = share_monitor(
            "patience",
            {"main": binding(tool_call=[URN_MCP], http_request=[f"{url}/open/**"])},
            target(URN_MCP, "tool", f"{url}/mcp", protocol="mcp"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n[limits]\n'
            + "".join(f"{name}_timeout_s = {LIMIT_S}\n" for name in ("head", "body", "idle", "upstream")),
        )
        made = Place(monitor, server)
        for name in [*ENDED, "long answer", "long upload"]:
            begin(made, name)
        for name in HTTP2:
            begin_http2(made, name)
        yield made
        server.go_on.set()
        for wire in [*made.wires.values(), *(client.wire for client in made.clients.values())]:
            wire.socket.close()


def ended(wire: Wire) -> bool:
    """The other side has closed the connection; TimeoutError if it does not."""
    with contextlib.suppress(ConnectionError):
        while wire.socket.recv(65536):
            pass
    return True


def drip(wire: Wire, byte: bytes) -> Answer:
    """Send byte after byte until there is an answer."""
    while not select.select([wire.socket], [], [], 0.1)[0]:
        wire.send(byte)
    return wire.read_answer()


@pytest.mark.parametrize("name", ["head", "head to the proxy"])
def test_a_head_that_comes_byte_by_byte(place: Place, name: str) -> None:
    answer = drip(place.wire(name), b"x")
    assert (answer.status, answer.json()["reason"]) == (408, "head_timeout")
    assert answer.json()["entry"] in [e["seq"] for e in place.entries("head_timeout")]
    assert ended(place.wire(name))


def test_a_body_that_must_be_judged(place: Place) -> None:
    """Fewer bytes than it should bring do not help."""
    answer = drip(place.wire("body"), b" ")
    assert (answer.status, answer.json()["reason"]) == (408, "body_timeout")
    entry = next(e for e in place.entries("body_timeout") if e["seq"] == answer.json()["entry"])
    assert entry["decision"] == "deny"
    assert "/mcp" not in [request[1] for request in place.server.requests]


@pytest.mark.parametrize("name", ["nothing in a tunnel", "half a handshake", "between requests", "nothing at all"])
def test_a_connection_on_which_nothing_happens(place: Place, name: str) -> None:
    """Nobody has asked for anything, so there is nothing to record."""
    assert ended(place.wire(name))


def test_a_server_that_does_not_answer(place: Place) -> None:
    answer = place.wire("answer").read_answer()
    assert (answer.status, answer.json()["status"]) == (504, 504)
    assert "http_response_timeout" in answer.headers["proxy-status"]
    assert ended(place.wire("answer"))
    entry = next(e for e in place.monitor.entries() if e.get("action_target", "").endswith("/open/silent"))
    outcome = place.monitor.wait_for(lambda e: e.get("outcome_of") == entry["seq"])["outcome"]
    assert (outcome["status"], outcome["complete"]) == (0, False)
    assert "did not answer within 1 seconds" in outcome["error"]


def test_http2(place: Place) -> None:
    """Each stream waits for itself; only a head that does not end ends the connection, as no frame can follow it."""
    body, answer = place.clients["body"], place.clients["answer"]
    refused = body.answer(place.streams["body"])
    assert (refused.status, refused.json()["reason"]) == (408, "body_timeout")
    late = answer.answer(place.streams["answer"])
    assert (late.status, late.json()["status"]) == (504, 504)
    assert answer.get("/open/x").status == 200, "another stream of the same connection"
    for name in ("head", "between requests"):
        assert ended(place.clients[name].wire)
    assert len(place.entries("head_timeout")) == 3
    assert len(place.entries("body_timeout")) == 2


def test_what_goes_on_is_not_ended(place: Place) -> None:
    """An answer that has begun, and an upload that nobody must read, may take longer: the others have ended by now."""
    until(lambda: place.entries("head_timeout") and place.entries("body_timeout"), what="the others have ended")
    upload, long = place.wire("long upload"), place.wire("long answer")
    upload.send(b"".join(chunked([b"b"])))
    assert upload.read_answer().status == 200
    assert place.server.requests[-1][3] == b"ab"
    assert long.read_head()[0] == 200
    place.server.go_on.set()
    assert long.read(16) == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"[:16]
    with Wire(place.monitor) as wire:
        assert wire.tunnel(place.at).request("GET", "/open/x").json() == json.loads('{"path": "/open/x"}')
