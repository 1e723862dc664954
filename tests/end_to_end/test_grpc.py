"""gRPC through the monitor: the official client and server get from each other what they would get without it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from end_to_end.world import Monitor, Outside, binding, target

from lictor.certs.contexts import client_context
from lictor.proxy.sidecar.sidecar import MonitorAddress, Sidecar

grpc = pytest.importorskip("grpc", reason="grpcio is not installed") if "CI" not in os.environ else __import__("grpc")

MESSAGES = [b"one", b"", b"x" * 100_000, b"four"]


class Service:
    """Byte streams in, byte streams out; it remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.cancelled = threading.Event()
        self.handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Fails": grpc.unary_unary_rpc_method_handler(self.fails),
            "Refuses": grpc.stream_unary_rpc_method_handler(self.refuses),
            "Endless": grpc.unary_stream_rpc_method_handler(self.endless),
            "Denied": grpc.unary_unary_rpc_method_handler(self.unary),
        }

    def _called(self, name: str, context: Any) -> None:
        self.calls.append((name, dict(context.invocation_metadata())))
        context.send_initial_metadata((("x-initial", name),))
        context.set_trailing_metadata((("x-trailing", name), ("x-binary-bin", b"\x00\xff")))

    def unary(self, request: bytes, context: Any) -> bytes:
        self._called("Unary", context)
        return request[::-1]

    def client_stream(self, requests: Iterator[bytes], context: Any) -> bytes:
        self._called("ClientStream", context)
        return b"|".join(requests)

    def server_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        self._called("ServerStream", context)
        yield from MESSAGES

    def both(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self._called("Both", context)
        for request in requests:
            yield request.upper()

    def fails(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä%")

    def refuses(self, requests: Iterator[bytes], context: Any) -> bytes:
        """An answer before the request has ended."""
        next(requests)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "enough")

    def endless(self, request: bytes, context: Any) -> Iterator[bytes]:
        context.add_callback(self.cancelled.set)
        while context.is_active():
            yield b"tick" * 1000


@dataclass
class Place:
    monitor: Monitor
    service: Service
    channel: Any
    at: str

    def call(self, kind: str, method: str, argument: Any, **more: Any) -> Any:
        return getattr(self.channel, kind)(f"/test.Service/{method}")(argument, timeout=30, **more)


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    service = Service()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", service.handlers),))
    credentials = grpc.ssl_server_credentials([(outside.key.read_bytes(), outside.cert.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    allowed = [f"https://localhost:{port}/test.Service/{m}" for m in service.handlers if m != "Denied"]
    monitor = share_monitor(
        "grpc",
        {"main": binding(http_request=allowed)},
        target("urn:test:files", "data_source", f"https://localhost:{port}/files/**"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
    )
    trust = grpc.ssl_channel_credentials(monitor.domain.interception_root.read_bytes())
    with sidecar(monitor) as proxy:
        options = (("grpc.http_proxy", proxy), ("grpc.enable_http_proxy", 1))
        with grpc.secure_channel(f"localhost:{port}", trust, options) as channel:
            yield Place(monitor, service, channel, f"localhost:{port}")
    server.stop(None).wait()


@contextlib.contextmanager
def sidecar(monitor: Monitor) -> Iterator[str]:
    """The URL of a proxy for clients that show no certificates, as `lictor exec` starts one."""
    address = MonitorAddress("127.0.0.1", monitor.port, "test.internal", None)
    agent, loop = monitor.domain.path / "agents" / "default", asyncio.new_event_loop()
    made = Sidecar(
        "default", address, client_context(monitor.domain.identity_ca, agent / "cert.pem", agent / "key.pem"), print
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(15)
    try:
        yield made.url
    finally:
        asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(15)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_unary(place: Place) -> None:
    since = len(place.monitor.entries())
    call = place.channel.unary_unary("/test.Service/Unary").with_call(
        b"abc", timeout=30, metadata=(("x-mine", "1"), ("x-raw-bin", b"\xff\x00"))
    )
    assert call[0] == b"cba"
    assert dict(call[1].initial_metadata())["x-initial"] == "Unary"
    trailing = dict(call[1].trailing_metadata())
    assert (trailing["x-trailing"], trailing["x-binary-bin"]) == ("Unary", b"\x00\xff")
    assert call[1].code() is grpc.StatusCode.OK
    sent = place.service.calls[-1][1]
    assert (sent["x-mine"], sent["x-raw-bin"]) == ("1", b"\xff\x00")
    action = place.monitor.entries()[since]
    assert action["action_target"].endswith("/test.Service/Unary")
    outcome = place.monitor.outcome(since)
    assert (outcome["status"], outcome["complete"]) == (200, True)
    assert (outcome["request_bytes"], outcome["response_bytes"]) == (8, 8), "five bytes and the message"


def test_unchanged_through_exec(place: Place) -> None:
    """What `lictor exec` sets is all that a client needs."""
    code = (
        "import grpc, sys\n"
        "channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())\n"
        "print(channel.unary_unary('/test.Service/Unary')(b'abc', timeout=60))\n"
    )
    command = [sys.executable, "-m", "lictor", "exec", "--agent", "default", "-c", str(place.monitor.config), "--"]
    run = subprocess.run(
        [*command, sys.executable, "-c", code, place.at], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.stdout == "b'cba'\n", run.stderr


def test_streams(place: Place) -> None:
    assert place.call("stream_unary", "ClientStream", iter(MESSAGES)) == b"|".join(MESSAGES)
    assert list(place.call("unary_stream", "ServerStream", b"")) == MESSAGES


def test_both_ways_each_message_as_it_comes(place: Place) -> None:
    """The next message is sent only when the answer to the last has come."""
    questions: queue.Queue[bytes | None] = queue.Queue()
    answers = place.call("stream_stream", "Both", iter(questions.get, None))
    for number in range(20):
        questions.put(b"message %d" % number)
        assert next(answers) == b"MESSAGE %d" % number
    questions.put(None)
    assert list(answers) == []
    assert dict(answers.trailing_metadata())["x-trailing"] == "Both"


def test_many_at_once_on_one_connection(place: Place) -> None:
    calls = [place.channel.unary_unary("/test.Service/Unary").future(b"%d" % n, timeout=60) for n in range(150)]
    assert [call.result() for call in calls] == [(b"%d" % n)[::-1] for n in range(150)]


@pytest.mark.parametrize(
    ("kind", "method", "argument", "code", "text"),
    [
        ("unary_unary", "Fails", b"", "NOT_FOUND", "no such thing: ä%"),
        ("stream_unary", "Refuses", [b"x"] * 5, "FAILED_PRECONDITION", "enough"),
        ("unary_unary", "NoSuchMethod", b"", "PERMISSION_DENIED", "not_in_allowlist"),
        ("unary_unary", "Denied", b"x" * 300_000, "PERMISSION_DENIED", "not_in_allowlist"),
        ("stream_stream", "Denied", [b"x" * 100_000] * 30, "PERMISSION_DENIED", "not_in_allowlist"),
    ],
)
def test_errors_reach_the_caller(place: Place, kind: str, method: str, argument: Any, code: str, text: str) -> None:
    before = len(place.service.calls)
    given = iter(argument) if isinstance(argument, list) else argument
    with pytest.raises(grpc.RpcError) as caught:
        list(place.call(kind, method, given))
    assert caught.value.code() is grpc.StatusCode[code]
    assert text in caught.value.details()
    if code == "PERMISSION_DENIED":
        metadata = dict(caught.value.trailing_metadata())
        assert "not_in_allowlist" in metadata["proxy-status"]
        assert metadata["behavioral-evidence"].count(".") == 2
        assert len(place.service.calls) == before
    assert place.call("unary_unary", "Unary", b"ab") == b"ba", "the connection goes on"


def test_a_call_taken_back_ends_upstream_too(place: Place) -> None:
    since = len(place.monitor.entries())
    answers = place.call("unary_stream", "Endless", b"")
    assert next(answers) == b"tick" * 1000
    answers.cancel()
    assert place.service.cancelled.wait(15)
    outcome = place.monitor.outcome(since)
    assert (outcome["complete"], outcome["error"]) == (False, "the stream was reset (CANCEL)")
