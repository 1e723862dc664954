"""A tunnel that is not intercepted: TLS from end to end, of which only the first message is read.

The server is connected to only when the CONNECT's flow holds a permit for the very host and port that is dialled, which
is asked of the same function as for requests (`permit`). Until then what the client sends is kept here, at most the
`MAX_HELLO` bytes that a ClientHello may have; afterwards bytes pass as they come, both ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from mitmproxy import http
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.tls import parse_client_hello

from .problem import Problem

MAX_HELLO = 64 * 1024
_ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"  # a TLS alert: fatal, access_denied
_ENCRYPTED_NAMES = frozenset((0xFE0D, 0xFFCE))  # encrypted_client_hello, and its predecessor
_MARK = "lictor.passthrough"

Commands = Generator[commands.Command, Any, None]
Permitted = Callable[[http.HTTPFlow], bool]


def let_through(flow: http.HTTPFlow) -> None:
    """The tunnel of this CONNECT is not to be intercepted."""
    flow.metadata[_MARK] = True


def is_let_through(flow: http.HTTPFlow) -> bool:
    return _MARK in flow.metadata


@dataclass(slots=True)
class Tunnel:
    """A tunnel. `server_name` is that of the ClientHello (lower case); `problem`: why there is none to be judged.

    At its end: the bytes passed on each way, who closed it, and why it was not established.
    """

    context: context.Context
    flow: http.HTTPFlow
    server_name: str | None = None
    problem: Problem | None = None
    passed: Counter[Literal["out", "in"]] = field(default_factory=Counter)
    closed_by: Literal["client", "server"] | None = None
    error: str = ""


@dataclass
class TunnelOpeningHook(commands.StartHook):
    """The first message is in. Without a permit for this flow afterwards, the tunnel is closed."""

    tunnel: Tunnel


@dataclass
class TunnelEndedHook(commands.StartHook):
    """A tunnel that had its permit has ended, or could not be established."""

    tunnel: Tunnel


class TunnelLayer(layer.Layer):
    """What is inside a CONNECT that is let through."""

    def __init__(self, context: context.Context, flow: http.HTTPFlow, permitted: Permitted) -> None:
        super().__init__(context)
        self._tunnel = Tunnel(context, flow)
        self._permitted = permitted
        self._first = b""
        self._handle: Callable[[events.Event], Commands] = self._await_hello

    @property
    def awaits_hello(self) -> bool:
        """Nothing has been judged yet: the first message has not come, or not to its end."""
        return self._handle == self._await_hello

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived | events.ConnectionClosed):
            yield from self._handle(event)

    def _await_hello(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            self._first += event.data
        try:
            if isinstance(event, events.ConnectionClosed):
                raise ValueError("the connection ended before a ClientHello did")
            name = read_server_name(self._first)
        except ValueError as e:
            self._tunnel.problem = Problem("not_tls", f"expected a TLS ClientHello: {e}")
        except _Encrypted:
            text = "the ClientHello has an encrypted server name, and so leads where nobody can see"
            self._tunnel.problem = Problem("encrypted_name", text)
        else:
            if name is None and len(self._first) <= MAX_HELLO:
                return
            self._tunnel.server_name = name
            if name is None:
                self._tunnel.problem = Problem("not_tls", f"the ClientHello has more than {MAX_HELLO} bytes")
        yield from self._open()

    def _open(self) -> Commands:
        tunnel = self._tunnel
        yield TunnelOpeningHook(tunnel)
        if tunnel.problem is not None or not self._is_permitted():
            self._handle = self._closed
            if starts_like_tls_record(self._first):
                yield commands.SendData(self.context.client, _ACCESS_DENIED)
            yield commands.CloseConnection(self.context.client)
            return
        self.context.connecting(1)  # type: ignore[attr-defined]
        try:
            error = yield commands.OpenConnection(self.context.server)
        finally:
            self.context.connecting(-1)  # type: ignore[attr-defined]
        if error:
            tunnel.error = error
            yield from self._end(None)
            return
        self._handle = self._relay
        yield from self._pass_on("out", self._first)
        self._first = b""

    def _is_permitted(self) -> bool:
        request = self._tunnel.flow.request
        return self.context.server.address == (request.host, request.port) and self._permitted(self._tunnel.flow)

    def _relay(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            yield from self._pass_on("out" if event.connection is self.context.client else "in", event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._end("client" if event.connection is self.context.client else "server")

    def _pass_on(self, way: Literal["out", "in"], data: bytes) -> Commands:
        self._tunnel.passed[way] += len(data)
        yield commands.SendData(self.context.server if way == "out" else self.context.client, data)

    def _end(self, closed_by: Literal["client", "server"] | None) -> Commands:
        self._handle = self._closed
        self._tunnel.closed_by = closed_by
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)
        yield TunnelEndedHook(self._tunnel)

    def _closed(self, event: events.Event) -> Commands:
        yield from ()


class _Encrypted(Exception):
    pass


def read_server_name(first: bytes) -> str | None:
    """The server name of a ClientHello, "" if it has none; None: more is to come. Raises ValueError: it is none."""
    if first[:1] != b"\x16" or (len(first) > 2 and not starts_like_tls_record(first)):
        raise ValueError("the first bytes are no TLS record")
    if len(first) > 5 and first[5] != 1:
        raise ValueError("the first message is another")
    try:
        hello = parse_client_hello(first)
        if hello is None:
            return None
        kinds = [kind for kind, _ in hello.extensions]
        name = hello.sni
    except ValueError:
        raise
    except Exception as e:  # of the parser, for bytes that are none
        raise ValueError("it cannot be read") from e
    if _ENCRYPTED_NAMES.intersection(kinds):
        raise _Encrypted
    if len(set(kinds)) < len(kinds):
        raise ValueError("it has an extension twice")
    if name is None and 0 in kinds:
        raise ValueError("its server name is no name of one host")
    return (name or "").lower()
