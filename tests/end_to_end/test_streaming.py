"""Bytes pass as they come, in bounded memory, and are counted exactly."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.server
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from end_to_end.wire import Wire, chunked, head
from end_to_end.world import Monitor, Outside, Server, binding, target, until

from lictor.formats import base64url

MIB = 1 << 20
BIG = 64 * MIB
BLOCK = bytes(range(256)) * 1024
EVENTS = 10
MORE = 16


class Streams(Server):
    """Answers by path; never holds a large body in memory."""

    def __init__(self, outside: Outside) -> None:
        super().__init__(outside)
        self.go_on = threading.Event()
        self.uploads = self.got = 0

    def take(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path == "/more":
            self._start(handler, "Connection: close")
            for _ in range(int(handler.headers["content-length"]) // len(BLOCK)):
                handler.wfile.write(handler.rfile.read(len(BLOCK)) * MORE)
            handler.close_connection = True
            return
        if handler.path != "/upload":
            super().take(handler)
            return
        self.got, left = 0, int(handler.headers["content-length"])
        self.uploads += 1
        while left and (data := handler.rfile.read(min(left, MIB))):
            left -= len(data)
            self.got += len(data)
        self.answer(handler)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        match handler.path:
            case "/events":
                self._start(handler, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
                for number in range(EVENTS):
                    if number:
                        self.go_on.wait(15)
                        self.go_on.clear()
                    handler.wfile.write(next(chunked([b"data: %d\n\n" % number])))
                handler.wfile.write(b"0\r\n\r\n")
            case "/download":
                self._start(handler, f"Content-Length: {BIG}")
                for _ in range(BIG // len(BLOCK)):
                    handler.wfile.write(BLOCK)
            case "/until-closed":
                self._start(handler, "Connection: close")
                handler.wfile.write(BLOCK)
                handler.close_connection = True
            case "/broken":
                self._start(handler, "Content-Length: 1000000")
                handler.wfile.write(b"x" * 1000)
                handler.close_connection = True
            case "/early":
                handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
                super().answer(handler)
            case "/head-without-end":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
                with contextlib.suppress(OSError):
                    for _ in range(BIG // len(BLOCK)):
                        handler.wfile.write(b"X: " + b"x" * len(BLOCK))
            case "/no-response":
                handler.wfile.write(b"220 smtp.example ESMTP\r\n\r\n")
                handler.close_connection = True
            case "/trailers":
                self._start(handler, "Transfer-Encoding: chunked", "Trailer: X-Sum")
                handler.wfile.write(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
            case _:
                super().answer(handler)

    def _start(self, handler: http.server.BaseHTTPRequestHandler, *headers: str) -> None:
        handler.send_response(200)
        for line in headers:
            handler.send_header(*line.split(": ", 1))
        handler.end_headers()


@dataclass
class Place:
    monitor: Monitor
    server: Streams

    @property
    def at(self) -> str:
        return f"localhost:{self.server.port}"

    def digest(self, data: bytes) -> str:
        """What the log says of a body: keyed, so that nobody can guess it."""
        with contextlib.closing(sqlite3.connect(self.monitor.path / "data/ledger.sqlite")) as db:
            (salt,) = db.execute("select value from meta where name = 'salt'").fetchone()
        return "hmac-sha-256:" + base64url.encode(hmac.digest(base64url.decode(salt), data, hashlib.sha256))

    def worker_memory(self) -> int:
        """The most memory that the worker has had, in bytes."""
        (worker,) = self.monitor.workers()
        status = Path(f"/proc/{worker}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(Streams(outside)) as server:
        monitor = share_monitor(
            "streams",
            {"main": binding(data_source_access=["urn:test:data"])},
            target("urn:test:data", "data_source", f"https://localhost:{server.port}/**"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, server)


def test_events_are_delivered_as_they_come(place: Place) -> None:
    """The server sends the next event only when the agent has read the last one: nothing may be held back."""
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("GET", "/events", f"Host: {place.at}"))
        assert wire.read_head()[0] == 200
        for number in range(EVENTS):
            size = int(wire.readline(), 16)
            assert wire.read(size + 2) == b"data: %d\n\n\r\n" % number
            place.server.go_on.set()
        assert wire.readline() == "0\r\n"
    body = b"".join(b"data: %d\n\n" % n for n in range(EVENTS))
    outcome = place.monitor.outcome(since)
    assert outcome["complete"] is True
    assert (outcome["response_bytes"], outcome["response_digest"]) == (len(body), place.digest(body))


def test_large_download_in_flat_memory(place: Place) -> None:
    since, before = len(place.monitor.entries()), place.worker_memory()
    digest = hashlib.sha256()
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("GET", "/download", f"Host: {place.at}"))
        assert wire.read_head()[0] == 200
        left = BIG
        while left:
            data = wire.read_some()
            digest.update(data)
            left -= len(data)
    assert digest.digest() == hashlib.sha256(BLOCK * (BIG // len(BLOCK))).digest()
    assert place.worker_memory() - before < 16 * MIB
    outcome = place.monitor.outcome(since)
    assert (outcome["response_bytes"], outcome["complete"]) == (BIG, True)
    assert outcome["response_digest"] == place.digest(BLOCK * (BIG // len(BLOCK)))


def test_a_client_that_does_not_read_fills_no_memory(place: Place) -> None:
    before = place.worker_memory()
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("GET", "/download", f"Host: {place.at}"))
        wire.read_head()
        time.sleep(1)  # as long as the worker would need to read all of it
        assert place.worker_memory() - before < 16 * MIB


def test_large_upload_in_flat_memory(place: Place) -> None:
    since, before = len(place.monitor.entries()), place.worker_memory()
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", "/upload", f"Host: {place.at}", f"Content-Length: {BIG}"))
        for _ in range(BIG // len(BLOCK)):
            wire.send(BLOCK)
        assert wire.read_answer().status == 200
    assert place.server.got == BIG
    assert place.worker_memory() - before < 16 * MIB
    outcome = place.monitor.outcome(since)
    assert outcome["request_bytes"] == BIG
    assert outcome["request_digest"] == place.digest(BLOCK * (BIG // len(BLOCK)))


def test_an_upload_waits_for_its_server_in_flat_memory(place: Place) -> None:
    """What an agent sends while the server has not answered its connection stays with the agent."""
    before = place.worker_memory()
    place.server.accepting.clear()
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", "/upload", f"Host: {place.at}", f"Content-Length: {BIG}"))
        wire.socket.settimeout(1.5)
        with pytest.raises(TimeoutError):
            wire.send(bytes(BIG))
    place.server.accepting.set()
    assert place.worker_memory() - before < 16 * MIB


def test_both_directions_at_once(place: Place) -> None:
    """A server that answers while it reads, and more than it reads: while it takes nothing it must still be heard."""
    blocks = 4 * MIB // len(BLOCK)
    got = 0
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", "/more", f"Host: {place.at}", f"Content-Length: {blocks * len(BLOCK)}"))
        for data in wire.duplex([BLOCK] * blocks):
            got += len(data)
    assert got > MORE * blocks * len(BLOCK)


def test_chunked_upload_passes_as_it_comes(place: Place) -> None:
    since, parts = len(place.monitor.entries()), [b"one", b"two" * 1000, b"three"]
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", "/x", f"Host: {place.at}", "Transfer-Encoding: chunked"))
        for chunk in chunked(parts):
            wire.send(chunk)
        assert wire.read_answer().status == 200
    assert place.server.requests[-1][3] == b"".join(parts)
    outcome = place.monitor.outcome(since)
    assert (outcome["request_bytes"], outcome["request_digest"]) == (3011 - 3, place.digest(b"".join(parts)))


@pytest.mark.parametrize("path", ["/x", "/refused"])
def test_expect_100_continue(place: Place, path: str) -> None:
    """The go-ahead comes once the request is allowed, and before the body."""
    host = f"Host: {place.at}" if path == "/x" else "Host: example.org"
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", path, host, "Content-Length: 4", "Expect: 100-continue"))
        status = wire.read_head()[0]
        assert status == (100 if path == "/x" else 400)
        if status == 100:
            wire.send(b"body")
            assert wire.read_answer().status == 200
            assert place.server.requests[-1][3] == b"body"


def test_response_until_the_connection_closes(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        answer = wire.tunnel(place.at).request("GET", "/until-closed")
    assert answer.body == BLOCK
    outcome = place.monitor.outcome(since)
    assert (outcome["response_bytes"], outcome["complete"]) == (len(BLOCK), True)


def test_client_that_leaves_in_the_middle(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("GET", "/download", f"Host: {place.at}"))
        wire.read_head()
        wire.read(100_000)
    outcome = place.monitor.outcome(since)
    assert (outcome["status"], outcome["complete"]) == (200, False)
    assert 100_000 <= outcome["response_bytes"] < BIG
    assert outcome["error"]


def test_client_that_leaves_before_the_answer(place: Place) -> None:
    since, before = len(place.monitor.entries()), place.server.uploads
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("POST", "/upload", f"Host: {place.at}", "Content-Length: 10") + b"12345")
        until(lambda: place.server.uploads > before)
    outcome = place.monitor.outcome(since)
    assert (outcome["status"], outcome["complete"], outcome["request_bytes"]) == (0, False, 5)


def test_server_that_breaks_off(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("GET", "/broken", f"Host: {place.at}"))
        assert wire.read_head()[0] == 200
        assert len(wire.read_rest()) == 1000, "the agent sees that it is not complete"
    outcome = place.monitor.outcome(since)
    assert (outcome["complete"], outcome["response_bytes"]) == (False, 1000)


@pytest.mark.parametrize("path", ["/head-without-end", "/no-response"])
def test_answer_that_is_no_response(place: Place, path: str) -> None:
    since, before = len(place.monitor.entries()), place.worker_memory()
    with Wire(place.monitor) as wire:
        answer = wire.tunnel(place.at).request("GET", path)
    assert (answer.status, answer.json()["status"]) == (502, 502)
    assert place.monitor.outcome(since)["complete"] is False
    assert place.worker_memory() - before < 16 * MIB


def test_interim_response(place: Place) -> None:
    """It is not the answer; the answer comes after it."""
    with Wire(place.monitor) as wire:
        assert wire.tunnel(place.at).request("GET", "/early").json() == {"path": "/early"}
        assert wire.request("GET", "/x").status == 200


def test_trailers_are_passed_on(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(head("GET", "/trailers", f"Host: {place.at}", "TE: trailers"))
        assert wire.read_head()[0] == 200
        assert [wire.readline() for _ in range(5)] == ["2\r\n", "ok\r\n", "0\r\n", "x-sum: 1\r\n", "\r\n"]
        assert wire.request("GET", "/x").status == 200, "the connection goes on"
    outcome = place.monitor.outcome(since)
    assert (outcome["complete"], outcome["response_bytes"]) == (True, 2)


def test_pipelined_requests_are_all_judged(place: Place) -> None:
    one = head("GET", "/x", f"Host: {place.at}")
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).send(one + head("GET", "/x", "Host: example.org") + one)
        assert [wire.read_answer().status for _ in range(3)] == [200, 400, 200]
