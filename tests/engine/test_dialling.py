"""Addresses are dialled one after the other, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from mitmproxy.connection import Server

from lictor.engine import dialling
from lictor.engine.dialling import addresses_of, dial, dial_at


class Keeps(asyncio.Protocol):
    transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where something listens, on 127.0.0.1 alone."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def test_without_addresses_the_host_is_dialled() -> None:
    assert addresses_of(Server(address=("192.0.2.1", 443))) == ("192.0.2.1",)
    assert addresses_of(Server(address=None)) == ()


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.2", "127.0.0.3", "127.0.0.1"]]
)
async def test_the_first_that_answers(port: int, addresses: list[str]) -> None:
    server, kept = Server(address=("name.invalid", port)), Keeps()
    dial_at(server, addresses)
    await dial(server, lambda: kept)
    assert kept.transport is not None
    assert kept.transport.get_extra_info("peername") == ("127.0.0.1", port)
    assert server.address == ("name.invalid", port), "the name is never dialled and never changed"
    kept.transport.close()


async def test_none_answers(port: int) -> None:
    server = Server(address=("name.invalid", port))
    dial_at(server, ["127.0.0.2", "127.0.0.3"])
    with pytest.raises(OSError, match=r"127\.0\.0\.3"):
        await dial(server, Keeps)


async def test_one_that_is_silent_is_left_for_the_next(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "NEXT_ADDRESS_AFTER", 0.05)
    with socket.socket() as silent, socket.socket() as fills:
        silent.bind(("127.0.0.2", port))
        silent.listen(0)
        fills.connect(("127.0.0.2", port))  # the backlog is full: further connections are not answered
        server, kept = Server(address=("name.invalid", port)), Keeps()
        dial_at(server, ["127.0.0.2", "127.0.0.1"])
        await dial(server, lambda: kept)
    assert kept.transport is not None
    assert kept.transport.get_extra_info("peername")[0] == "127.0.0.1"
    kept.transport.close()


async def test_all_are_silent(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "CONNECT_TIMEOUT", 0.1)
    with socket.socket() as silent, socket.socket() as fills:
        silent.bind(("127.0.0.2", port))
        silent.listen(0)
        fills.connect(("127.0.0.2", port))
        server = Server(address=("name.invalid", port))
        dial_at(server, ["127.0.0.2"])
        with pytest.raises(TimeoutError):
            await dial(server, Keeps)
