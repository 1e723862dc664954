"""Events, hooks and bytes through real sockets: failing, waiting, streaming, cutting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from mitmproxy import http

from lictor.engine.patience import TimeLimits


def fails(how: str) -> Any:
    def at_once(data: Any) -> None:
        raise RuntimeError("broken on purpose")

    async def as_coroutine(data: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken on purpose")

    def as_future(data: Any) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, RuntimeError("broken on purpose"))
        return future

    def as_cancelled(data: Any) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        return future

    def nonsense(data: Any) -> str:
        return "neither nothing nor a future"

    return {
        "at once": at_once,
        "in a coroutine": as_coroutine,
        "in a future": as_future,
        "cancelled": as_cancelled,
        "nonsense": nonsense,
    }[how]


BEFORE_SENDING_HTTP = [
    "client_connected",
    "next_layer",
    "requestheaders",
    "request",
    "server_connect",
    "server_connected",
]
BEFORE_SENDING_HTTPS = [
    *BEFORE_SENDING_HTTP,
    "http_connect",
    "http_connected",
    "tls_clienthello",
    "tls_start_client",
    "tls_established_client",
    "tls_start_server",
    "tls_established_server",
]


class TestAHookThatFails:
    """Whatever hook fails, and however: nothing is sent upstream and nothing is answered with 200."""

    @pytest.mark.parametrize("how", ["at once", "in a coroutine", "in a future", "cancelled", "nonsense"])
    @pytest.mark.parametrize(
        ("tls", "name"),
        [(False, name) for name in BEFORE_SENDING_HTTP] + [(True, name) for name in BEFORE_SENDING_HTTPS],
        ids=lambda value: {False: "http", True: "https"}.get(value, value) if isinstance(value, bool) else value,
    )
    async def test_sends_nothing_upstream(
        self, serve: Any, start_upstream: Any, pki: Any, tls: bool, name: str, how: str, seen: Any
    ) -> None:
        addon = type("Failing", (), {name: staticmethod(fails(how))})()
        async with (
            start_upstream(pki.server_context("upstream") if tls else None) as up,
            serve(addon, seen) as running,
        ):
            async with running.client() as client:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(up.url)
                    assert answer.status_code in (502, 500)
            assert bytes(up.received) == b""
        assert name not in seen.names

    @pytest.mark.parametrize("how", ["at once", "in a future"])
    @pytest.mark.parametrize("name", ["responseheaders", "response"])
    async def test_withholds_the_response(self, serve: Any, start_upstream: Any, pki: Any, name: str, how: str) -> None:
        addon = type("Failing", (), {name: staticmethod(fails(how))})()
        async with (
            start_upstream(pki.server_context("upstream")) as up,
            serve(addon) as running,
            running.client() as client,
        ):
            with pytest.raises(httpx.TransportError):
                await client.get(up.url)

    async def test_a_streamed_request_is_not_ended_by_its_failing_request_hook(
        self, serve: Any, start_upstream: Any
    ) -> None:
        class Streaming:
            def requestheaders(self, flow: http.HTTPFlow) -> None:
                flow.request.stream = True

            def request(self, flow: http.HTTPFlow) -> None:
                raise RuntimeError("broken on purpose")

        async def body() -> AsyncIterator[bytes]:
            yield b"all but the end"

        async with start_upstream() as up, serve(Streaming()) as running, running.client() as client:
            with pytest.raises(httpx.TransportError):
                await client.post(up.url, content=body())
            await asyncio.wait_for(up.idle.wait(), 10)
            assert b"0\r\n\r\n" not in up.received

    async def test_one_that_only_tidies_up_does_not_keep_the_others_from_it(
        self, serve: Any, start_upstream: Any, seen: Any
    ) -> None:
        addon = type("Failing", (), {"client_disconnected": staticmethod(fails("at once"))})()
        async with start_upstream() as up, serve(addon, seen) as running, running.client() as client:
            await client.get(up.url)
        assert "client_disconnected" in seen.names


class TestWaiting:
    async def test_a_request_waits_for_the_future_of_its_hook_and_others_do_not(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        class Hold:
            def __init__(self) -> None:
                self.held: asyncio.Future[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

            def request(self, flow: http.HTTPFlow) -> asyncio.Future[None] | None:
                if flow.request.path != "/slow":
                    return None
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self.held.set_result(future)
                return future

        hold = Hold()
        async with (
            start_upstream(pki.server_context("upstream")) as up,
            serve(hold) as running,
            running.client() as client,
        ):
            slow = asyncio.create_task(client.get(up.url + "/slow"))
            release = await hold.held
            assert (await client.get(up.url + "/quick")).status_code == 200
            assert b"/slow" not in up.received
            release.set_result(None)
            assert (await slow).status_code == 200

    async def test_a_client_that_leaves_meanwhile_has_nothing_sent_for_it(
        self, serve: Any, start_upstream: Any
    ) -> None:
        loop = asyncio.get_running_loop()
        held: asyncio.Future[asyncio.Future[None]] = loop.create_future()
        gone = asyncio.Event()
        errors = []

        class Hold:
            def request(self, flow: http.HTTPFlow) -> asyncio.Future[None]:
                future: asyncio.Future[None] = loop.create_future()
                held.set_result(future)
                return future

            def client_disconnected(self, client: Any) -> None:
                gone.set()

            def error(self, flow: http.HTTPFlow) -> None:
                errors.append(str(flow.error))

        async with start_upstream() as up, serve(Hold()) as running:
            async with running.client() as client:
                request = asyncio.create_task(client.get(up.url))
                release = await held
                request.cancel()
                await asyncio.wait([request])
            await gone.wait()
            release.set_result(None)
            await asyncio.sleep(0.05)
            assert up.connections == 0
        assert errors == ["Client disconnected."]


class TestBodies:
    async def test_large_bodies_arrive_whole_in_both_directions(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        big = bytes(range(256)) * 20_000

        async def echo(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        async with start_upstream(pki.server_context("upstream")) as up, serve() as running:
            up.answer = echo
            async with running.client() as client:
                assert (await client.post(up.url, content=big)).content == big

    async def test_an_event_stream_arrives_as_it_is_sent(self, serve: Any, start_upstream: Any, pki: Any) -> None:
        more = asyncio.Event()

        async def events(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"6\r\nfirst\n\r\n")
            await writer.drain()
            await more.wait()
            writer.write(b"7\r\nsecond\n\r\n0\r\n\r\n")

        class Stream:
            def responseheaders(self, flow: http.HTTPFlow) -> None:
                assert flow.response
                flow.response.stream = True

        async with start_upstream(pki.server_context("upstream")) as up, serve(Stream()) as running:
            up.answer = events
            async with running.client() as client, client.stream("GET", up.url) as answer:
                chunks = answer.aiter_bytes()
                assert await anext(chunks) == b"first\n"
                more.set()
                assert [chunk async for chunk in chunks] == [b"second\n"]

    async def test_the_kill_switch_ends_a_stream_at_once(self, serve: Any, start_upstream: Any, pki: Any) -> None:
        upstream_gone = asyncio.Event()

        async def endless(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
            await writer.drain()
            with contextlib.suppress(OSError):
                while True:
                    writer.write(b"5\r\nmore\n\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.005)
            upstream_gone.set()

        class Stream:
            clients: list[Any]

            def responseheaders(self, flow: http.HTTPFlow) -> None:
                assert flow.response
                flow.response.stream = True
                self.clients = [flow.client_conn]

        stream = Stream()
        async with start_upstream(pki.server_context("upstream")) as up, serve(stream) as running:
            up.answer = endless
            async with running.client() as client, client.stream("GET", up.url) as answer:
                chunks = answer.aiter_bytes()
                await anext(chunks)
                running.engine.cut(stream.clients[0])
                with pytest.raises(httpx.TransportError):
                    async for _ in chunks:
                        pass
            await asyncio.wait_for(upstream_gone.wait(), 10)


async def test_an_idle_connection_is_closed(serve: Any, pki: Any) -> None:
    async with serve(times=TimeLimits(idle=0.1)) as running:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=pki.proxy_context(), server_hostname="127.0.0.1"
        )
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def settled(value: Callable[[], int]) -> int:
    """What a growing number stops at."""
    last, same = -1, 0
    while same < 10:
        await asyncio.sleep(0.02)
        same = same + 1 if value() == last else 0
        last = value()
    return last


class TestFlowControl:
    SIZE = 48 * 1024 * 1024

    async def test_a_client_that_does_not_read_stops_the_server(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        sent = 0

        async def flood(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.SIZE)
            while sent < self.SIZE:
                writer.write(b"x" * 65536)
                sent += 65536
                await writer.drain()

        class Stream:
            def responseheaders(self, flow: http.HTTPFlow) -> None:
                assert flow.response
                flow.response.stream = True

        async with start_upstream(pki.server_context("upstream")) as up, serve(Stream()) as running:
            up.answer = flood
            async with running.client() as client, client.stream("GET", up.url) as answer:
                assert await settled(lambda: sent) < self.SIZE
                assert sum([len(chunk) async for chunk in answer.aiter_bytes()]) == self.SIZE

    async def test_a_client_whose_request_waits_is_not_read_without_bound(
        self, serve: Any, start_upstream: Any
    ) -> None:
        taken = 0
        release: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        class Hold:
            def requestheaders(self, flow: http.HTTPFlow) -> asyncio.Future[None]:
                flow.request.stream = True
                return release

        async def body() -> AsyncIterator[bytes]:
            nonlocal taken
            while taken < self.SIZE:
                yield b"x" * 65536
                taken += 65536

        async with start_upstream() as up, serve(Hold()) as running, running.client() as client:
            length = {"content-length": str(self.SIZE)}
            request = asyncio.create_task(client.post(up.url, content=body(), headers=length))
            assert await settled(lambda: taken) < self.SIZE
            assert len(up.received) == 0
            release.set_result(None)
            assert (await request).status_code == 200
            assert up.received.endswith(b"x" * self.SIZE)
