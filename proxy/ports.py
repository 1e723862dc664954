"""Whether an address can be listened on, before the workers share it."""

from __future__ import annotations

import asyncio
import os
import socket
import time

from ..formats.errors import UsageError

FREE_WITHIN_S = 3.0  # orphaned workers end within LAST_WORDS_S of proxy/worker.py


async def wait_until_free(name: str, address: tuple[str, int]) -> None:
    """`check_free`, with patience for the workers of a monitor that was killed just now."""
    deadline = time.monotonic() + FREE_WITHIN_S
    while True:
        try:
            check_free(name, address)
        except UsageError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


def check_free(name: str, address: tuple[str, int]) -> None:
    """Raises UsageError if something listens on `address` already. Workers share the port, so they would not notice."""
    host, port = address
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as e:
        text = f"listen.{name}: {host}:{port} cannot be listened on: {os.strerror(e.errno) if e.errno else e}"
        raise UsageError(f"{text}; stop what uses it or choose another port") from None
