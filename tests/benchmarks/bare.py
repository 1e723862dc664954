"""The ceiling of durable appends: 64 in flight between two processes, one sync for all that wait, and nothing else.

No JSON, no hash, no tree, no database: an append is a line of its octets, and its receipt is one octet. What this
cannot do in Python on a machine and its disk, no ledger can. `python -m …bare FD` is the process that asks.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from asyncio import Future
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from lictor.proxy import loop

from .appending import IN_FLIGHT

OCTETS = 600
"""Of an entry, about."""
_LINE = b"x" * (OCTETS - 1) + b"\n"
_SIZE = 1 << 20


class Answering(asyncio.Protocol):
    """Writes what has come to a file, in place, syncs it in a thread, and answers an octet for each line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._file.write(bytes(_SIZE))
        os.fsync(self._file.fileno())
        self._thread = ThreadPoolExecutor(1)
        self._lines: list[bytes] = []
        self._rest = b""
        self._at = 0
        self._writing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += lines
        self._cut()

    def connection_lost(self, error: Exception | None) -> None:
        self._thread.shutdown()
        self._file.close()

    def _cut(self) -> None:
        if self._writing or not self._lines:
            return
        lines, self._lines = self._lines, []
        self._writing = True
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, lines)
        writing.add_done_callback(self._done)

    def _write(self, lines: list[bytes]) -> int:
        data = b"\n".join(lines)
        if self._at + len(data) > _SIZE:
            self._at = 0
        os.pwrite(self._file.fileno(), data, self._at)
        os.fdatasync(self._file.fileno())
        self._at += len(data)
        return len(lines)

    def _done(self, writing: Future[int]) -> None:
        self._writing = False
        self._transport.write(b"." * writing.result())
        self._cut()


class _Asking(asyncio.Protocol):
    """Always IN_FLIGHT lines wait for their answer, until the time is over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, seconds: float) -> Future[int]:
        """How many were answered."""
        self._until = time.perf_counter() + seconds
        self._answered, self._waiting = 0, IN_FLIGHT
        self._over: Future[int] = asyncio.get_running_loop().create_future()
        self._transport.write(_LINE * IN_FLIGHT)
        return self._over

    def data_received(self, data: bytes) -> None:
        self._answered += len(data)
        if time.perf_counter() < self._until:
            self._transport.write(_LINE * len(data))
            return
        self._waiting -= len(data)
        if not self._waiting:
            self._over.set_result(self._answered)


async def main(descriptor: int) -> None:
    """Reads seconds, one a line, and answers each with `answers seconds`."""
    running = asyncio.get_running_loop()
    transport, asking = await running.create_connection(_Asking, sock=socket.socket(fileno=descriptor))
    while line := await running.run_in_executor(None, sys.stdin.readline):
        began = time.perf_counter()
        answered = await asking.begin(float(line))
        print(answered, time.perf_counter() - began, flush=True)
    transport.close()


if __name__ == "__main__":
    loop.run(main(int(sys.argv[1])))
