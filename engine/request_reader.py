"""mitmproxy's reader of HTTP/1 requests, made to hand on what it cannot read, so that this too is refused and recorded.

A patch of mitmproxy (12.2.3): `Http1Server` in `mitmproxy.proxy.layers.http` is replaced by a subclass. mitmproxy
answers 400 to bytes that are no request and lets no addon know; it waits for ever, with all that came in memory, for
the end of a head; and it forgets a request that follows an empty line. Besides `read_headers` these differ: what goes
wrong upstream is told in the form of all our refusals, not by a page of mitmproxy's, and bodies are as in
`http1_messages`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Sequence
from http import HTTPStatus
from typing import Any, cast

from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders, ResponseEndOfMessage, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Server, make_body_reader

from . import strict_head
from .http1_messages import Messages
from .problem import Problem

MAX_HEAD = 64 * 1024
"""Bytes of a request's head, evidence lines and all."""
FIELD_OVERHEAD = 32

_PROBLEM = "_lictor_problem"
CommandGenerator = Generator[commands.Command, Any, None]


def install() -> None:
    """Replace mitmproxy's Http1Server in this process."""
    layer.Http1Server = RequestReader  # type: ignore[attr-defined]


def problem_with(request: http.Request) -> Problem | None:
    """Why this request could not be read; None if it could."""
    found = request.__dict__.get(_PROBLEM)
    return found if isinstance(found, Problem) else None


def head_size(lines: Sequence[bytes | bytearray]) -> int:
    """How much of `MAX_HEAD` these lines take: 32 bytes more for each than it has, as in HTTP/2."""
    return sum(map(len, lines)) + FIELD_OVERHEAD * len(lines)


def mark(request: http.Request, problem: Problem) -> None:
    """Say of a request why it could not be read."""
    request.__dict__[_PROBLEM] = problem


class RequestReader(Messages, Http1Server):
    """Reads requests; what is none becomes one that carries its `problem_with`, and the connection is not read on."""

    reads_requests = True

    def send(self, event: HttpEvent) -> CommandGenerator:
        status = event.code.http_status_code() if isinstance(event, ResponseProtocolError) else None
        if status is not None and self.response is None and self.conn.state & ConnectionState.CAN_WRITE:
            response = failure(HTTPStatus(status), cast(ResponseProtocolError, event).message)
            yield commands.SendData(self.conn, http1.assemble_response(response))
            yield commands.CloseConnection(self.conn)
        elif isinstance(event, ResponseEndOfMessage) and self.ends_plainly(event, self.response):
            yield from self.mark_done(response=True)
        elif isinstance(event, ResponseEndOfMessage) and (end := self.last_chunk(event)):
            if self.request is not None and self.request.method != "HEAD":
                yield commands.SendData(self.conn, end)
            yield from self.mark_done(response=True)
        elif (writable := self.writable(event)) is not None:
            yield from super().send(writable)

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator:
        if isinstance(event, events.ConnectionClosed):
            if bytes(self.buf).strip():
                yield from self._give_up(None, "unreadable_request", "the connection ended before a request's head did")
            yield commands.CloseConnection(self.conn)
            return
        before = len(self.buf)
        lines = self.buf.maybe_extract_lines()
        while lines == []:  # empty lines before a request
            before = len(self.buf)
            lines = self.buf.maybe_extract_lines()
        if (len(self.buf) if lines is None else head_size(lines)) > MAX_HEAD:
            text = f"the head of the request has more than {MAX_HEAD} bytes"
            yield from self._give_up(None, "head_too_large", text)
        elif lines is not None:
            yield from self._read_head([bytes(line) for line in lines], before - len(self.buf), event)

    def _read_head(self, lines: list[bytes], octets: int, event: events.ConnectionEvent) -> CommandGenerator:
        request: http.Request | None = None
        try:
            strict_head.check_lines(lines, octets)
            request = http1.read_request_head(lines)
            strict_head.check_coding(request)
            size = http1.expected_http_body_size(request)
        except ValueError as e:
            reason = "unreadable_request" if request is None else "invalid_request"
            yield from self._give_up(request, reason, f"this is not an HTTP/1.1 request: {e}")
            return
        self.request = request
        yield ReceiveHttp(RequestHeaders(self.stream_id, request, size == 0))
        self.body_reader = make_body_reader(size)
        self.state = self.read_body
        yield from self.state(event)

    @property
    def head_under_way(self) -> int | None:
        """Which request's head has begun and not ended."""
        return self.stream_id if self.buf and self.state == self.read_headers else None

    def end_head(self, reason: str, text: str) -> CommandGenerator:
        """Give up on the head that is under way."""
        yield from self._give_up(None, reason, text)

    def _give_up(self, request: http.Request | None, reason: str, text: str) -> CommandGenerator:
        self.request = request or _unreadable()
        mark(self.request, Problem(reason, text))
        self.state = self.done
        self.buf.maybe_extract_at_most(len(self.buf))
        yield ReceiveHttp(RequestHeaders(self.stream_id, self.request, True))


def failure(status: HTTPStatus, text: str) -> http.Response:
    """The response to a request that could not be served: problem details (RFC 9457), Proxy-Status (RFC 9209)."""
    error = "http_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "destination_unavailable"
    if status is HTTPStatus.GATEWAY_TIMEOUT:
        error = "http_response_timeout"
    problem = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": text}
    headers = http.Headers(
        content_type="application/problem+json", proxy_status=f"lictor; error={error}", connection="close"
    )
    return http.Response.make(int(status), json.dumps(problem) + "\n", headers)


def _unreadable() -> http.Request:
    """What stands for bytes that are no request."""
    now = time.time()
    return http.Request("", 0, b"UNREADABLE", b"", b"", b"/", b"HTTP/1.1", http.Headers(), b"", None, now, now)
