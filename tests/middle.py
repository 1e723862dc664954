"""mitmproxy's HTTP layer with our HTTP/2 and HTTP/1 in it, without sockets, and a client for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
import pytest
from mitmproxy import connection
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers.http import _hooks as hooks
from mitmproxy.proxy.mode_specs import ProxyMode

from lictor.engine import http2_streams, patches, permit, request_reader, response_reader
from lictor.engine.problem import problem_of

HTTP1, HTTP2 = b"http/1.1", b"h2"
HEAD = [(":method", "POST"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x")]


def hyper(client_side: bool) -> h2.connection.H2Connection:
    return h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=client_side,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=True,
        )
    )


class Middle:
    """What stands between a client and a server, each of one version.

    Requests are let through as they come, or, if `judged`, once they have been read whole.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: bytes, server: bytes, judged: bool = False) -> None:
        for name in ("HttpStream", "Http1Server", "Http1Client", "Http2Server", "Http2Client"):
            monkeypatch.setattr(layer, name, getattr(layer, name))
        patches.apply()
        permit.install(lambda flow: True, 1000)
        request_reader.install()
        response_reader.install()
        http2_streams.install()
        self.client = connection.Client(
            peername=("127.0.0.1", 1),
            sockname=("127.0.0.1", 2),
            timestamp_start=1.0,
            state=connection.ConnectionState.OPEN,
            proxy_mode=ProxyMode.parse("regular"),
        )
        self.client.alpn = client
        settings: Any = SimpleNamespace(
            body_size_limit=None,
            stream_large_bodies=None,
            store_streamed_bodies=False,
            validate_inbound_headers=True,
            normalize_outbound_headers=True,
            http2_ping_keepalive=0,
            keep_host_header=True,
            websocket=False,
            rawtcp=False,
        )
        made = context.Context(self.client, settings)
        made.server.address = ("a.example", 80)
        self.ends: list[Any] = []
        windows = SimpleNamespace(add=self.ends.append)
        made.__dict__.update(connecting=lambda change: None, dispatch=self._hook, windows=windows)
        self.server_alpn = server
        self.servers: list[connection.Connection] = []
        self.sent: dict[connection.Connection, bytearray] = {self.client: bytearray()}
        self.fails = 0
        self.judged = judged
        self.errors: list[str] = []
        self.refused: list[str] = []
        """The reasons of requests that could not be read."""
        self._queue: list[events.Event] = []
        self._busy = False
        self.layer = layer.HttpLayer(made, layer.HTTPMode.transparent)
        self._run(events.Start())

    def send(self, who: connection.Connection, data: bytes) -> None:
        self._run(events.DataReceived(who, data))

    def close(self, who: connection.Connection) -> None:
        who.state = connection.ConnectionState.CLOSED
        self._run(events.ConnectionClosed(who))

    def take(self, who: connection.Connection) -> bytes:
        """What was sent to this side since the last time."""
        data = bytes(self.sent[who])
        self.sent[who].clear()
        return data

    def _hook(self, command: Any) -> None:
        flow = getattr(command, "flow", None)
        if isinstance(command, hooks.HttpRequestHeadersHook):
            flow.request.stream = not self.judged
            if (problem := problem_of(flow)) is not None:
                self.refused.append(problem.reason)
        elif isinstance(command, hooks.HttpResponseHeadersHook):
            flow.response.stream = True
        elif isinstance(command, hooks.HttpErrorHook):
            self.errors.append(str(flow.error))

    def _run(self, event: events.Event) -> None:
        self._queue.append(event)
        if not self._busy:
            self._busy = True
            while self._queue:
                self.carry_out(self.layer.handle_event(self._queue.pop(0)))
            self._busy = False

    def carry_out(self, found: Any) -> None:
        for command in found:
            self._do(command)

    def _do(self, command: Any) -> None:
        if isinstance(command, commands.SendData):
            self.sent[command.connection] += command.data
        elif isinstance(command, commands.OpenConnection):
            if self.fails:
                self.fails -= 1
                self._run(events.OpenConnectionCompleted(command, "not now"))
                return
            command.connection.state = connection.ConnectionState.OPEN
            command.connection.alpn = self.server_alpn  # type: ignore[misc]
            self.servers.append(command.connection)
            self.sent[command.connection] = bytearray()
            self._run(events.OpenConnectionCompleted(command, None))
        elif isinstance(command, commands.CloseConnection) and command.connection.connected:
            command.connection.state = connection.ConnectionState.CLOSED
            self._run(events.ConnectionClosed(command.connection))


class Client2:
    """An HTTP/2 client of a Middle."""

    def __init__(self, middle: Middle) -> None:
        self.middle, self.h2 = middle, hyper(True)
        self.h2.initiate_connection()
        self.got: list[Any] = []
        self.talk()

    def talk(self) -> list[Any]:
        """Send what there is, and take what comes."""
        self.middle.send(self.middle.client, self.h2.data_to_send())
        self.got += (found := self.h2.receive_data(self.middle.take(self.middle.client)))
        return found

    def ask(self, *more: tuple[str, str], end: bool = False) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*HEAD, *more], end_stream=end)
        return stream


def request1(middle: Middle) -> None:
    middle.send(
        middle.client,
        b"POST /x HTTP/1.1\r\nHost: a.example\r\nTE: trailers, gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nHost: b.example\r\n\r\n",
    )
