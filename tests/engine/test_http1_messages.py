"""Bodies and trailers of HTTP/1. Messages that come from or go to HTTP/2: test_http2_streams.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from middle import HTTP1, HTTP2, Client2, Middle, request1
from mitmproxy import connection
from mitmproxy.net.http import http1
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._events import RequestData, ResponseData

from lictor.engine.http1_messages import MAX_LINES, Messages, kept_trailers
from lictor.engine.request_reader import RequestReader
from lictor.engine.response_reader import ResponseReader

CHUNKED = b"POST /x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
UNFINISHED = {
    "trailers without end": b"0\r\n" + b"x-a: b\r\n" * (MAX_LINES // 8 + 1),
    "a chunk's head without end": b"5;" + b"x" * (MAX_LINES + 1),
}


@pytest.mark.parametrize("name", UNFINISHED)
@pytest.mark.parametrize("side", ["request", "response"])
def test_lines_of_a_body_have_a_bound(monkeypatch: pytest.MonkeyPatch, name: str, side: str) -> None:
    middle = Middle(monkeypatch, HTTP1, HTTP1)
    if side == "request":
        middle.send(middle.client, CHUNKED + UNFINISHED[name])
    else:
        request1(middle)
        middle.send(middle.servers[0], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + UNFINISHED[name])
    assert len(middle.errors) == 1
    assert "bytes" in middle.errors[0]
    assert not middle.client.connected


def test_trailers_that_are_no_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP1, HTTP1)
    middle.send(middle.client, CHUNKED + b"0\r\nno field\r\n\r\n")
    assert len(middle.errors) == 1


def test_a_body_of_known_length_has_no_place_for_trailers(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP1)
    client = Client2(middle)
    stream = client.ask(("content-length", "3"))
    client.h2.send_data(stream, b"abc")
    client.h2.send_headers(stream, [("x-sum", "7")], end_stream=True)
    client.talk()
    (server,) = middle.servers
    head, _, body = middle.take(server).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"abc"


def test_a_response_that_has_no_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/1.1 must say so, or its client waits for the end of the connection."""
    middle = Middle(monkeypatch, HTTP1, HTTP2)
    middle.send(middle.client, b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
    (server,) = middle.servers
    # ":status: 200" by index, END_HEADERS and END_STREAM
    middle.send(server, b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88")
    assert middle.take(middle.client) == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert middle.client.connected


def test_trailers_are_kept_but_for_some() -> None:
    fields = [(b"X-A", b"1"), (b"Content-Length", b"2"), (b"Execution-Context", b"3"), (b"grpc-status", b"0")]
    assert kept_trailers(fields).fields == ((b"x-a", b"1"), (b"grpc-status", b"0"))


@pytest.mark.parametrize("kind", [RequestData, ResponseData])
def test_an_empty_piece_is_not_written(kind: Any) -> None:
    """As a chunk it would be the last."""
    assert Messages.writable(SimpleNamespace(), kind(1, b"")) is None  # type: ignore[arg-type]
    assert Messages.writable(SimpleNamespace(), kind(1, b"x")) is not None  # type: ignore[arg-type]


EVIDENCE = b"0\r\nBehavioral-Evidence: b\r\nExecution-Context: n\r\nTE: x\r\n\r\n"


def test_evidence_after_an_answer_is_kept_for_who_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addon that counts answers; here there is none, so it is seen to get there."""
    middle = Middle(monkeypatch, HTTP1, HTTP1)
    request1(middle)
    middle.send(middle.servers[0], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + EVIDENCE)
    assert b"0\r\nbehavioral-evidence: b\r\nexecution-context: n\r\n\r\n" in middle.take(middle.client)


def test_evidence_after_a_request_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP1, HTTP1)
    middle.send(middle.client, CHUNKED + EVIDENCE)
    assert middle.take(middle.servers[0]).endswith(b"0\r\n\r\n")


REQUESTS = {
    "plain": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n",
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: a\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n",
    "close": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
    "close among others": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n",
    "Close": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\n",
    "HTTP/1.0 kept alive": b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n",
}
RESPONSES = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
    "kept alive": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n",
    "close": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
    "no number": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
    "chunked, with a length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    "a length until it ends": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n",
    "until it ends": b"HTTP/1.1 200 OK\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n",
}


@pytest.mark.parametrize("side", [(RequestReader, _http1.Http1Server), (ResponseReader, _http1.Http1Client)])
@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("answered", RESPONSES)
def test_a_connection_goes_on_where_mitmproxy_lets_it(side: tuple[Any, Any], asked: str, answered: str) -> None:
    ours, theirs = (ended(reader, REQUESTS[asked], RESPONSES[answered]) for reader in side)
    assert ours == theirs


def ended(made: Any, asked: bytes, answered: bytes) -> tuple[Any, ...]:
    """What a reader commands, and how it stands, after the end of the request and after that of the response."""
    client = connection.Client(peername=("a", 1), sockname=("b", 2))
    reader = made(Context(client, SimpleNamespace()))  # type: ignore[arg-type]
    reader.stream_id = 1
    reader.request = http1.read_request_head(asked.splitlines())
    reader.response = http1.read_response_head(answered.splitlines())
    seen: list[Any] = []
    for end in ({"request": True}, {"response": True}):
        seen += [type(command) for command in reader.mark_done(**end)]
        seen += [reader.state.__name__, reader.stream_id, reader.request is None, reader.response is None]
    return tuple(seen)
