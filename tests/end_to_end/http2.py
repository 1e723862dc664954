"""An HTTP/2 client that sends whatever it is told to, and an HTTP/2 server that counts, keeps and answers by path."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside

Field = tuple[str | bytes, str | bytes]


def head(at: str, path: str = "/open/x", method: str = "GET", *more: Field, scheme: str = "https") -> list[Field]:
    """The fields of a request as they should be."""
    return [(":method", method), (":scheme", scheme), (":authority", at), (":path", path), *more]


@dataclass
class Reply:
    """What has come on one stream. `reset` is the code of RST_STREAM."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", 0))

    def json(self) -> Any:
        return json.loads(self.body)


class Http2:
    """HTTP/2 in the tunnel of a `Wire`. `window`: what the peer may send ahead on a stream; `reading`: it gets more."""

    def __init__(self, monitor: Monitor, at: str, window: int = 1 << 20) -> None:
        self.at = at
        self.wire = Wire(monitor)
        assert self.wire.connect(at).status == 200
        context = monitor.target_context()
        context.set_alpn_protocols(["h2"])
        self.wire.tls(at.rpartition(":")[0], context)
        assert self.wire._tls is not None
        assert self.wire._tls.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.h2.initiate_connection()
        self.replies: dict[int, Reply] = {}
        self.goaway: int | None = None
        self.reading = True
        self.sent = 0
        """Bytes of bodies."""

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *args: object) -> None:
        self.wire.socket.close()

    def send(self, raw: bytes = b"") -> None:
        """Send what is waiting, then these bytes."""
        self.wire.send(self.h2.data_to_send() + raw)

    def ask(self, fields: list[Field], body: bytes | None = None, end: bool = True) -> int:
        """Begin a request; `body` goes out as the peer's windows let it."""
        stream = self.h2.get_next_available_stream_id()
        self.replies[stream] = Reply()
        self.h2.send_headers(stream, fields, end_stream=end and body is None)  # type: ignore[arg-type]
        self.send()
        if body is not None:
            self.upload(stream, body, end)
        return stream

    def upload(self, stream: int, body: bytes, end: bool = True) -> None:
        left = memoryview(body)
        while left and not self.replies[stream].ended and self.replies[stream].reset is None:
            size = min(len(left), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if size:
                self.h2.send_data(stream, left[:size])
                left = left[size:]
                self.sent += size
                self.send()
            else:
                self.pump()
        if end and not left:
            self.h2.end_stream(stream)
            self.send()

    def answer(self, stream: int) -> Reply:
        """The whole answer of a stream."""
        reply = self.replies[stream]
        while not reply.ended and reply.reset is None and self.goaway is None:
            self.pump()
        return reply

    def get(self, path: str = "/open/x", *more: Field) -> Reply:
        return self.answer(self.ask(head(self.at, path, "GET", *more)))

    def post(self, path: str, body: bytes, *more: Field) -> Reply:
        return self.answer(self.ask(head(self.at, path, "POST", *more), body))

    def until_closed(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(EOFError, OSError, h2.exceptions.ProtocolError):
            while True:
                self.pump()

    def pump(self) -> None:
        """Take what comes next."""
        for event in self.h2.receive_data(self.wire.read_some()):
            self._take(event)
        self.send()

    def _take(self, event: Any) -> None:
        reply = self.replies.get(getattr(event, "stream_id", None) or 0, Reply())
        if isinstance(event, h2.events.ResponseReceived):
            reply.headers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            reply.body += event.data
            if self.reading:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            reply.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            reply.ended = True
        elif isinstance(event, h2.events.StreamReset):
            reply.reset = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code)


class Http2Server:
    """One thread a connection. `scripts` take a path's requests over: they get the connection and the stream."""

    def __init__(self, outside: Outside, protocols: tuple[str, ...] = ("h2",)) -> None:
        self.requests: list[tuple[dict[str, str], bytes, dict[str, str] | None]] = []
        self.resets: list[int] = []
        self.over: dict[str, Any] = {}
        """The connection over which a path was last asked for."""
        self.connections = 0
        self.scripts: dict[str, Callable[[Any, int], None]] = {}
        self.consuming = threading.Event()
        """While it is not set, nothing that comes is acknowledged."""
        self.consuming.set()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(outside.cert, outside.key)
        self.context.set_alpn_protocols(list(protocols))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def seen(self) -> tuple[int, int]:
        return self.connections, len(self.requests)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._socket.accept()
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        ended = contextlib.suppress(OSError, h2.exceptions.ProtocolError)
        with ended, raw, self.context.wrap_socket(raw, server_side=True) as tls:
            Served(self, tls).run()


class Served:
    """One connection of an `Http2Server`."""

    def __init__(self, server: Http2Server, tls: ssl.SSLSocket) -> None:
        self.server, self.tls = server, tls
        server.connections += 1
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.unread: list[tuple[int, int]] = []

    def flush(self, raw: bytes = b"") -> None:
        if data := self.h2.data_to_send() + raw:
            self.tls.sendall(data)

    def run(self) -> None:
        while data := self.tls.recv(65536):
            self.take(data)

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: Any) -> None:
        stream = getattr(event, "stream_id", 0)
        if isinstance(event, h2.events.RequestReceived):
            self.heads[stream], self.bodies[stream] = dict(event.headers), bytearray()
            self.server.over[self.heads[stream][":path"]] = self
            self._script(stream, "early ")
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[stream] += event.data
            self.unread.append((event.flow_controlled_length, stream))
            if self.server.consuming.is_set():
                while self.unread:
                    self.h2.acknowledge_received_data(*self.unread.pop())
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[stream] = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            self.server.resets.append(int(event.error_code))
        elif isinstance(event, h2.events.StreamEnded):
            fields, body = self.heads.pop(stream), bytes(self.bodies.pop(stream))
            self.server.requests.append((fields, body, self.trailers.pop(stream, None)))
            if not self._script(stream, "", fields):
                self.respond(stream, json.dumps({"path": fields[":path"]}).encode())

    def _script(self, stream: int, when: str, fields: dict[str, str] | None = None) -> bool:
        script = self.server.scripts.get(when + (fields or self.heads[stream])[":path"])
        if script is not None:
            script(self, stream)
        return script is not None

    def respond(self, stream: int, body: bytes, *more: Field, status: str = "200") -> None:
        fields = [(":status", status), ("content-type", "application/json"), *more]
        self.h2.send_headers(stream, fields)
        self.h2.send_data(stream, body, end_stream=True)
        self.flush()

    def stream(self, stream: int, blocks: int, block: bytes) -> None:
        """A long body, as the peer's windows let it go."""
        for _ in range(blocks):
            left = memoryview(block)
            while left:
                size = min(len(left), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if size:
                    self.h2.send_data(stream, left[:size])
                    left = left[size:]
                    self.flush()
                else:
                    data = self.tls.recv(65536)
                    if not data:
                        raise OSError("gone")
                    self.take(data)
        self.h2.end_stream(stream)
        self.flush()
