"""Answers that are read before they pass, with real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from mitmproxy import http
from mitmproxy.proxy.layers import http as layer

from lictor.engine import permit
from lictor.engine.answer_gate import Gate

LIMIT = 1000
PIECES = [b"first", b"second", b"third"]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "HttpStream", layer.HttpStream)
    permit.install(lambda flow: True, LIMIT)


class Reader:
    """Puts a gate in front of each answer; `read(gate, flow)` stands for what an addon does with a piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.errors: list[str] = []

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        assert flow.response is not None
        flow.response.stream = Gate()

    def response_data(self, flow: http.HTTPFlow) -> Any:
        assert flow.response is not None
        gate = flow.response.stream
        assert isinstance(gate, Gate)
        self.pieces.append(gate.came)
        return self.read(gate, flow)

    def read(self, gate: Gate, flow: http.HTTPFlow) -> Any:
        gate.passed = gate.came.upper()

    def error(self, flow: http.HTTPFlow) -> None:
        self.errors.append(str(flow.error))


async def pieces(_: bytes, __: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in PIECES:
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")


async def fetch(serve: Any, start_upstream: Any, reader: Any, answer: Any = pieces) -> httpx.Response:
    async with start_upstream() as up, serve(reader) as running, running.client() as client:
        up.answer = answer
        return await client.get(up.url)  # type: ignore[no-any-return]


async def test_what_an_addon_passes_is_what_arrives(serve: Any, start_upstream: Any) -> None:
    reader = Reader()
    got = await fetch(serve, start_upstream, reader)
    assert got.content == b"FIRSTSECONDTHIRD"
    assert b"".join(reader.pieces) == b"".join(PIECES)
    assert reader.pieces[-1] == b"", "the end is a piece of its own"


async def test_an_addon_may_wait_and_order_is_kept(serve: Any, start_upstream: Any) -> None:
    class Waiting(Reader):
        async def read(self, gate: Gate, flow: http.HTTPFlow) -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            gate.passed = gate.came

    assert (await fetch(serve, start_upstream, Waiting())).content == b"".join(PIECES)


async def test_what_is_not_passed_never_arrives(serve: Any, start_upstream: Any) -> None:
    class Choosing(Reader):
        def read(self, gate: Gate, flow: http.HTTPFlow) -> None:
            gate.passed = gate.came.replace(b"second", b"")

    assert (await fetch(serve, start_upstream, Choosing())).content == b"firstthird"


@pytest.mark.parametrize("how", ["kills", "fails", "fails late"])
async def test_a_flow_that_is_killed_or_an_addon_that_fails_ends_the_answer(
    serve: Any, start_upstream: Any, how: str
) -> None:
    class Ending(Reader):
        def read(self, gate: Gate, flow: http.HTTPFlow) -> Any:
            gate.passed = gate.came
            if how == "fails late":
                return self.fail()
            if how == "fails":
                raise ValueError("broken")
            flow.kill()
            return None

        async def fail(self) -> None:
            raise ValueError("broken")

    reader = Ending()
    with pytest.raises(httpx.TransportError):
        await fetch(serve, start_upstream, reader)
    assert len(reader.pieces) == 1
    assert len(reader.errors) == 1


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 502)])
async def test_an_answer_that_is_collected_has_a_limit(serve: Any, start_upstream: Any, size: int, status: int) -> None:
    async def answer(_: bytes, __: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size))

    got = await fetch(serve, start_upstream, object(), answer)
    assert (got.status_code, b"xxx" in got.content) == (status, status == 200)


def test_a_gate_is_no_function_that_passes_bytes() -> None:
    with pytest.raises(RuntimeError, match="passed on unread"):
        Gate()(b"x")
