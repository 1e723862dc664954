"""mitmproxy's reader of HTTP/1 responses, with a bound on their head, and without the mistake about interim responses.

A patch of mitmproxy (12.2.3): `Http1Client` in `mitmproxy.proxy.layers.http` is replaced by a subclass. mitmproxy
keeps a head without end in memory, and takes an interim response (103 Early Hints) for the answer. Besides
`read_headers`, bodies differ, and heads of requests that came by HTTP/2 (`http1_messages`).
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestEndOfMessage, ResponseHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client, make_body_reader

from .http1_messages import Messages
from .request_reader import MAX_HEAD, head_size

_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9]( |$)")


def install() -> None:
    """Replace mitmproxy's Http1Client in this process."""
    layer.Http1Client = ResponseReader  # type: ignore[attr-defined]


class ResponseReader(Messages, Http1Client):
    """Reads responses; an interim one is skipped, as nobody here waits for it."""

    reads_requests = False

    @property
    def free(self) -> bool:
        """Whether the next request may be sent here: none is under way."""
        return self.stream_id is None

    def send(self, event: HttpEvent) -> Generator[commands.Command, Any, None]:
        if isinstance(event, RequestEndOfMessage) and not self.response and self.ends_plainly(event, self.request):
            yield from self.mark_done(request=True)
        elif isinstance(event, RequestEndOfMessage) and (end := self.last_chunk(event)):
            yield commands.SendData(self.conn, end)
            yield from self.mark_done(request=True)
        elif (writable := self.writable(event)) is not None:
            yield from super().send(writable)

    def read_headers(self, event: events.ConnectionEvent) -> Generator[commands.Command, Any, None]:
        if not isinstance(event, events.DataReceived) or self.request is None or self.stream_id is None:
            yield from super().read_headers(event)
            return
        lines = self.buf.maybe_extract_lines()
        while lines is not None and (not lines or _INTERIM.match(bytes(lines[0]))):
            lines = self.buf.maybe_extract_lines()
        try:
            if (len(self.buf) if lines is None else head_size(lines)) > MAX_HEAD:
                raise ValueError(f"its head has more than {MAX_HEAD} bytes")
            if lines is None:
                return
            self.response = http1.read_response_head([bytes(line) for line in lines])
            size = http1.expected_http_body_size(self.request, self.response)
        except ValueError as e:
            self.state = self.done
            text = f"the server's answer is not an HTTP/1.1 response: {e}"[:300]
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, text, ErrorCode.GENERIC_SERVER_ERROR))
            return
        yield ReceiveHttp(ResponseHeaders(self.stream_id, self.response, size == 0))
        self.body_reader = make_body_reader(size)
        self.state = self.read_body
        yield from self.state(event)
