"""One socket of a connection driver, and what is to be written to it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

from mitmproxy.connection import Connection
from mitmproxy.proxy import server_hooks

from .tls_records import encrypt


class Driver(Protocol):
    """What a peer tells its driver."""

    def received(self, peer: Peer, data: bytes) -> None:
        """Bytes have come in."""

    def eof(self, peer: Peer) -> bool:
        """Nothing more will come in. True keeps the connection open for what is still to be sent."""

    def gone(self, peer: Peer) -> None:
        """The connection is closed, by whichever side."""

    def regulate(self) -> None:
        """A send buffer has filled."""

    def drained(self) -> None:
        """A send buffer has emptied."""


class Peer(asyncio.Protocol):
    """One socket of a driver."""

    transport: asyncio.Transport | None = None
    task: asyncio.Task[None] | None = None
    hook_data: server_hooks.ServerConnectionHookData | None = None
    closed_seen = False  # the layers were told that the connection is closed
    blocked = False  # its send buffer is full
    choked = False  # what came from it waits for a window of HTTP/2
    windowed = False  # it speaks HTTP/2, which has windows of its own: its socket is read on
    reading: bool | None = True  # None: not before the layers know the connection
    tls: Any = None  # the TLS session that `plain` is to be sent through

    driver: Driver
    connection: Connection

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.plain: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.driver.received(self, data)

    def eof_received(self) -> bool:
        return self.driver.eof(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.driver.gone(self)

    def pause_writing(self) -> None:
        self.blocked = True
        self.driver.regulate()

    def resume_writing(self) -> None:
        self.blocked = False
        self.driver.drained()

    def read(self, wanted: bool) -> None:
        """Read on, or stop reading for now."""
        transport = self.transport
        if self.reading in (None, wanted) or transport is None or transport.is_closing():
            return
        self.reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def flush(self) -> None:
        out, plain = self.out, self.plain
        if plain:
            out.append(encrypt(self.tls, plain[0] if len(plain) == 1 else b"".join(plain)))
            plain.clear()
        if out:
            transport = self.transport
            if transport is not None and not transport.is_closing():
                transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
