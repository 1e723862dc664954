"""A tunnel that is not intercepted, without sockets: no server is opened without a permit for it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from end_to_end.refused_upgrades import TUNNELS, hello, server_name
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import connection
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow, tutils

from lictor.engine import patches
from lictor.engine.tunnel_layer import MAX_HELLO, Tunnel, TunnelLayer, is_let_through, let_through, read_server_name

OPEN = connection.ConnectionState.OPEN
GOOD = hello(server_name(b"pinned.example"))


def hello_of(name: str) -> bytes:
    """What a real client sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


class Wire:
    """One tunnel. `judge` stands for the addons, `permitted` for the permit that they may give."""

    def __init__(self, judge: Callable[[Tunnel], None] = lambda tunnel: None) -> None:
        patches.apply()
        self.judge, self.permitted, self.waits = judge, False, False
        client = connection.Client(
            peername=("127.0.0.1", 1),
            sockname=("127.0.0.1", 2),
            timestamp_start=1.0,
            state=OPEN,
            proxy_mode=ProxyMode.parse("regular"),
        )
        self.context = context.Context(client, SimpleNamespace())  # type: ignore[arg-type]
        self.context.server.address = ("pinned.example", 443)
        self.flow = tflow.tflow(req=tutils.treq(method=b"CONNECT", host="pinned.example", port=443))
        self.opened: list[tuple[str, int]] = []
        self.to_server, self.to_client, self.closed = b"", b"", set[str]()
        self.hooks: list[str] = []
        self.piling: list[int] = []
        self.error: str | None = None
        self.tunnel: Tunnel | None = None
        self._waiting: list[Any] = []
        self.context.__dict__.update(dispatch=self._hook, connecting=self.piling.append)
        self.layer = TunnelLayer(self.context, self.flow, lambda flow: self.permitted)
        self._run(events.Start())

    def send(self, data: bytes, by: str = "client") -> Wire:
        self._run(events.DataReceived(self._end(by), data))
        return self

    def close(self, by: str) -> Wire:
        self._run(events.ConnectionClosed(self._end(by)))
        return self

    def answer(self) -> None:
        command = self._waiting.pop(0)
        self.judge(command.tunnel)
        self._run(events.HookCompleted(command))

    def _end(self, side: str) -> connection.Connection:
        return self.context.client if side == "client" else self.context.server

    def _hook(self, command: Any) -> Any:
        self.hooks.append(command.name)
        self.tunnel = command.tunnel
        if self.waits and command.name == "tunnel_opening":
            return object()
        if command.name == "tunnel_opening":
            self.judge(command.tunnel)
        return None

    def _run(self, event: events.Event) -> None:
        for command in self.layer.handle_event(event):
            if isinstance(command, commands.OpenConnection):
                assert command.connection.address is not None
                self.opened.append(command.connection.address[:2])
                self._run(events.OpenConnectionCompleted(command, self.error))
            elif isinstance(command, commands.SendData):
                if command.connection is self.context.client:
                    self.to_client += command.data
                else:
                    self.to_server += command.data
            elif isinstance(command, commands.CloseConnection):
                self.closed.add("client" if command.connection is self.context.client else "server")
            elif isinstance(command, commands.StartHook):
                self._waiting.append(command)


@pytest.mark.parametrize("what", ["no permit", "a problem", "another host", "another port", "an address"])
def test_no_permit_no_connection(what: str) -> None:
    wire = Wire()
    wire.permitted = what != "no permit"
    if what == "a problem":
        wire.send(b"SSH-2.0\r\n")
    else:
        if what.startswith("another"):
            wire.context.server.address = ("pinned.example", 444) if what == "another port" else ("other.example", 443)
        elif what == "an address":
            wire.context.server.address = ("192.0.2.1", 443)
        wire.send(GOOD)
        assert wire.to_client == b"\x15\x03\x03\x00\x02\x02\x31", "a TLS alert says so"
    wire.send(b"more").close("client")
    assert (wire.opened, wire.to_server, wire.closed, wire.hooks) == ([], b"", {"client"}, ["tunnel_opening"])


def test_a_permit_that_a_failing_addon_did_not_give() -> None:
    wire = Wire()
    wire.waits = True
    wire.send(GOOD)
    assert wire.opened == []
    wire.send(b"more")
    assert wire.opened == []
    wire.answer()
    assert (wire.opened, wire.to_server) == ([], b"")


def test_bytes_pass_both_ways_once_it_is_permitted() -> None:
    wire = Wire()
    wire.permitted = True
    wire.send(GOOD[:50])
    assert wire.hooks == []
    wire.send(GOOD[50:] + b"early")
    assert wire.opened == [("pinned.example", 443)]
    assert wire.piling == [1, -1], "the driver was told for how long the client must wait"
    wire.send(b"answer", by="server").send(b"more")
    assert (wire.to_server, wire.to_client) == (GOOD + b"earlymore", b"answer")
    wire.close("server")
    assert wire.closed == {"client", "server"}
    assert wire.tunnel is not None
    assert (wire.tunnel.passed["out"], wire.tunnel.passed["in"], wire.tunnel.closed_by) == (len(GOOD) + 9, 6, "server")
    assert wire.hooks == ["tunnel_opening", "tunnel_ended"]
    wire.send(b"late").close("client")
    assert wire.hooks == ["tunnel_opening", "tunnel_ended"]


def test_what_comes_while_it_is_judged_waits() -> None:
    wire = Wire()
    wire.waits = wire.permitted = True
    wire.send(GOOD).send(b"one").send(b"two")
    assert wire.to_server == b""
    wire.answer()
    assert wire.to_server == GOOD + b"onetwo"


def test_a_server_that_does_not_answer() -> None:
    wire = Wire()
    wire.permitted, wire.error = True, "connection refused"
    wire.send(GOOD).send(b"more")
    assert wire.tunnel is not None
    assert (wire.tunnel.error, wire.tunnel.closed_by, wire.to_server) == ("connection refused", None, b"")
    assert (wire.closed, wire.hooks) == ({"client", "server"}, ["tunnel_opening", "tunnel_ended"])


def test_what_is_read_before_it_is_judged_is_bounded() -> None:
    wire = Wire()
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16380)
    sent = 0
    while not wire.hooks:
        piece, record = record[:1000], record[1000:] or b"\x16\x03\x01\x40\x00" + bytes(16384)
        wire.send(piece)
        sent += len(piece)
        assert sent <= MAX_HELLO + 1000
    assert wire.tunnel is not None
    assert wire.tunnel.problem is not None


@pytest.mark.parametrize("name", ["localhost", "a.b.example", "xn--bcher-kva.example"])
def test_the_name_that_a_real_client_sends(name: str) -> None:
    first = hello_of(name)
    assert read_server_name(first) == name
    assert [read_server_name(first[:end]) for end in range(1, len(first))] == [None] * (len(first) - 1)


def test_an_address_is_not_named() -> None:
    assert read_server_name(hello_of("127.0.0.1")) == ""


def test_upper_case() -> None:
    assert read_server_name(hello(server_name(b"Pinned.EXAMPLE"))) == "pinned.example"


@pytest.mark.parametrize("name", [name for name, (_, reason) in TUNNELS.items() if reason == "not_tls"])
def test_what_is_no_hello(name: str) -> None:
    wire = Wire()
    wire.permitted = True
    wire.send(TUNNELS[name][0])
    assert wire.tunnel is not None
    assert wire.tunnel.problem is not None
    assert (wire.tunnel.problem.reason, wire.opened) == ("not_tls", [])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for first in (data, GOOD[:5] + data, GOOD[: 9 + len(data) % 60] + data):
        wire = Wire()
        wire.permitted = True
        wire.send(first).close("client")
        assert wire.tunnel is not None or not first
        assert wire.tunnel is None or wire.tunnel.problem is not None or wire.tunnel.server_name is not None


def test_the_mark() -> None:
    flow = tflow.tflow()
    assert not is_let_through(flow)
    let_through(flow)
    assert is_let_through(flow)
