"""`GET /export`: the whole log as an evidence file, for the auditors that the configuration names.

What is sent is what `lictor log export` writes at this moment: everything under one checkpoint, while the log goes on.
It is read in blocks, each in a transaction of its own, by one thread that pauses after each for as long as that took,
so that neither the ledger nor the clearing of its write-ahead log ever waits for a reader. A few at a time, one of each
auditor, or of all that are of one partner; an auditor who does not read is let go. What was broken off is asked for
anew, from the beginning.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from aiohttp import web

from ...bindings.subjects import applies_to
from ...certs.callers import CALLER
from ...evidence.export import cut, export_blocks
from ...evidence.sqlite_store import SqliteReader
from ...formats.errors import LedgerError
from ...formats.spiffe import SpiffeId
from ..config import Config

log = logging.getLogger(__name__)

EXPORTS = 2
"""Exports at a time."""
PAUSE_S = 0.002
STALLED_S = 30.0
"""Seconds that an auditor may take to make room for more."""
_PACK = 1
_GZIP = 31


class Exporting:
    """Serves exports; `stop` ends those under way."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._asking: set[str] = set()

    async def stop(self) -> None:
        """Give the ledger back. Call when no request is served any more."""
        await asyncio.to_thread(self._thread.shutdown)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The handler of `GET /export`."""
        auditor = request[CALLER]
        auditors = self._config.api.auditors
        if not auditors or not applies_to(auditors, auditor):
            log.warning("%s asks for the whole log and is none of api.auditors", auditor)
            raise web.HTTPForbidden(text="the whole log is for auditors (api.auditors)\n")
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        answer = web.StreamResponse(headers=headers)
        answer.content_type = "application/jsonl"
        with self._turn(self._holder(auditor)):
            await self._send(request, answer, packed)
        return answer

    def _holder(self, auditor: str) -> str:
        """Whose turn it is: a partner names as many identities as it likes."""
        domain = SpiffeId.parse(auditor).trust_domain
        return auditor if domain == self._config.monitor.trust_domain else domain

    @contextmanager
    def _turn(self, holder: str) -> Iterator[None]:
        if holder in self._asking or len(self._asking) >= EXPORTS:
            raise web.HTTPServiceUnavailable(text="another export is under way\n", headers={"Retry-After": "5"})
        self._asking.add(holder)
        try:
            yield
        finally:
            self._asking.discard(holder)

    async def _send(self, request: web.Request, answer: web.StreamResponse, packed: bool) -> None:
        """Raises LedgerError before anything was sent; afterwards the answer ends without its end, and shows it."""
        loop = asyncio.get_running_loop()
        chunks = _chunks(self._config, packed)
        try:
            chunk = await loop.run_in_executor(self._thread, _next, chunks)
            await answer.prepare(request)
            while chunk is not None:
                async with asyncio.timeout(STALLED_S):
                    await answer.write(chunk)
                chunk = await loop.run_in_executor(self._thread, _next, chunks)
            await answer.write_eof()
        except (LedgerError, OSError) as e:  # a TimeoutError is an OSError
            if not answer.prepared:
                raise
            log.error("the export for %s was broken off: %s", request[CALLER], e or "nobody reads it")
            if request.transport is not None:
                request.transport.abort()
        finally:
            # In the same thread, so after what is still being read.
            self._thread.submit(chunks.close)


def _next(chunks: Generator[bytes]) -> bytes | None:
    return next(chunks, None)


def _chunks(config: Config, packed: bool) -> Generator[bytes]:
    pack = zlib.compressobj(_PACK, zlib.DEFLATED, _GZIP) if packed else None
    with closing(SqliteReader(config.ledger.path)) as reader:
        began = time.monotonic()
        for block in export_blocks(reader, cut(reader)):
            data = b"".join(block)
            if pack is not None:
                data = pack.compress(data)
            if data:
                time.sleep(max(PAUSE_S, time.monotonic() - began))
                yield data
                began = time.monotonic()
        if pack is not None:
            yield pack.flush()
