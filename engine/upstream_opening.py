"""How a connection driver comes by an upstream connection: addons are asked, it is dialled, the layers are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, server_hooks

from .dialling import addresses_of, dial
from .peer import Driver, Peer

HookData = server_hooks.ServerConnectionHookData


class Opener(Driver, Protocol):
    """What is needed of a driver."""

    client: Client
    peers: dict[Connection, Peer]

    @property
    def ending(self) -> bool:
        """The client connection has ended or was cut off."""

    def is_own_address(self, host: str, port: int) -> bool: ...
    def hook(self, name: str, data: Any, done: Callable[[], None]) -> None: ...
    def pump(self, event: events.Event) -> None: ...


def open_connection(driver: Opener, command: commands.OpenConnection) -> None:
    """Open what a layer has asked for; it gets an `OpenConnectionCompleted` in any case."""
    server = command.connection
    if driver.ending or not server.address:
        driver.pump(events.OpenConnectionCompleted(command, "no connection is opened"))
        return
    peer = Peer()
    peer.driver, peer.connection = driver, server
    driver.peers[server] = peer
    data = HookData(client=driver.client, server=server)
    driver.hook("server_connect", data, partial(_connect, driver, command, peer, data))


def _connect(driver: Opener, command: commands.OpenConnection, peer: Peer, data: HookData) -> None:
    server = data.server
    if driver.ending:
        server.error = server.error or "client disconnected"
    elif server.error is None and _is_ours(driver, server):
        server.error = "the destination is this monitor itself"
    if server.error:
        _not_opened(driver, command, peer, data, f"Connection killed: {server.error}")
    else:
        peer.task = asyncio.get_running_loop().create_task(_dial(driver, command, peer, data))


def _is_ours(driver: Opener, server: Server) -> bool:
    addresses, port = addresses_of(server), server.address[1] if server.address else 0
    return any(driver.is_own_address(address, port) for address in addresses)


async def _dial(driver: Opener, command: commands.OpenConnection, peer: Peer, data: HookData) -> None:
    server = data.server
    server.timestamp_start = time.time()
    try:
        await dial(server, lambda: peer)
    except (OSError, asyncio.CancelledError) as error:
        if peer.transport is not None:
            peer.transport.abort()
        server.error = str(error) or ("connection timed out" if isinstance(error, OSError) else "cancelled")
        _not_opened(driver, command, peer, data, server.error)
        return
    finally:
        peer.task = None
    _opened(driver, command, peer, data)


def _not_opened(driver: Opener, command: commands.OpenConnection, peer: Peer, data: HookData, reason: str) -> None:
    peer.closed_seen = True
    if driver.peers.get(data.server) is peer:
        del driver.peers[data.server]
    driver.hook("server_connect_error", data, lambda: driver.pump(events.OpenConnectionCompleted(command, reason)))


def _opened(driver: Opener, command: commands.OpenConnection, peer: Peer, data: HookData) -> None:
    server, transport = data.server, peer.transport
    if transport is None or driver.peers.get(server) is not peer:  # closed meanwhile
        if transport is not None:
            transport.abort()
        driver.pump(events.OpenConnectionCompleted(command, "connection closed"))
        return
    server.timestamp_tcp_setup = time.time()
    server.state = ConnectionState.OPEN
    server.peername = transport.get_extra_info("peername")
    server.sockname = transport.get_extra_info("sockname")
    peer.hook_data = data
    transport.pause_reading()  # nothing is read before the layers know the connection
    peer.reading = None

    def opened() -> None:
        if driver.peers.get(server) is peer:
            driver.pump(events.OpenConnectionCompleted(command, None))
            peer.reading = False
            driver.regulate()

    driver.hook("server_connected", data, opened)
