"""Fetches a monitor's whole log from its API into a file. What is served is hostile until it is verified.

The server must be a monitor, and the log its own; what it serves is bounded in octets, also once it is unpacked, and in
time: a server that sends too little for too long is given up. Nothing else of the log is looked at here.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

import aiohttp

from ..certs.servers import ExpectedServer, why_not
from ..evidence.export import Header, read_header
from ..formats.errors import FormatError, LictorError, VerificationError
from .urls import https_address

HEAD_S = 30.0
STRETCH_S = 30.0
LEAST = 256 * 1024
"""Octets that must come in each stretch of STRETCH_S seconds."""
BUSY_ASKED = 6
BUSY_S = 5.0
FIRST_LINE = 64 * 1024
_CHUNK = 64 * 1024
_GZIP = 31

Progress = Callable[[int, int], object]
"""Is told how many entries or other lines came, of how many entries there are."""


class Unreachable(LictorError):
    """The log could not be had: nothing is known."""


class _Busy(Exception):
    pass


def check_url(url: str) -> str:
    """`https://host:port`, as it is asked. Raises UsageError."""
    host, port = https_address(url, "a monitor's API is named as")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


async def fetch(
    url: str,
    context: ssl.SSLContext,
    expected: ExpectedServer,
    out: BinaryIO,
    most: int,
    progress: Progress | None = None,
) -> str:
    """Write the evidence file of the monitor at `url` to `out`; the monitor's SPIFFE ID.

    `most` bounds the file in octets. Raises Unreachable if the log could not be had (also where the server is not
    `expected`), VerificationError if it is not that monitor's.
    """
    expected.watch(context)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=HEAD_S, sock_read=STRETCH_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as session:
        for asked in range(1, BUSY_ASKED + 1):
            try:
                return await _fetch(session, url, context, expected, out, most, progress)
            except _Busy:
                if asked == BUSY_ASKED:
                    raise Unreachable(f"{url} is busy with other exports") from None
                await asyncio.sleep(BUSY_S)
            except TimeoutError:
                raise Unreachable(f"{url} does not answer in time") from None
            except (aiohttp.ClientError, OSError, zlib.error) as e:
                cause = e.certificate_error if isinstance(e, aiohttp.ClientConnectorCertificateError) else e
                raise Unreachable(f"{url} cannot be reached, or broke off: {_printable(why_not(cause))}") from None
    raise AssertionError("the last one returns or raises")


async def _fetch(
    session: aiohttp.ClientSession,
    url: str,
    context: ssl.SSLContext,
    expected: ExpectedServer,
    out: BinaryIO,
    most: int,
    progress: Progress | None,
) -> str:
    headers = {"Accept-Encoding": "gzip"}
    async with asyncio.timeout(HEAD_S):
        answer = await session.get(f"{url}/export", ssl=context, headers=headers, allow_redirects=False)
    async with answer:
        if answer.status == 503:
            raise _Busy
        if answer.status != 200:
            raise Unreachable(f"{url} answers {answer.status}: {await _said(answer)}")
        received = _Received(url, expected.seen, out, most, progress)
        async for data in _unpacked(answer):
            received.take(data)
    received.finish()
    return expected.seen


async def _said(answer: aiohttp.ClientResponse) -> str:
    async with asyncio.timeout(HEAD_S):
        return _printable((await answer.content.read(300)).decode("utf-8", "replace"))


def _printable(text: str) -> str:
    """What a server says, or made our library say, in one line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else " " for c in text[:300]).strip()


async def _unpacked(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The octets of the body, in pieces. Raises Unreachable for one that comes too slowly."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding not in ("gzip", "identity"):
        raise Unreachable(f"{answer.url} answers in the encoding {encoding[:40]!r}, which was not asked for")
    pack = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    async for chunk in _in_time(answer):
        if pack is None:
            yield chunk
            continue
        while chunk:
            yield pack.decompress(chunk, _CHUNK)
            chunk = pack.unconsumed_tail
        if pack.unused_data:
            raise Unreachable(f"{answer.url} sends something after the end of what is packed")
    if pack is not None and not pack.eof:
        raise Unreachable(f"{answer.url} ended in the middle")


async def _in_time(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    began, came = loop.time(), 0
    while True:
        left = began + STRETCH_S - loop.time()
        if left <= 0:
            if came < LEAST:
                raise Unreachable(f"{answer.url} sent {came} octets in {STRETCH_S:g} s, which is too slow")
            began, came = loop.time(), 0
            continue
        try:
            async with asyncio.timeout(left):
                chunk = await answer.content.readany()
        except TimeoutError:
            continue
        if not chunk:
            return
        came += len(chunk)
        yield chunk


class _Received:
    """Writes what comes to the file, and looks at its first line."""

    def __init__(self, url: str, monitor: str, out: BinaryIO, most: int, progress: Progress | None) -> None:
        self._url, self._monitor, self._out, self._most, self._progress = url, monitor, out, most, progress
        self._octets = self._lines = 0
        self._first = bytearray()
        self._header: Header | None = None

    def take(self, data: bytes) -> None:
        """Raises Unreachable when it is too much, VerificationError if it is not the evidence file of this monitor."""
        self._octets += len(data)
        if self._octets > self._most:
            raise Unreachable(f"{self._url} serves more than {self._most} octets (--limit)")
        if self._header is None:
            self._first += data
            if b"\n" in self._first or len(self._first) > FIRST_LINE:
                self._begin()
        else:
            self._write(data)

    def finish(self) -> None:
        """Raises VerificationError if not even the first line came."""
        if self._header is None:
            raise VerificationError(f"{self._url} serves no evidence file")

    def _begin(self) -> None:
        line, end, _ = self._first.partition(b"\n")
        try:
            self._header = read_header(bytes(line + end))
        except FormatError as e:
            raise VerificationError(f"{self._url} serves no evidence file: {e}") from None
        if f"spiffe://{self._header.origin}" != self._monitor:
            served = self._header.origin[:200]
            raise VerificationError(f"{self._url} is {self._monitor} and serves the log of {served!r}")
        self._write(bytes(self._first))

    def _write(self, data: bytes) -> None:
        assert self._header is not None
        self._out.write(data)
        self._lines += data.count(b"\n")
        if self._progress is not None:
            self._progress(min(self._lines, self._header.count), self._header.count)
