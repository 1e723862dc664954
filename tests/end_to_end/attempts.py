"""How an attempt to get round the monitor is sent, and what must come of it.

`place` has `at` (the authority that bindings know), `monitor`, and the servers `known`, `unknown` and `plain`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from end_to_end.wire import Answer, Wire, head

CALL = {"jsonrpc": "2.0", "id": "call-1", "method": "tools/call", "params": {"name": "add", "arguments": {}}}
FORBIDDEN = {**CALL, "id": 2, "params": {"name": "drop_tables"}}


@dataclass
class Case:
    """`send` returns the answer; None: the connection was closed without one."""

    send: Callable[[Wire, Any], Answer | None]
    status: int
    reason: str


def over_tunnel(*arguments: Any, **keywords: Any) -> Callable[[Wire, Any], Answer]:
    return lambda wire, place: wire.tunnel(place.at).request(*arguments, **keywords)


def mcp(value: Any, *headers: str) -> Callable[[Wire, Any], Answer]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return over_tunnel("POST", "/mcp", "Content-Type: application/json", *headers, body=body)


def bytes_in_tunnel(data: bytes) -> Callable[[Wire, Any], Answer]:
    def send(wire: Wire, place: Any) -> Answer:
        wire.tunnel(place.at).send(data.replace(b"HERE", place.at.encode()))
        return wire.read_answer()

    return send


def bytes_after_connect(data: bytes) -> Callable[[Wire, Any], Answer]:
    def send(wire: Wire, place: Any) -> Answer:
        assert wire.connect(place.at).status == 200
        wire.send(data)
        return wire.read_answer()

    return send


def bytes_to_proxy(data: bytes) -> Callable[[Wire, Any], Answer]:
    def send(wire: Wire, place: Any) -> Answer:
        wire.send(data.replace(b"HERE", place.at.encode()).replace(b"PLAIN", f"localhost:{place.plain.port}".encode()))
        return wire.read_answer()

    return send


def unfinished(wire: Wire, place: Any) -> None:
    """A protocol in which the server speaks first: nothing that ends like a request's head ever comes."""
    assert wire.connect(place.at).status == 200
    wire.send(b"SSH-2.0-OpenSSH_9.9\r\n")
    wire.socket.shutdown(2)


def other_server_name(name: str) -> Callable[[Wire, Any], Answer]:
    def send(wire: Wire, place: Any) -> Answer:
        context = place.monitor.target_context()
        context.check_hostname = False
        wire.connect(place.at)
        return wire.tls(name, context).request("GET", "/open/x")

    return send


def plaintext_in_tunnel(wire: Wire, place: Any) -> Answer:
    assert wire.connect(place.at).status == 200
    return wire.request("GET", "/data/x")


def endless_head(wire: Wire, place: Any) -> Answer:
    wire.tunnel(place.at).send(head("GET", "/open/x", f"Host: {place.at}")[:-2])
    with contextlib.suppress(OSError):
        for _ in range(64):
            wire.send(b"X-Filler: " + b"x" * 16384 + b"\r\n")
    return wire.read_answer()
