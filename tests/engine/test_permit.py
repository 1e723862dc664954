"""mitmproxy's HTTP layers with our stream and reader in them, without sockets: what commands come out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from middle import HTTP1, Middle
from mitmproxy import connection, http
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers.http import _hooks as hooks
from mitmproxy.proxy.mode_specs import ProxyMode

from lictor.engine import patches, permit, request_reader
from lictor.engine.hook_dispatch import Pending
from lictor.engine.problem import problem_of

LIMIT = 100


class Http:
    """One client connection in a tunnel. `judge(flow)` stands for the addons at requestheaders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layer, "HttpStream", layer.HttpStream)
        monkeypatch.setattr(layer, "Http1Server", layer.Http1Server)
        patches.apply()
        self.permitted = False
        permit.install(lambda flow: self.permitted, LIMIT)
        request_reader.install()
        client = connection.Client(
            peername=("127.0.0.1", 1),
            sockname=("127.0.0.1", 2),
            timestamp_start=1.0,
            state=connection.ConnectionState.OPEN,
            proxy_mode=ProxyMode.parse("regular"),
        )
        settings: Any = SimpleNamespace(
            body_size_limit=None,
            stream_large_bodies=None,
            store_streamed_bodies=False,
            validate_inbound_headers=True,
            keep_host_header=True,
            websocket=False,
            rawtcp=False,
        )
        made = context.Context(client, settings)
        made.server.address = ("api.example", 443)
        made.server.tls = True
        self.waits: list[int] = []
        made.__dict__.update(connecting=self.waits.append, dispatch=self._hook)
        self.client, self.hooks, self.sent, self.opened = client, list[str](), b"", 0
        self.closed = False
        self.flow: http.HTTPFlow | None = None
        self.layer = layer.HttpLayer(made, layer.HTTPMode.transparent)
        self._run(events.Start())

    def judge(self, flow: http.HTTPFlow) -> None:
        pass

    def send(self, data: bytes) -> Http:
        self._run(events.DataReceived(self.client, data))
        return self

    def leave(self) -> Http:
        self._run(events.ConnectionClosed(self.client))
        return self

    def answer(self) -> tuple[int, Any]:
        """Status and JSON body of what was sent to the client."""
        head, _, body = self.sent.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body

    def _run(self, event: events.Event) -> None:
        for command in self.layer.handle_event(event):
            self._take(command)

    def _hook(self, command: Any) -> None:
        self.hooks.append(command.name)
        self.flow = getattr(command, "flow", self.flow)
        if isinstance(command, hooks.HttpRequestHeadersHook | hooks.HttpErrorHook) and self.flow is not None:
            self.judge(self.flow)

    def _take(self, command: Any) -> None:
        if isinstance(command, commands.StartHook):
            self._hook(command)
            if command.blocking:
                self._run(events.HookCompleted(command))
        elif isinstance(command, commands.SendData):
            assert command.connection is self.client
            self.sent += command.data
        elif isinstance(command, commands.OpenConnection):
            self.opened += 1
            self._run(events.OpenConnectionCompleted(command, "not in this test"))
        elif isinstance(command, commands.CloseConnection):
            self.closed = True


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Http]:
    return Http(monkeypatch)


GET = b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: %d\r\n\r\n"


def stream(flow: http.HTTPFlow) -> None:
    flow.request.stream = True


def refuse(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(403, b'{"reason": "no"}')


@pytest.mark.parametrize("how", ["whole", "streamed"])
def test_no_permit_no_connection(wire: Http, how: str) -> None:
    """Whatever the addons did or did not do."""
    if how == "streamed":
        wire.judge = stream  # type: ignore[method-assign]
    wire.send(GET if how == "whole" else POST % 3 + b"abc")
    assert wire.opened == 0
    assert "error" in wire.hooks
    assert wire.answer()[0] == 502
    assert wire.closed


@pytest.mark.parametrize("how", ["whole", "streamed"])
def test_permit(wire: Http, how: str) -> None:
    wire.permitted = True
    if how == "streamed":
        wire.judge = stream  # type: ignore[method-assign]
    wire.send(GET if how == "whole" else POST % 3 + b"abc")
    assert wire.opened == 1
    assert wire.waits == [1, -1], "the driver was told for how long the client must wait"
    status, problem = wire.answer()
    assert (status, problem["status"]) == (502, 502)
    assert "not in this test" in problem["detail"]


def test_a_refusal_does_not_wait_for_the_body(wire: Http) -> None:
    wire.judge = refuse  # type: ignore[method-assign]
    wire.send(POST % 1_000_000)
    assert wire.answer() == (403, {"reason": "no"})
    wire.send(b"x" * 999_999)
    assert not wire.closed
    wire.send(b"x" + GET)
    assert wire.sent.count(b"HTTP/1.1 403") == 2, "the connection goes on behind the body"
    assert wire.opened == 0


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_collected_body_has_a_bound(wire: Http, framing: str) -> None:
    wire.permitted = True
    head = POST % 1000 if framing == "length" else POST.split(b"Content")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    body = b"x" * 60 if framing == "length" else b"3c\r\n" + b"x" * 60 + b"\r\n"
    wire.send(head).send(body)
    assert wire.sent == b""
    wire.judge = refuse  # type: ignore[method-assign]
    wire.send(body)
    assert wire.answer() == (403, {"reason": "no"})
    assert wire.closed
    assert wire.opened == 0
    assert wire.flow is not None
    problem = problem_of(wire.flow)
    assert problem is not None
    assert problem.reason == "body_too_large"


UNREADABLE = {
    "garbage": (b"\x16\x03\x01 garbage\r\n\r\n", "unreadable_request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "unreadable_request"),
    "no version": (b"GET /\r\n\r\n", "unreadable_request"),
    "unknown version": (GET.replace(b"1.1", b"1.9"), "unreadable_request"),
    "another protocol's version": (GET.replace(b"HTTP/1.1", b"HTTP/2.0"), "unreadable_request"),
    "no version's form": (b"GET / HTTP/1.2.3\r\n\r\n", "unreadable_request"),
    "header without colon": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", "unreadable_request"),
    "folded first header": (b"GET / HTTP/1.1\r\n Host: api.example\r\n\r\n", "unreadable_request"),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : api.example\r\n\r\n", "invalid_request"),
    "length and chunked": (GET[:-2] + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "invalid_request"),
    "two lengths": (GET[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "invalid_request"),
    "signed length": (GET[:-2] + b"Content-Length: +1\r\n\r\n", "invalid_request"),
    "endless length": (GET[:-2] + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "invalid_request"),
    "coding after chunked": (GET[:-2] + b"Transfer-Encoding: chunked, gzip\r\n\r\n", "invalid_request"),
    "chunked in HTTP/1.0": (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "invalid_request"),
    "CONNECT": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "name_mismatch"),
    "head too large": (GET[:-2] + b"X: " + b"x" * request_reader.MAX_HEAD + b"\r\n\r\n", "head_too_large"),
    "head of many short fields": (GET[:-2] + b"a:\r\n" * 2100 + b"\r\n", "head_too_large"),
    "head without end": (b"x" * (request_reader.MAX_HEAD + 1), "head_too_large"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_request_is_put_before_the_addons(wire: Http, name: str) -> None:
    """They see it once, with the reason; their answer goes out, the connection ends, and nothing else of it is read."""
    data, reason = UNREADABLE[name]
    wire.permitted = True
    wire.judge = refuse  # type: ignore[method-assign]
    wire.send(data + GET)
    assert wire.hooks.count("requestheaders") == 1
    assert wire.flow is not None
    problem = problem_of(wire.flow)
    assert problem is not None
    assert problem.reason == reason
    assert wire.answer() == (403, {"reason": "no"})
    assert b"connection: close" in wire.sent.lower()
    assert wire.closed
    assert wire.opened == 0
    wire.send(GET)
    assert wire.hooks.count("requestheaders") == 1


def test_without_an_answer_of_the_addons_it_is_refused_all_the_same(wire: Http) -> None:
    wire.permitted = True
    wire.send(b"garbage\r\n\r\n")
    assert wire.answer()[0] == 400
    assert (wire.closed, wire.opened) == (True, 0)


def test_half_a_head(wire: Http) -> None:
    wire.judge = refuse  # type: ignore[method-assign]
    wire.send(b"SSH-2.0-x\r\n")
    assert wire.hooks == []
    wire.leave()
    assert wire.hooks.count("requestheaders") == 1


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n\n"])
def test_nothing_but_empty_lines(wire: Http, before: bytes) -> None:
    """A client that opens a connection and leaves has asked for nothing."""
    wire.send(before).leave()
    assert wire.hooks == []


def test_a_request_after_empty_lines(wire: Http) -> None:
    wire.judge = refuse  # type: ignore[method-assign]
    wire.send(b"\r\n\r\n" + GET)
    assert wire.answer()[0] == 403
    assert not wire.closed


class Held(Middle):
    """Its requests wait to be judged."""

    hook: Any = None

    def _hook(self, command: Any) -> Any:
        super()._hook(command)
        if isinstance(command, hooks.HttpRequestHook):
            self.hook = command
            return Pending(None, 1)  # type: ignore[arg-type]
        return None


def test_a_client_that_has_gone_while_it_was_judged_reaches_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, HTTP1, HTTP1, judged=True)
    held.send(held.client, b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
    held.close(held.client)
    held._run(events.HookCompleted(held.hook))
    assert (held.servers, held.errors) == ([], ["Client disconnected."])
