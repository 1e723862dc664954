"""How long a client connection may keep us waiting, and for what. Nothing here costs a request anything.

One sweep looks at all connections now and then, and reads from their layers what each is waiting for: the rest of a
head, of a body that must be read to be judged, of a TLS handshake, the answer of a server, or the next request. What is
still the same wait as at an earlier sweep has lasted since then; a head that comes byte by byte stays one wait.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, Protocol, cast

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, layer, layers, tunnel
from mitmproxy.proxy.layers.http import HttpLayer, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestProtocolError, ResponseProtocolError

from .problem import Problem, set_problem
from .tunnel_layer import TunnelLayer

Commands = Generator[commands.Command, Any, None]

BODY_RATE = 1024
"""Bytes a second that a body which must be read has to bring on average, once `TimeLimits.body` is over."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds. `head`: for a request's head, for a TLS handshake in a tunnel, for the first byte in one.

    `body`: for one that must be read, and see `BODY_RATE`. `idle`: without a request under way. `stream`: with one, but
    without a byte in either direction. `answer`: from the end of a request to the head of its response.
    """

    head: float = 30.0
    body: float = 30.0
    idle: float = 120.0
    stream: float = 600.0
    answer: float = 600.0

    @property
    def interval(self) -> float:
        """Seconds between two sweeps."""
        return max(0.02, min(1.0, min(self.head, self.body, self.idle, self.stream, self.answer) / 4))


class Wait(NamedTuple):
    """One thing that a connection waits for. The same `key` at the next sweep is the same wait."""

    what: Literal["handshake", "head", "body", "answer"]
    key: Hashable
    http: HttpLayer | None = None
    stream: HttpStream | None = None


class Waits(NamedTuple):
    """What a connection waits for. `idle`: nothing is under way on it."""

    found: list[Wait]
    idle: bool


class Patience:
    """Since when one connection waits for what it waits for."""

    __slots__ = ("_limits", "_since")

    def __init__(self, limits: TimeLimits) -> None:
        self._limits = limits
        self._since: dict[Hashable, float] = {}

    def over(self, waits: list[Wait], now: float) -> Iterator[Wait]:
        """Of the waits of a connection those that have lasted too long. To be asked at every sweep."""
        before = self._since
        if not waits:
            if before:
                self._since = {}
            return
        self._since = {(wait.what, wait.key): before.get((wait.what, wait.key), now) for wait in waits}
        for wait in waits:
            if now - self._since[wait.what, wait.key] >= self._allowed(wait):
                yield wait

    def _allowed(self, wait: Wait) -> float:
        if wait.what == "answer":
            return self._limits.answer
        if wait.what == "body" and wait.stream is not None:
            return self._limits.body + len(wait.stream.request_body_buf) / BODY_RATE
        return self._limits.head


class HeadReader(Protocol):
    """What reads requests, of any version of HTTP."""

    @property
    def head_under_way(self) -> Hashable | None:
        """Which head has begun and not ended; None: none."""

    def end_head(self, reason: str, text: str) -> Commands:
        """Give up on it: refuse it as a request that could not be read."""


def waits_of(top: layer.Layer, client: Connection) -> Waits:
    """What a client connection waits for, read from its layers."""
    inner = top.context.layers[-1]
    if isinstance(inner, HttpLayer):
        return _of_http(inner, client)
    unopened = isinstance(inner, HttpStream) or (isinstance(inner, TunnelLayer) and inner.awaits_hello)
    establishing = isinstance(inner, layers.ClientTLSLayer) and inner.tunnel_state is tunnel.TunnelState.ESTABLISHING
    if unopened or establishing:
        return Waits([Wait("handshake", id(inner))], False)
    return Waits([], not isinstance(inner, TunnelLayer))


def _of_http(http: HttpLayer, client: Connection) -> Waits:
    found = [wait for number, stream in http.streams.items() if (wait := _of_stream(http, number, stream)) is not None]
    reader: Any = http.connections.get(client)
    head = getattr(reader, "head_under_way", None)
    if head is not None:
        found.append(Wait("head", (id(http), head), http))
    return Waits(found, not found and not http.streams)


def _of_stream(http: HttpLayer, number: int, stream: HttpStream) -> Wait | None:
    if stream._paused is not None:
        return None  # for a hook or for a connection, and both have limits of their own
    if stream.client_state == stream.state_consume_request_body:
        return Wait("body", (id(http), number), http, stream)
    if stream.client_state == stream.state_done and stream.server_state == stream.state_wait_for_response_headers:
        return Wait("answer", (id(http), number), http, stream)
    return None


class _GatewayTimeout:
    """In place of mitmproxy's error codes, which have none for it."""

    name = "GATEWAY_TIMEOUT"

    def http_status_code(self) -> HTTPStatus:
        return HTTPStatus.GATEWAY_TIMEOUT


class Ending:
    """What ends a wait: stands in the HTTP layer's table of who waits to be woken, and speaks for reader or stream."""

    def __init__(self, wait: Wait, limits: TimeLimits, client: Connection) -> None:
        self._wait, self._limits, self._client = wait, limits, client

    def handle_event(self, event: object) -> Commands:
        """The HTTP layer takes it for a layer of its own."""
        http, stream = self._wait.http, self._wait.stream
        assert http is not None
        if stream is None:
            yield from self._end_head(http)
        elif self._wait.what == "body":
            yield from self._end_body(stream)
        else:
            yield from self._end_answer(http, stream)

    def _end_head(self, http: HttpLayer) -> Commands:
        reader = cast(HeadReader, http.connections[self._client])
        yield from reader.end_head("head_timeout", f"the head did not end within {self._limits.head:g} seconds")

    def _end_body(self, stream: HttpStream) -> Commands:
        text = "the body, which must be read to be judged, came too slowly"
        set_problem(stream.flow, Problem("body_timeout", text))
        yield ReceiveHttp(RequestProtocolError(stream.stream_id, text, ErrorCode.GENERIC_CLIENT_ERROR))

    def _end_answer(self, http: HttpLayer, stream: HttpStream) -> Commands:
        text = f"the server did not answer within {self._limits.answer:g} seconds"
        if stream.flow.server_conn in http.connections:  # what it says later must not be another request's answer
            yield SendHttp(RequestProtocolError(stream.stream_id, text, ErrorCode.CANCEL), stream.flow.server_conn)
        error = ResponseProtocolError(stream.stream_id, text, ErrorCode.GENERIC_SERVER_ERROR)
        error.code = cast(ErrorCode, _GatewayTimeout())
        yield ReceiveHttp(error)
