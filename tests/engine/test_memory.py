"""What connections leave behind: nothing. Counted in objects and in allocated bytes, not in resident memory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import ssl
import weakref
from typing import Any

import pytest
from mitmproxy import http

WARM_UP, MORE = 30, 120
TASKS = 2
"""That of the test and that of the engine."""
PER_CONNECTION = 200
"""Bytes. What is allocated for one that is open is more than a thousand times that."""


class Allocated(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", *"abc", "mapped", *"de", "used", "free", "f")]


def allocated() -> int:
    """Bytes that the C library has given out and not got back, once all garbage is collected."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        pytest.skip("the C library does not say how much is allocated")
    library.mallinfo2.restype = Allocated
    gc.collect()
    found = library.mallinfo2()
    return int(found.used) + int(found.mapped)


async def visit(running: Any, authority: str, request: bool) -> None:
    """CONNECT, TLS in the tunnel, one request or none."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", running.port, ssl=running.pki.proxy_context(), server_hostname="127.0.0.1"
    )
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = running.pki.target_context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

    async def until_done(step: Any) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))

    await until_done(inner.do_handshake)
    if request:
        inner.write(f"GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        assert b"200 OK" in await until_done(lambda: inner.read(65536))
    writer.write(outgoing.read())
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def all_gone(running: Any) -> None:
    """No connection is left, on either side of the engine, nor a task or a timer that belonged to one."""
    while running.engine._drivers or len(asyncio.all_tasks()) > TASKS:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("request_too", [True, False], ids=["a request", "a handshake only"])
async def test_connections_leave_nothing(serve: Any, start_upstream: Any, pki: Any, request_too: bool) -> None:
    async with start_upstream(pki.server_context("upstream")) as up, serve() as running:
        authority = f"127.0.0.1:{up.port}"
        for _ in range(WARM_UP):
            await visit(running, authority, request_too)
        await all_gone(running)
        before, objects = allocated(), len(gc.get_objects())
        for _ in range(MORE):
            await visit(running, authority, request_too)
        await all_gone(running)
        grown = allocated() - before
        assert len(gc.get_objects()) - objects < 5 * MORE, "not five objects for each; an open one has hundreds"
        assert grown < MORE * PER_CONNECTION, f"{grown // MORE} bytes for each"


class Flows:
    """Knows every flow as long as it lives."""

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[http.HTTPFlow] = weakref.WeakSet()
        self.seen = 0

    def request(self, flow: http.HTTPFlow) -> None:
        self.alive.add(flow)
        self.seen += 1


async def test_an_exchange_that_has_ended_waits_for_no_collector(serve: Any, start_upstream: Any) -> None:
    flows = Flows()
    async with start_upstream() as up, serve(flows) as running, running.client() as client:
        gc.disable()
        try:
            for _ in range(3):
                assert (await client.get(up.url)).text == "hello"
            await client.get(up.url + "/last")  # the driver has gone on
            assert (flows.seen, len(flows.alive)) == (4, 0)
        finally:
            gc.enable()
