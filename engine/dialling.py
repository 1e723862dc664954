"""Where an upstream connection is dialled: addresses that were checked, one after the other, and never a name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from mitmproxy.connection import Connection, Server

CONNECT_TIMEOUT = 15.0
"""Seconds for all addresses together; and again, for the TLS handshake with the one that has answered."""
NEXT_ADDRESS_AFTER = 3.0
"""Seconds after which the next address is tried, where there is one."""

_ADDRESSES = "lictor_addresses"


def dial_at(server: Server, addresses: Sequence[str]) -> None:
    """Have this server dialled at these IP addresses in this order; its name stays what it is for everything else."""
    server.__dict__[_ADDRESSES] = tuple(addresses)


def addresses_of(server: Server) -> tuple[str, ...]:
    """Where to dial this server: what `dial_at` said, or else the host of its address."""
    found: tuple[str, ...] | None = server.__dict__.get(_ADDRESSES)
    if found is None:
        return (server.address[0],) if server.address else ()
    return found


async def dial(server: Server, protocol: Callable[[], asyncio.Protocol]) -> None:
    """Connect `protocol()` to the first address that answers. Raises OSError: the last one's, or TimeoutError."""
    assert server.address
    loop = asyncio.get_running_loop()
    addresses, port = addresses_of(server), server.address[1]
    async with asyncio.timeout(CONNECT_TIMEOUT):
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(NEXT_ADDRESS_AFTER):
                    await loop.create_connection(protocol, address, port, local_addr=server.sockname)
            except OSError:
                continue
            return
        await loop.create_connection(protocol, addresses[-1], port, local_addr=server.sockname)


def is_silent(connection: Connection) -> bool:
    """Whether a server has taken a connection long ago and has not ended its TLS handshake."""
    since = connection.timestamp_tcp_setup if isinstance(connection, Server) and connection.tls else None
    if since is None or connection.timestamp_tls_setup is not None:
        return False
    return time.time() - since > CONNECT_TIMEOUT
