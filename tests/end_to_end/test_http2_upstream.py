"""HTTP/2 to servers: trailers, flat memory, and what servers must not do. Which side speaks what changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from end_to_end.http2 import Http2, Http2Server, Reply, Served, head
from end_to_end.world import Monitor, Outside, Server, binding, target, until
from hyperframe.frame import ContinuationFrame, DataFrame, GoAwayFrame, HeadersFrame, PingFrame, PushPromiseFrame

MIB = 1 << 20
BIG = 32 * MIB
BLOCK = bytes(range(256)) * 1024
FLAT = 12 * MIB


@dataclass
class Place:
    monitor: Monitor
    http2: Http2Server
    http1: Server
    """Answers /download with BIG bytes."""

    def at(self, version: int) -> str:
        return f"localhost:{(self.http1 if version == 1 else self.http2).port}"

    def worker_memory(self) -> int:
        """The most memory that the worker has had, in bytes."""
        (worker,) = self.monitor.workers()
        status = Path(f"/proc/{worker}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


class Downloads(Server):
    def answer(self, handler: Any) -> None:
        if handler.path != "/download":
            super().answer(handler)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(BIG))
        handler.end_headers()
        for _ in range(BIG // len(BLOCK)):
            handler.wfile.write(BLOCK)


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(Http2Server(outside)) as http2, contextlib.closing(Downloads(outside)) as http1:
        http2.scripts["/download"] = lambda served, stream: download(served, stream)
        urls = [f"https://localhost:{server.port}/**" for server in (http1, http2)]
        monitor = share_monitor(
            "http2up",
            {"main": binding(data_source_access=["urn:test:data"])},
            target("urn:test:data", "data_source", *urls),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, http2, http1)


def download(served: Served, stream: int) -> None:
    served.h2.send_headers(stream, [(":status", "200"), ("content-length", str(BIG))])
    served.stream(stream, BIG // len(BLOCK), BLOCK)


def test_headers_bodies_and_trailers_pass(place: Place) -> None:
    def answer(served: Served, stream: int) -> None:
        served.h2.send_headers(stream, [(":status", "200"), ("x-head", "1")])
        served.h2.send_data(stream, b"body")
        served.h2.send_headers(stream, [("x-sum", "2"), ("execution-context", "x"), ("set-cookie", "9")], True)
        served.flush()

    place.http2.scripts["/trailers"] = answer
    with Http2(place.monitor, place.at(2)) as client:
        stream = client.ask(head(place.at(2), "/trailers", "POST", ("te", "trailers"), ("x-mine", "1")), end=False)
        client.h2.send_data(stream, b"abc")
        client.h2.send_headers(stream, [("x-checksum", "7"), ("host", "elsewhere"), ("traceparent", "x")], True)
        client.send()
        reply = client.answer(stream)
    assert (reply.status, reply.headers["x-head"], bytes(reply.body)) == (200, "1", b"body")
    assert reply.trailers == {"x-sum": "2"}, "but for those that only a head may have"
    fields, body, trailers = place.http2.requests[-1]
    assert (fields["x-mine"], fields["te"], body) == ("1", "trailers", b"abc")
    assert fields[":authority"] == place.at(2)
    assert "host" not in fields
    assert trailers == {"x-checksum": "7"}


@pytest.mark.parametrize("direction", ["to HTTP/1.1", "from HTTP/1.1"])
def test_trailers_pass_from_one_version_to_the_other(place: Place, direction: str) -> None:
    """An agent of HTTP/1.1 meets a server in HTTP/1.1 too; only a server can be older than its client."""
    with Http2(place.monitor, place.at(1)) as client:
        if direction == "to HTTP/1.1":
            stream = client.ask(head(place.at(1), "/x", "POST"), end=False)
            client.h2.send_data(stream, b"abc")
            client.h2.send_headers(stream, [("x-checksum", "7")], end_stream=True)
            client.send()
            assert client.answer(stream).status == 200
            assert place.http1.requests[-1][3] == b"abc"
        else:
            place.http1.answer, kept = trailing, place.http1.answer  # type: ignore[method-assign]
            try:
                reply = client.get("/x")
            finally:
                place.http1.answer = kept  # type: ignore[method-assign]
            assert (bytes(reply.body), reply.trailers) == (b"ok", {"x-sum": "1"})
        assert client.get("/y").status == 200, "the connection upstream is not out of step"


def trailing(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"2\r\nok\r\n0\r\nX-Sum: 1\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_one_connection_for_all_streams_of_a_client_and_none_for_others(place: Place) -> None:
    with Http2(place.monitor, place.at(2)) as one, Http2(place.monitor, place.at(2)) as other:
        for name, client in (("one", one), ("other", other)):
            streams = [client.ask(head(place.at(2), f"/{name}/{n}")) for n in range(20)]
            assert [client.answer(stream).status for stream in streams] == [200] * 20
    used = [{place.http2.over[f"/{name}/{n}"] for n in range(20)} for name in ("one", "other")]
    assert [len(connections) for connections in used] == [1, 1]
    assert not used[0] & used[1]


@pytest.mark.parametrize("version", [1, 2])
def test_large_download_in_flat_memory(place: Place, version: int) -> None:
    since, before = len(place.monitor.entries()), place.worker_memory()
    digest, got = hashlib.sha256(), 0
    with Http2(place.monitor, place.at(version)) as client:
        reply = client.replies[stream := client.ask(head(place.at(version), "/download"))]
        while not reply.ended:
            client.pump()
            digest.update(reply.body)
            got += len(reply.body)
            reply.body.clear()
    assert (got, client.replies[stream].reset) == (BIG, None)
    assert digest.digest() == hashlib.sha256(BLOCK * (BIG // len(BLOCK))).digest()
    assert place.worker_memory() - before < FLAT
    outcome = place.monitor.outcome(since)
    assert (outcome["response_bytes"], outcome["complete"]) == (BIG, True)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("how", ["opens no window", "does not read"])
def test_a_client_that_does_not_take_fills_no_memory_and_harms_no_other_stream(
    place: Place, version: int, how: str
) -> None:
    before = place.worker_memory()
    with Http2(place.monitor, place.at(version), window=65_535) as client:
        client.reading = False
        stream = client.ask(head(place.at(version), "/download"))
        if how == "opens no window":
            while len(client.replies[stream].body) < 65_535:
                client.pump()
        time.sleep(1)  # as long as the worker would need to read all of it
        assert place.worker_memory() - before < FLAT
        client.reading = True
        client.h2.increment_flow_control_window(MIB)
        assert client.get("/other").status == 200
        assert not client.replies[stream].ended


@pytest.mark.parametrize("version", [1, 2])
def test_large_upload_in_flat_memory(place: Place, version: int) -> None:
    since, before = len(place.monitor.entries()), place.worker_memory()
    with Http2(place.monitor, place.at(version)) as client:
        stream = client.ask(head(place.at(version), "/upload", "POST"), end=False)
        for _ in range(BIG // len(BLOCK)):
            client.upload(stream, BLOCK, end=False)
        client.upload(stream, b"")
        assert client.answer(stream).status == 200
    requests: Any = place.http1.requests if version == 1 else place.http2.requests
    assert len(requests.pop()[3 if version == 1 else 1]) == BIG
    assert place.worker_memory() - before < FLAT
    outcome = place.monitor.outcome(since)
    assert (outcome["request_bytes"], outcome["complete"]) == (BIG, True)


def test_an_upload_that_the_server_does_not_take_stays_with_the_client(place: Place) -> None:
    before = place.worker_memory()
    place.http2.consuming.clear()
    try:
        with Http2(place.monitor, place.at(2)) as client:
            stream = client.ask(head(place.at(2), "/upload", "POST"), end=False)
            client.wire.socket.settimeout(2)
            with pytest.raises(TimeoutError):
                client.upload(stream, bytes(BIG))
            assert client.sent < 2 * MIB, "it was let in no further than the windows"
            assert place.worker_memory() - before < FLAT
            client.wire.socket.settimeout(15)
            place.http2.consuming.set()
            assert client.get("/other").status == 200, "another stream goes on"
    finally:
        place.http2.consuming.set()


def test_an_answer_before_the_request_has_ended(place: Place) -> None:
    def early(served: Served, stream: int) -> None:
        served.respond(stream, b"enough", status="413")

    place.http2.scripts["early /early"] = early
    with Http2(place.monitor, place.at(2)) as client:
        stream = client.ask(head(place.at(2), "/early", "POST"), end=False)
        client.upload(stream, b"abc", end=False)
        reply = client.answer(stream)
        assert (reply.status, bytes(reply.body), reply.ended) == (413, b"enough", True)
        assert client.get("/x").status == 200


def test_a_stream_taken_back_is_taken_back_upstream(place: Place) -> None:
    arrived = threading.Event()
    place.http2.scripts["early /wait"] = lambda served, stream: arrived.set()
    with Http2(place.monitor, place.at(2)) as client:
        other = client.ask(head(place.at(2), "/other", "POST"), end=False)
        stream = client.ask(head(place.at(2), "/wait", "POST"), end=False)
        client.upload(stream, b"abc", end=False)
        assert arrived.wait(15)
        since = len(place.monitor.entries())
        client.h2.reset_stream(stream, 8)
        client.send()
        until(lambda: 8 in place.http2.resets)
        client.upload(other, b"x")
        assert client.answer(other).status == 200
    reset = "the stream was reset (CANCEL)"
    outcome = place.monitor.wait_for(lambda e: e.get("outcome", {}).get("error") == reset, since)["outcome"]
    assert outcome["complete"] is False


def test_a_connection_that_goes_away_ends_what_it_has_begun(place: Place) -> None:
    going = threading.Event()

    def leave(served: Served, stream: int) -> None:
        served.flush(GoAwayFrame(0, last_stream_id=stream).serialize())
        going.set()

    place.http2.scripts["early /leaving"] = leave
    before = place.http2.connections
    with Http2(place.monitor, place.at(2)) as client:
        stream = client.ask(head(place.at(2), "/leaving", "POST"), end=False)
        client.upload(stream, b"abc", end=False)
        assert going.wait(15)
        until(lambda: client.get("/x").status == 200 and place.http2.connections - before == 2)
        client.upload(stream, b"def")
        assert client.answer(stream).status == 200
    assert place.http2.requests[-1][1] == b"abcdef"


def push(served: Served, stream: int) -> None:
    block = served.h2.encoder.encode(head("localhost", "/pushed"))
    served.flush(PushPromiseFrame(stream, 2, block, flags=["END_HEADERS"]).serialize())


def endless_head(served: Served, stream: int) -> None:
    served.flush(HeadersFrame(stream, b"\x88").serialize())
    with contextlib.suppress(OSError):
        for _ in range(4096):
            served.flush(ContinuationFrame(stream, b"\x00" * 16_000).serialize())


def bomb(served: Served, stream: int) -> None:
    block = b"\x88\x40\x01x" + b"\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 1000
    served.flush(HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]).serialize())


def flood(served: Served, stream: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(100):
            served.flush(PingFrame(0, b"12345678").serialize() * 1000)


def too_much(served: Served, stream: int) -> None:
    served.h2.send_headers(stream, [(":status", "200")])
    served.flush()
    with contextlib.suppress(OSError):
        for _ in range(4096):
            served.flush(DataFrame(stream, bytes(16_384)).serialize())


def answer(*fields: tuple[str, str], body: bytes = b"") -> Callable[[Served, int], None]:
    def send(served: Served, stream: int) -> None:
        served.h2.send_headers(stream, list(fields), end_stream=not body)
        if body:
            served.h2.send_data(stream, body, end_stream=True)
        served.flush()

    return send


def switch(served: Served, stream: int) -> None:
    block = served.h2.encoder.encode([(":status", "101")])
    served.flush(HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]).serialize())


def length_in_trailers(served: Served, stream: int) -> None:
    served.h2.send_headers(stream, [(":status", "200")])
    served.h2.send_data(stream, b"x")
    served.h2.send_headers(stream, [("content-length", "9")], end_stream=True)
    served.flush()


BAD: dict[str, Callable[[Served, int], None]] = {
    "a push": push,
    "a head without end": endless_head,
    "a head that inflates": bomb,
    "pings without end": flood,
    "more than its window": too_much,
    "no status": answer(("x-a", "b")),
    "status not a number": answer((":status", "ok")),
    "status 101": switch,
    "status twice": answer((":status", "200"), (":status", "403")),
    "request fields": answer((":status", "200"), (":path", "/x")),
    "connection field": answer((":status", "200"), ("connection", "close")),
    "transfer-encoding": answer((":status", "200"), ("transfer-encoding", "chunked")),
    "upper-case name": answer((":status", "200"), ("X-A", "b")),
    "value with a response in it": answer((":status", "200"), ("x-a", "b\r\n\r\nHTTP/1.1 200 OK")),
    "a length in the trailers": length_in_trailers,
    "another length": answer((":status", "200"), ("content-length", "9"), body=b"x"),
    "a body that never comes": answer((":status", "200"), ("content-length", "9")),
    "two lengths": answer((":status", "200"), ("content-length", "1"), ("content-length", "2"), body=b"x"),
    "garbage": lambda served, stream: served.flush(b"HTTP/1.1 200 OK\r\n\r\n"),
    "head larger than ours": answer((":status", "200"), *((f"x-{n}", "x" * 4000) for n in range(17))),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_does_not_reach_the_agent(place: Place, name: str) -> None:
    since, before = len(place.monitor.entries()), place.worker_memory()
    place.http2.scripts["/bad"] = BAD[name]
    with Http2(place.monitor, place.at(2)) as client:
        reply = client.get("/bad")
        assert bad(reply), reply
        assert client.get("/good").status == 200, "the client's connection goes on"
    assert place.worker_memory() - before < FLAT
    outcome = place.monitor.outcome(since)
    assert outcome["complete"] is False


def bad(reply: Reply) -> bool:
    return reply.status == 502 or reply.reset is not None


def test_a_server_that_cannot_be_reached_is_tried_again(place: Place, outside: Outside) -> None:
    """One failure is no verdict on the rest of the client's connection: nobody listens, then somebody does."""
    kept = place.http2.context
    place.http2.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place.http2.context.load_cert_chain(*outside.issue("elsewhere.example"))
    try:
        with Http2(place.monitor, place.at(2)) as client:
            assert client.get("/x").status == 502
            place.http2.context = kept
            assert client.get("/x").status == 200
    finally:
        place.http2.context = kept
