"""mitmproxy's HTTP/2 layers: windows that open as the other side drains, and nothing malformed that goes unseen.

A patch of mitmproxy (12.2.3): `Http2Server` and `Http2Client` in `mitmproxy.proxy.layers.http` are replaced by
subclasses. mitmproxy takes all that comes into memory, ends a connection for one malformed request and tells no addon
of it, forgets no stream, and lets GOAWAY end what is under way. What HTTP/1 makes of it all is in `http1_messages`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from http import HTTPStatus
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    RequestProtocolError,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.tls import TLSLayer

from . import grpc_status
from .http2_connection import GoingAway, Http2Connection
from .http2_heads import read_request, read_response, read_trailers, unreadable
from .problem import Problem
from .request_reader import failure

Commands = Generator[commands.Command, Any, None]
Answered = Generator[commands.Command, Any, bool]

DRAINED_MAX = 1024 * 1024
"""So much of the body of a request that has its answer already is taken; then the stream is reset."""
_SWEPT_MIN = 32
_State = _http2.StreamState


def install() -> None:
    """Replace mitmproxy's Http2Server and Http2Client in this process."""
    layer.Http2Server = RequestStreams  # type: ignore[attr-defined]
    layer.Http2Client = ResponseStreams  # type: ignore[attr-defined]


class NotTaken:
    """In place of mitmproxy's error codes: the server says that it has done nothing for this request."""

    name = "NOT_TAKEN"

    def http_status_code(self) -> int:
        return HTTPStatus.BAD_GATEWAY


class _Streams(_http2.Http2Connection):
    """What both sides have in common. Streams are numbered as on this connection; `http_id` gives the HTTP layer's."""

    h2_conn: Http2Connection

    def _take_over(self, *, client_side: bool) -> None:
        config = {**self.h2_conf_defaults, "client_side": client_side, "validate_inbound_headers": False}
        self.h2_conn = Http2Connection(h2.config.H2Configuration(**config))
        self.unread: dict[int, int] = {}
        """Bytes per stream that have come in and for which no new window was opened."""
        self.http = next(found for found in reversed(self.context.layers) if isinstance(found, layer.HttpLayer))
        self._sweep_at = _SWEPT_MIN

    def http_id(self, stream_id: int) -> int | None:
        return stream_id

    def stuck(self, http_id: int) -> bool:
        """Whether data of a stream waits here for the peer's window."""
        return bool(self.h2_conn.stream_buffers.get(http_id))

    def all_stuck(self) -> Iterable[int]:
        """The HTTP layer's numbers of all streams of which data waits here."""
        return list(self.h2_conn.stream_buffers)

    def acknowledge(self, stream_id: int) -> None:
        """What came in on a stream was passed on: its sender may send more."""
        size = self.unread.pop(stream_id)
        if self.h2_conn.state_machine.state is not h2.connection.ConnectionState.CLOSED:
            self.h2_conn.acknowledge_received_data(size, stream_id)

    def flush(self) -> None:
        """Send what `acknowledge` has left to be sent, outside of an event."""
        data = self.h2_conn.data_to_send()
        if data:
            below = (found for found in reversed(self.context.layers) if isinstance(found, TLSLayer))
            session = next((found.tls for found in below if found.conn is self.conn), None)
            self.context.send_tls(self.conn, session, data)  # type: ignore[attr-defined]

    def _receive(self, data: bytes) -> Commands:
        self._sweep()  # now, as no event is left to be handled that would have to find what is forgotten
        for found in self.h2_conn.receive_data(data):
            if (yield from self.handle_h2_event(found)):
                return
        if to_send := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, to_send)

    def handle_h2_event(self, event: Any) -> Answered:
        if isinstance(event, h2.events.DataReceived):
            if self.streams.get(event.stream_id) is not _State.EXPECTING_HEADERS:
                yield from self._data(event)
                return False
        elif isinstance(event, h2.events.TrailersReceived):
            yield from self._trailers(event)
            return False
        elif isinstance(event, h2.events.StreamReset):
            yield from self._reset(event)
            return False
        elif isinstance(event, GoingAway):
            yield from self._going_away(event)
            return False
        return (yield from super().handle_h2_event(event))

    def _data(self, event: h2.events.DataReceived) -> Commands:
        if size := event.flow_controlled_length:
            self.unread[event.stream_id] = self.unread.get(event.stream_id, 0) + size
        # An empty chunk would end a chunked body on the other side.
        if event.data and event.stream_id in self.streams:
            yield ReceiveHttp(self.ReceiveData(event.stream_id, event.data))

    def _trailers(self, event: h2.events.TrailersReceived) -> Commands:
        if event.stream_id not in self.streams:
            return
        try:
            if self.h2_conn.length_differs(event.stream_id):
                raise ValueError("its body is not as long as it says")
            trailers = read_trailers(event.headers)
        except ValueError as e:
            yield from self._malformed(event.stream_id, f"the message is malformed: {e}")
        else:
            yield ReceiveHttp(self.ReceiveTrailers(event.stream_id, trailers))

    def _malformed(self, stream_id: int, text: str) -> Commands:
        self.streams.pop(stream_id, None)
        if not self.is_closed(stream_id):
            self.h2_conn.reset_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)
        yield self._error(stream_id, text, self.ReceiveProtocolError.code)

    def _reset(self, event: h2.events.StreamReset) -> Commands:
        if self.streams.pop(event.stream_id, None) is None:
            return
        code = int(event.error_code or 0)
        name = ErrorCodes(code).name if code in list(ErrorCodes) else str(code)
        kinds: dict[int, Any] = {
            ErrorCodes.CANCEL: ErrorCode.CANCEL,
            ErrorCodes.HTTP_1_1_REQUIRED: ErrorCode.HTTP_1_1_REQUIRED,
            ErrorCodes.REFUSED_STREAM: NotTaken(),
        }
        text = f"the stream was reset ({name})" if event.remote_reset else f"the message is malformed ({name})"
        yield self._error(event.stream_id, text, kinds.get(code, self.ReceiveProtocolError.code))

    def _error(self, stream_id: int, text: str, code: Any) -> ReceiveHttp:
        error = self.ReceiveProtocolError(stream_id, text, self.ReceiveProtocolError.code)
        error.code = code
        return ReceiveHttp(error)

    def _going_away(self, event: GoingAway) -> Commands:
        yield from ()

    def protocol_error(self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR) -> Commands:
        if self.h2_conn.state_machine.state is not h2.connection.ConnectionState.CLOSED:
            self.h2_conn.close_connection(error_code)
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)
        yield from self.close_connection(message)

    def _sweep(self) -> None:
        """Forget streams that have ended on both sides."""
        if len(self.streams) >= self._sweep_at:
            for stream_id in [found for found in self.streams if self.is_closed(found)]:
                del self.streams[stream_id]
            self._sweep_at = max(_SWEPT_MIN, 2 * len(self.streams))


class RequestStreams(_Streams, _http2.Http2Server):
    """The agent's side."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._take_over(client_side=False)
        self._drained: dict[int, int] = {}

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            yield from self._receive(event.data)
        elif isinstance(event, ResponseProtocolError):
            yield from self._fail(event)
        elif isinstance(event, events.ConnectionClosed):
            if self.head_under_way is not None:
                yield from self._record("unreadable_request", "the connection ended before a request's head did")
            yield from super()._handle_event(event)
        else:
            if isinstance(event, events.Start):
                self.context.windows.add(self)  # type: ignore[attr-defined]
            yield from super()._handle_event(event)
            if isinstance(event, ResponseEndOfMessage):
                self.h2_conn.stream_ended()

    def handle_h2_event(self, event: Any) -> Answered:
        if isinstance(event, h2.events.RequestReceived):
            request = read_request(event.headers, event.stream_ended is not None)
            self.streams[event.stream_id] = _State.HEADERS_RECEIVED
            yield ReceiveHttp(RequestHeaders(event.stream_id, request, event.stream_ended is not None))
            return False
        if isinstance(event, h2.exceptions.ProtocolError):
            flood = isinstance(event, h2.exceptions.DenialOfServiceError)
            large = "head_too_large" if self.h2_conn.reading_head is not None else "too_many_frames"
            yield from self._record(large if flood else "unreadable_request", f"HTTP/2 protocol error: {event}"[:200])
        return (yield from super().handle_h2_event(event))

    @property
    def head_under_way(self) -> int | None:
        """See `patience.HeadReader`."""
        return self.h2_conn.unfinished_head

    def end_head(self, reason: str, text: str) -> Commands:
        """See `patience.HeadReader`. Header blocks depend on each other: what follows could not be read either."""
        yield from self._record(reason, text)
        yield from self.protocol_error(text)

    def _record(self, reason: str, text: str) -> Commands:
        """What ends the connection is put before the addons, as a request that could not be read."""
        stream_id = max((self.h2_conn.highest_inbound_stream_id, *self.http.streams)) + 2
        yield ReceiveHttp(RequestHeaders(stream_id, unreadable(Problem(reason, text)), True))

    def _data(self, event: h2.events.DataReceived) -> Commands:
        yield from super()._data(event)
        stream_id = event.stream_id
        if stream_id not in self.http.streams and not self.is_closed(stream_id):
            drained = self._drained[stream_id] = self._drained.pop(stream_id, 0) + len(event.data)
            if drained > DRAINED_MAX:
                self._stop(stream_id)

    def _stop(self, stream_id: int) -> None:
        """The answer is complete, and the client need not go on (RFC 9113 section 8.1)."""
        self._drained.pop(stream_id, None)
        self.h2_conn.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    def _fail(self, event: ResponseProtocolError) -> Commands:
        stream_id, status = event.stream_id, event.code.http_status_code()
        if self.is_closed(stream_id):
            return
        headers_sent = self.h2_conn.streams[stream_id].state_machine.headers_sent
        if not self.is_open_for_us(stream_id):
            self._stop(stream_id)
        elif isinstance(event.code, NotTaken) and not headers_sent:
            self.h2_conn.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)  # it may be sent again, whatever it was
        elif status is not None and not headers_sent:
            stream = self.http.streams.get(stream_id)
            told = grpc_status.failed if stream and grpc_status.is_grpc(stream.flow.request) else failure
            response = told(HTTPStatus(status), event.message)
            fields = yield from _http2.format_h2_response_headers(self.context, ResponseHeaders(stream_id, response))
            self.h2_conn.send_headers(stream_id, fields, end_stream=not response.content)
            if response.content:
                self.h2_conn.send_data(stream_id, response.content, end_stream=True)
        else:
            yield from super()._handle_event(event)
            return
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)

    def _sweep(self) -> None:
        super()._sweep()
        if len(self._drained) > _SWEPT_MIN:
            self._drained = {s: size for s, size in self._drained.items() if not self.is_closed(s)}


class ResponseStreams(_Streams, _http2.Http2Client):
    """An upstream server's side."""

    going_away = False
    """The server takes no new requests on this connection."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._take_over(client_side=True)

    @property
    def free(self) -> bool:
        """Whether one more request may be sent here."""
        return not self.going_away

    def http_id(self, stream_id: int) -> int | None:
        return self.their_stream_id.get(stream_id)

    def stuck(self, http_id: int) -> bool:
        ours = self.our_stream_id.get(http_id)
        return http_id in self.stream_queue or (ours is not None and super().stuck(ours))

    def all_stuck(self) -> Iterable[int]:
        waiting = (self.their_stream_id.get(stream_id) for stream_id in self.h2_conn.stream_buffers)
        return [*(found for found in waiting if found is not None), *self.stream_queue]

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, HttpEvent) and event.stream_id not in self.our_stream_id:
            if isinstance(event, RequestHeaders):
                _without_hop_by_hop(event)
            elif event.stream_id not in self.stream_queue:
                return  # it has ended
            elif isinstance(event, RequestProtocolError):
                del self.stream_queue[event.stream_id]  # it never left
                return
        elif isinstance(event, events.Start):
            self.context.windows.add(self)  # type: ignore[attr-defined]
        yield from super()._handle_event(event)

    def _handle_event2(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            yield from self._receive(event.data)
        else:
            yield from super()._handle_event2(event)

    def handle_h2_event(self, event: Any) -> Answered:
        if isinstance(event, h2.events.ResponseReceived):
            yield from self._response(event)
            return False
        if isinstance(event, h2.events.StreamEnded):
            self.h2_conn.stream_ended()
        return (yield from super().handle_h2_event(event))

    def _response(self, event: h2.events.ResponseReceived) -> Commands:
        stream_id, ended = event.stream_id, event.stream_ended is not None
        if stream_id not in self.streams:
            return
        try:
            response = read_response(event.headers)
            if ended and response.status_code != HTTPStatus.NOT_MODIFIED and self.h2_conn.length_differs(stream_id):
                raise ValueError("a body is announced and none follows")
        except ValueError as e:
            yield from self._malformed(stream_id, f"the server's answer is not an HTTP/2 response: {e}")
            return
        self.streams[stream_id] = _State.HEADERS_RECEIVED
        yield ReceiveHttp(ResponseHeaders(stream_id, response, ended))

    def _going_away(self, event: GoingAway) -> Commands:
        self.going_away = True
        text = "the server goes away and has not taken the request"
        for stream_id in [found for found in self.streams if found > event.last_stream_id]:
            del self.streams[stream_id]
            yield self._error(stream_id, text, NotTaken())
        for http_id in list(self.stream_queue):
            del self.stream_queue[http_id]
            ours = self.h2_conn.get_next_available_stream_id()
            self.our_stream_id[http_id], self.their_stream_id[ours] = ours, http_id
            yield self._error(ours, text, NotTaken())

    def _sweep(self) -> None:
        super()._sweep()
        if len(self.our_stream_id) > 2 * self._sweep_at:
            open_ = {theirs: ours for theirs, ours in self.our_stream_id.items() if not self.is_closed(ours)}
            self.our_stream_id, self.their_stream_id = open_, {ours: theirs for theirs, ours in open_.items()}


def _without_hop_by_hop(event: RequestHeaders) -> None:
    """HTTP/2 knows `te` with one value only; the other fields of this kind mitmproxy takes out."""
    request = event.request
    if not request.is_http2 and "te" in request.headers:
        event.request = request.copy()
        del event.request.headers["te"]
