"""HTTP/1.1 as it must be written when the other side speaks HTTP/2, and trailers, which mitmproxy's HTTP/1 has none of.

What most messages are is told apart first: mitmproxy works out anew from the heads, at the end of every message and on
both sides, whether the connection goes on.

A body of which HTTP/2 did not say the length is chunked here: mitmproxy would write it behind a head that announces
none, where a server reads it as the next request, and would end it early at an empty DATA frame.
"""

from __future__ import annotations

from collections.abc import Generator
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from mitmproxy import http
from mitmproxy.net.http import status_codes
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestHeaders,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http1 import Http1Connection

MAX_LINES = 64 * 1024
"""Bytes of a chunk's head or of trailers."""

# What a trailer must not say (RFC 9110 section 6.5.1), and what is judged or replaced at the head of a message.
NO_TRAILERS = frozenset(
    (
        b"authorization",
        b"behavioral-evidence",
        b"behavioral-evidence-checkpoint",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"execution-context",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"set-cookie",
        b"te",
        b"traceparent",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

EVIDENCE = frozenset((b"behavioral-evidence", b"behavioral-evidence-checkpoint", b"execution-context"))
"""What monitors say of each other's streams, after them; the addon that counts the answer takes it out."""
_NO_TRAILERS_OF_ANSWERS = NO_TRAILERS - EVIDENCE


class Messages(Http1Connection):
    """Reads and writes trailers; for both sides. `reads_requests`: this is the client's."""

    reads_requests: ClassVar[bool]
    _trailers: http.Headers | None = None

    def read_body(self, event: events.Event) -> Generator[commands.Command, Any, None]:
        assert self.stream_id is not None
        while True:
            try:
                if isinstance(event, events.DataReceived):
                    read = self.body_reader(self.buf)
                else:
                    read = self.body_reader.read_eof()
                if read is None and len(self.buf) > MAX_LINES:
                    raise h11.RemoteProtocolError(
                        f"a line of the body, or its trailers, has more than {MAX_LINES} bytes"
                    )
            except h11.ProtocolError as e:
                error = self.ReceiveProtocolError(
                    self.stream_id, f"HTTP/1 protocol error: {e}", code=self.ReceiveProtocolError.code
                )
                yield commands.CloseConnection(self.conn)
                yield ReceiveHttp(error)
                return
            if read is None:
                return
            if type(read) is h11.Data:  # h11's events are of an abstract class, which isinstance asks
                if data := bytes(read.data):
                    yield ReceiveHttp(self.ReceiveData(self.stream_id, data))
            else:
                yield from self._message_ended(read)
                return

    def _message_ended(self, read: Any) -> Generator[commands.Command, Any, None]:
        assert self.stream_id is not None
        assert self.request is not None
        is_request = self.reads_requests
        if self.request.data.method.upper() != b"CONNECT":
            left_out = NO_TRAILERS if is_request else _NO_TRAILERS_OF_ANSWERS
            if read.headers and (trailers := kept_trailers(read.headers, left_out)):
                kind = RequestTrailers if is_request else ResponseTrailers
                yield ReceiveHttp(kind(self.stream_id, trailers))
            yield ReceiveHttp(self.ReceiveEndOfMessage(self.stream_id))
        yield from self.mark_done(request=is_request, response=not is_request)

    def mark_done(self, *, request: bool = False, response: bool = False) -> Generator[commands.Command, Any, None]:
        self.request_done = self.request_done or request
        self.response_done = self.response_done or response
        if not (self.request_done and self.response_done):
            if self.request_done and self.reads_requests:
                self.state = self.wait
            return
        assert self.request is not None
        assert self.response is not None
        if not _goes_on(self.request, self.response):
            yield from super().mark_done()
            return
        self.request_done = self.response_done = False
        self.request = self.response = None
        self.stream_id = self.stream_id + 2 if self.reads_requests and self.stream_id else None
        self.state = self.read_headers
        if self.buf:
            yield from self.state(events.DataReceived(self.conn, b""))

    def writable(self, event: HttpEvent) -> HttpEvent | None:
        """The event as mitmproxy's writer can take it; None: there is nothing to write for now."""
        kind = type(event)
        if kind is RequestData or kind is ResponseData:
            return event if event.data else None  # type: ignore[attr-defined]
        if kind is RequestHeaders:
            return _http1_request(event) if event.request.is_http2 else event  # type: ignore[arg-type, attr-defined]
        if kind is ResponseHeaders:
            return _http1_response(event, self.request) if event.response.is_http2 else event  # type: ignore[arg-type, attr-defined]
        if kind is RequestTrailers or kind is ResponseTrailers:
            self._trailers = event.trailers  # type: ignore[attr-defined]
            return None
        return event

    def ends_plainly(self, event: HttpEvent, message: http.Message | None) -> bool:
        """Whether this end of our message is nothing that is written: no chunk, no trailers."""
        assert event.stream_id == self.stream_id
        return message is not None and self._trailers is None and "transfer-encoding" not in message.headers

    def last_chunk(self, event: HttpEvent) -> bytes:
        """The end of a chunked body that has trailers; nothing where mitmproxy writes the end as it should be."""
        trailers, self._trailers = self._trailers, None
        if trailers is None:
            return b""
        message = self.response if isinstance(event, ResponseEndOfMessage) else self.request
        if message is None or "chunked" not in message.headers.get("transfer-encoding", "").lower():
            return b""
        return b"0\r\n" + b"".join(b"%s: %s\r\n" % field for field in trailers.fields) + b"\r\n"


def _goes_on(request: http.Request, response: http.Response) -> bool:
    """Whether the connection goes on after these messages, for all that is plain; False: mitmproxy may say so."""
    headers = response.headers
    return (
        request.data.http_version == response.data.http_version == b"HTTP/1.1"
        and response.data.status_code != HTTPStatus.SWITCHING_PROTOCOLS
        and request.data.method.upper() != b"CONNECT"
        and "content-length" in headers
        and "transfer-encoding" not in headers
        and headers.get("connection", "keep-alive") == "keep-alive"
        and request.headers.get("connection", "keep-alive") == "keep-alive"
    )


def kept_trailers(fields: Any, left_out: frozenset[bytes] = NO_TRAILERS) -> http.Headers:
    """Trailers as they are passed on: in lower case, without those that must not be there."""
    lower = ((bytes(name).lower(), bytes(value)) for name, value in fields)
    return http.Headers([(name, value) for name, value in lower if name not in left_out])


def _http1_request(event: RequestHeaders) -> RequestHeaders:
    request = event.request.copy()
    request.http_version, request.authority = "HTTP/1.1", ""
    request.headers.insert(0, b"Host", event.request.data.authority)
    cookies = request.headers.get_all("cookie")
    if len(cookies) > 1:  # HTTP/2 alone may split them (RFC 9113 section 8.2.3)
        request.headers["cookie"] = "; ".join(cookies)
    if not event.end_stream and "content-length" not in request.headers:
        request.headers["transfer-encoding"] = "chunked"
    return RequestHeaders(event.stream_id, request, event.end_stream)


def _http1_response(event: ResponseHeaders, request: http.Request | None) -> ResponseHeaders:
    response = event.response.copy()
    response.http_version = "HTTP/1.1"
    response.reason = status_codes.RESPONSES.get(response.status_code, "")
    bodiless = response.status_code < HTTPStatus.OK or response.status_code in (
        HTTPStatus.NO_CONTENT,
        HTTPStatus.NOT_MODIFIED,
    )
    if request is None or request.method == "HEAD" or bodiless or "content-length" in response.headers:
        pass
    elif event.end_stream:
        response.headers["content-length"] = "0"
    elif request.http_version == "HTTP/1.1":
        response.headers["transfer-encoding"] = "chunked"
    return ResponseHeaders(event.stream_id, response, event.end_stream)
