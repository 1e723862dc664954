"""The sidecar of one agent: a proxy on loopback that speaks mTLS to the monitor with the agent's certificate.

For clients that know HTTP_PROXY and no client certificates. It judges nothing. Whoever connects shows the token of
this run; what follows is relayed as it is, in both directions, each waiting for its reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from ...certs.identity import server_identity
from ...formats.errors import VerificationError
from . import credentials
from .credentials import END, USER, Refusal

HEAD_S = 30.0
"""Time for a connection to show its first request head."""
CONNECT_S = 10.0
"""Time for TCP and TLS to the monitor."""
HALF_CLOSED_S = 10.0
"""Silence that ends an exchange whose client has finished sending (asyncio cannot half-close TLS to the monitor)."""
LINGER_S = 2.0
"""Time for a refused client to read its answer."""
MAX_CONNECTIONS = 1024
CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class MonitorAddress:
    """Where the monitor is and who it must be. `name` None: any monitor of the trust domain."""

    host: str
    port: int
    trust_domain: str
    name: str | None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Sidecar:
    """An async context manager: inside of it, `url` is a proxy URL with this run's credentials."""

    def __init__(
        self, agent: str, monitor: MonitorAddress, context: ssl.SSLContext, on_problem: Callable[[str], None]
    ) -> None:
        """`context` holds the agent's certificate (`contexts.client_context`); `on_problem` gets each problem once."""
        self._agent = agent
        self._monitor = monitor
        self._context = context
        self._on_problem = on_problem
        self._problems: set[str] = set()
        self._token = secrets.token_urlsafe(32)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The loopback port."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """`http://lictor:TOKEN@127.0.0.1:PORT`. A secret: whoever has it acts as the agent while this run lasts."""
        return f"http://{USER}:{self._token}@127.0.0.1:{self.port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A task of ours: one that asyncio makes complains when it is cancelled, in Python up to 3.12.1."""
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # the client went away, or sent no head in time
            await self._serve(reader, writer)
        await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_S):
            first = await self._read_head(reader)
        if isinstance(first, Refusal):
            await _refuse(reader, writer, first)
            return
        if not first:
            return
        upstream = await self._connect()
        if isinstance(upstream, Refusal):
            await _refuse(reader, writer, upstream)
            return
        try:
            upstream[1].write(first)
            answered = await _relay((reader, writer), upstream)
        finally:
            await _close(upstream[1])
        if not answered and not reader.at_eof():
            await _refuse(reader, writer, self._unanswered())

    async def _read_head(self, reader: asyncio.StreamReader) -> bytes | Refusal:
        """The admitted head and what came after it; empty when the client closed without a word."""
        start = b""
        while END not in start:
            chunk = await reader.read(CHUNK)
            if not chunk:
                return b""
            start += chunk
            refusal = credentials.hopeless(start)
            if refusal is not None:
                return refusal
        end = start.index(END) + len(END)
        head = credentials.admit(start[:end], self._token)
        return head if isinstance(head, Refusal) else head + start[end:]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | Refusal:
        """A verified connection to the monitor, or the answer that names what is wrong and the mend."""
        monitor = self._monitor
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    monitor.host, monitor.port, ssl=self._context, ssl_shutdown_timeout=LINGER_S, limit=CHUNK
                )
        except ssl.SSLCertVerificationError as e:
            return self._wrong_monitor(e.verify_message)
        except ssl.SSLError as e:
            return self._wrong_monitor(f"no TLS 1.3 there: {e.reason or e}")
        except TimeoutError:
            return self._unreachable(f"no answer in {CONNECT_S:.0f} s")
        except OSError as e:
            return self._unreachable(_why(e))
        try:
            self._check_monitor(writer)
        except VerificationError as e:
            writer.transport.abort()
            return self._wrong_monitor(str(e))
        return reader, writer

    def _check_monitor(self, writer: asyncio.StreamWriter) -> None:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        found = server_identity(der, self._monitor.trust_domain, datetime.now(UTC))
        name = self._monitor.name
        if not (found.path == f"/monitor/{name}" if name else found.path.startswith("/monitor/")):
            raise VerificationError(f"it is {found}, expected the monitor {name or 'of this trust domain'}")

    def _unreachable(self, why: str) -> Refusal:
        text = f"The monitor at {self._monitor} cannot be reached: {why}. Start it with lictor up, or mend the address."
        return self._problem("lictor exec: monitor unreachable", text)

    def _wrong_monitor(self, why: str) -> Refusal:
        text = (
            f"What answers at {self._monitor} is not the monitor that lictor exec expects: {why}. "
            "Check the address and that the trust directory is the monitor's own."
        )
        return self._problem("lictor exec: not the expected monitor", text)

    def _unanswered(self) -> Refusal:
        text = (
            f"The monitor at {self._monitor} closed the connection without an answer. The certificate of the agent "
            f"{self._agent} may be expired or revoked: see lictor agent list."
        )
        return self._problem("lictor exec: monitor gave no answer", text)

    def _problem(self, reason: str, text: str) -> Refusal:
        if text not in self._problems:
            self._problems.add(text)
            self._on_problem(text)
        return Refusal(502, reason, text)


def _why(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error) or "it ended the TLS handshake"


type _Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _relay(client: _Streams, monitor: _Streams) -> bool:
    """Carry bytes both ways until the monitor ends; returns whether it sent any."""
    quiet = _Quiet()
    upwards = asyncio.create_task(_upwards(client[0], monitor[1], quiet))
    try:
        return await _downwards(monitor[0], client[1], quiet)
    finally:
        upwards.cancel()
        await asyncio.gather(upwards, return_exceptions=True)


class _Quiet:
    """How long the monitor may be silent: for ever, until the client has finished sending."""

    def __init__(self) -> None:
        self.limit: asyncio.Timeout | None = None
        self.finished = False

    def heard(self) -> None:
        if self.finished and self.limit is not None and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + HALF_CLOSED_S)


async def _upwards(client: asyncio.StreamReader, monitor: asyncio.StreamWriter, quiet: _Quiet) -> None:
    try:
        while chunk := await client.read(CHUNK):
            monitor.write(chunk)
            await monitor.drain()
    except OSError:
        pass  # a reset by either side: the other direction notices, or the silence ends it
    quiet.finished = True
    quiet.heard()


async def _downwards(monitor: asyncio.StreamReader, client: asyncio.StreamWriter, quiet: _Quiet) -> bool:
    answered = False
    with contextlib.suppress(OSError):
        async with asyncio.timeout(None) as quiet.limit:
            while chunk := await monitor.read(CHUNK):
                answered = True
                quiet.heard()
                client.write(chunk)
                await client.drain()
    return answered


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Refusal) -> None:
    """Answer, then let the client read: closing on unread bytes would reset the connection under the answer."""
    writer.write(refusal.response())
    with contextlib.suppress(OSError):
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await reader.read(CHUNK):
                pass


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
