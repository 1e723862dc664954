"""HTTP/1.1 and HTTP/2, each towards each, without sockets."""

from __future__ import annotations

from typing import Any

import h2.events
import h2.settings
import pytest
from h2.errors import ErrorCodes
from middle import HEAD, HTTP1, HTTP2, Client2, Middle, hyper, request1
from mitmproxy import connection
from mitmproxy.proxy.events import Start

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def request2(middle: Middle) -> Client2:
    client = Client2(middle)
    stream = client.ask(("te", "trailers"))
    client.h2.send_data(stream, b"abc")
    client.h2.send_headers(stream, [("x-sum", "7"), ("host", "b.example")], end_stream=True)
    client.talk()
    return client


def answer1(middle: Middle) -> dict[str, Any]:
    (server,) = middle.servers
    head, _, body = middle.take(server).partition(b"\r\n\r\n")
    middle.send(server, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-End: 1\r\n\r\n")
    return {"lines": head.decode().lower().split("\r\n"), "body": body}


def answer2(middle: Middle) -> dict[str, Any]:
    (server,) = middle.servers
    peer = hyper(False)
    peer.initiate_connection()
    found = peer.receive_data(middle.take(server))
    peer.send_headers(1, [(":status", "200")])
    peer.send_data(1, b"ok")
    peer.send_headers(1, [("x-end", "1")], end_stream=True)
    middle.send(server, peer.data_to_send())
    return {"events": found}


@pytest.mark.parametrize("server", [HTTP1, HTTP2])
@pytest.mark.parametrize("client", [HTTP1, HTTP2])
def test_a_message_with_trailers_in_each_version(monkeypatch: pytest.MonkeyPatch, client: bytes, server: bytes) -> None:
    middle = Middle(monkeypatch, client, server)
    asking = request2(middle) if client == HTTP2 else request1(middle)
    arrived = (answer2 if server == HTTP2 else answer1)(middle)
    if server == HTTP2:
        found = arrived["events"]
        (request,) = (e for e in found if isinstance(e, h2.events.RequestReceived))
        fields = dict(request.headers)
        assert (fields[":authority"], fields[":method"], fields[":path"]) == ("a.example", "POST", "/x")
        assert "host" not in fields
        assert b"".join(e.data for e in found if isinstance(e, h2.events.DataReceived)) == b"abc"
        assert [e.headers for e in found if isinstance(e, h2.events.TrailersReceived)] == [[("x-sum", "7")]]
    else:
        assert arrived["lines"][0] == "post /x http/1.1"
        assert [line for line in arrived["lines"] if line.startswith("host")] == ["host: a.example"]
        assert "transfer-encoding: chunked" in arrived["lines"]
        assert arrived["body"] == b"3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"
    if asking is not None:
        got = asking.talk()
        assert [dict(e.headers)[":status"] for e in got if isinstance(e, h2.events.ResponseReceived)] == ["200"]
        assert b"".join(e.data for e in got if isinstance(e, h2.events.DataReceived)) == b"ok"
        assert [e.headers for e in got if isinstance(e, h2.events.TrailersReceived)] == [[("x-end", "1")]]
    else:
        answer = middle.take(middle.client)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.lower().count(b"transfer-encoding: chunked") == 1
        assert answer.endswith(b"\r\n\r\n2\r\nok\r\n0\r\nx-end: 1\r\n\r\n")
    assert middle.errors == []


def test_streams_that_have_ended_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    client, peer = Client2(middle), hyper(False)
    peer.initiate_connection()
    for number in range(300):
        client.ask(end=True)
        client.talk()
        (server,) = middle.servers
        (asked,) = (e for e in peer.receive_data(middle.take(server)) if isinstance(e, h2.events.RequestReceived))
        peer.send_headers(asked.stream_id, [(":status", "204")], end_stream=True)
        middle.send(server, peer.data_to_send())
        assert any(isinstance(e, h2.events.StreamEnded) for e in client.talk()), number
    assert middle.layer.streams == {}
    for end in middle.ends:
        assert len(end.streams) < 100
        assert len(end.h2_conn.streams) < 100
    assert len(middle.ends[1].our_stream_id) < 200
    assert len(middle.ends[1].their_stream_id) < 200


def test_connections_of_http1_are_used_again_one_at_a_time_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP1)
    client = Client2(middle)
    for _ in range(3):
        client.ask(end=True)
        client.talk()
    assert len(middle.servers) == 3, "three at once are on three"
    for server in middle.servers:
        assert middle.take(server).count(b"POST /x") == 1
        middle.send(server, b"HTTP/1.1 204 No Content\r\n\r\n")
    client.ask(end=True)
    client.talk()
    assert len(middle.servers) == 3
    assert sum(bool(middle.take(server)) for server in middle.servers) == 1
    for server in middle.servers:
        middle.close(server)
    assert list(middle.layer.connections) == [middle.client]


def test_a_connection_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    middle.fails = 1
    client = Client2(middle)
    client.ask(end=True)
    (told,) = (e for e in client.talk() if isinstance(e, h2.events.ResponseReceived))
    assert dict(told.headers)[":status"] == "502"
    client.ask(end=True)
    client.talk()
    assert len(middle.servers) == 1
    assert middle.errors == ["not now"]
    assert list(middle.layer.connections) == [middle.client, middle.servers[0]], "the failed one is forgotten"


def test_a_request_taken_back_while_it_waits_for_its_turn_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    client = Client2(middle)
    for _ in range(12):  # a server takes ten before it has said how many
        client.ask()
    client.talk()
    upstream = middle.ends[1]
    assert len(upstream.stream_queue) == 2
    client.h2.reset_stream(23)
    client.talk()
    assert list(upstream.stream_queue) == [21]
    assert sorted(upstream.all_stuck()) == [21]


def test_a_server_that_goes_away_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    client, peer = Client2(middle), hyper(False)
    peer.initiate_connection()
    client.ask()
    client.ask()
    client.talk()
    (server,) = middle.servers
    peer.receive_data(middle.take(server))
    middle.send(server, peer.data_to_send() + b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00")
    told = [e for e in client.talk() if isinstance(e, h2.events.StreamReset)]
    assert [(e.stream_id, e.error_code) for e in told] == [(3, ErrorCodes.REFUSED_STREAM)]
    client.ask(end=True)
    client.talk()
    assert len(middle.servers) == 2


def test_a_grpc_caller_is_told_in_grpc_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    middle.fails = 1
    client = Client2(middle)
    client.ask(("content-type", "application/grpc+proto"))
    (told,) = (e for e in client.talk() if isinstance(e, h2.events.ResponseReceived))
    fields = dict(told.headers)
    assert (fields[":status"], fields["grpc-status"], fields["grpc-message"]) == ("200", "14", "not now")
    assert told.stream_ended is not None


def test_a_pushed_response_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    client, peer = Client2(middle), hyper(False)
    peer.initiate_connection()
    client.ask(end=True)
    client.talk()
    (server,) = middle.servers
    peer.receive_data(middle.take(server))
    peer.remote_settings[h2.settings.SettingCodes.ENABLE_PUSH] = 1
    peer.remote_settings.acknowledge()
    peer.push_stream(1, 2, HEAD)
    middle.send(server, peer.data_to_send())
    (told,) = (e for e in client.talk() if isinstance(e, h2.events.ResponseReceived))
    assert dict(told.headers)[":status"] == "502"
    assert server.state is connection.ConnectionState.CLOSED


def test_a_client_that_goes_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    client = Client2(middle)
    client.ask()
    client.talk()
    middle.close(middle.client)
    assert middle.errors == ["peer closed connection"]
    assert middle.layer.streams == {}


def test_a_response_without_a_length_to_an_old_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/1.0 has no chunks: the body ends with the connection."""
    middle = Middle(monkeypatch, HTTP1, HTTP2)
    middle.send(middle.client, b"GET /x HTTP/1.0\r\nHost: a.example\r\n\r\n")
    answer2(middle)
    answer = middle.take(middle.client)
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\nok")
    assert middle.client.state is connection.ConnectionState.CLOSED


@pytest.mark.parametrize(
    ("sent", "head"),
    [(b"", None), (b"PRI * HTTP", 0), (PREFACE, None), (PREFACE + b"\x00\x00\x01\x01\x00\x00\x00\x00\x03\x82", 3)],
    ids=["nothing", "half a preface", "a preface", "half a head"],
)
def test_a_head_that_does_not_come_to_its_end(monkeypatch: pytest.MonkeyPatch, sent: bytes, head: int | None) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    middle.send(middle.client, sent)
    (reader,) = middle.ends
    assert reader.head_under_way == head
    middle.close(middle.client)
    assert middle.refused == ([] if head is None else ["unreadable_request"])


def test_empty_data_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    client = Client2(middle)
    stream = client.ask()
    client.talk()
    (server,) = middle.servers
    middle.take(server)
    for _ in range(5):
        client.h2.send_data(stream, b"")
    client.talk()
    assert middle.take(server) == b""


def test_bodies_that_are_read_to_be_judged_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a hundred streams could bring as much as one connection of HTTP/1.1."""
    middle = Middle(monkeypatch, HTTP2, HTTP2, judged=True)
    client = Client2(middle)
    streams = [client.ask() for _ in range(5)]
    for stream in streams:
        client.h2.send_data(stream, bytes(900))
    got = client.talk()
    told = [e for e in got if isinstance(e, h2.events.ResponseReceived)]
    assert [e.stream_id for e in told] == [streams[4]]
    assert len(middle.errors) == 1
    assert "at once" in middle.errors[0]
    client.h2.end_stream(streams[0])
    client.talk()
    assert len(middle.servers) == 1, "the others go on"


def test_a_head_that_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Middle(monkeypatch, HTTP2, HTTP2)
    middle.send(middle.client, PREFACE + b"\x00\x00\x01\x01\x00\x00\x00\x00\x03\x82")
    middle.carry_out(middle.layer.event_to_child(Give(middle.ends[0].end_head("head_timeout", "too slow")), Start()))
    assert middle.refused == ["head_timeout"]
    assert not middle.client.connected


class Give:
    """A layer that yields what it was given."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def handle_event(self, event: object) -> Any:
        yield from self._found
