"""The log for outsiders, read-only: checkpoint and tiles (c2sp.org/tlog-tiles), keys, what the monitor is, health.

A listener of its own in the control process (`certs.callers`), for every identity of the trust domain; of partners for
auditors and the Verifier that the configuration names, who are not told how the monitor fares. The files are
read in one thread through a connection of its own, so what is asked here never waits in the ledger's way; when too
much waits for that thread, more is refused with 503. The whole log is for auditors (`exporting`).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from ...certs.callers import CALLER, Callers
from ...evidence import description
from ...evidence.description import newest_token
from ...evidence.sqlite_store import SqliteReader
from ...evidence.tiles import Tile, read_tile
from ...formats import strict_json
from ...formats.errors import FormatError, VerificationError
from ..config import Config
from .exporting import Exporting

log = logging.getLogger(__name__)

WAITING = 64
PACE_S = 0.005
"""Pause of the reading thread after each answer: whoever reads as fast as he can leaves the processor to the ledger."""
FOREVER = "max-age=31536000, immutable"


class Api:
    """The listener. `health` adds to what `/healthz` says."""

    def __init__(self, config: Config, health: Callable[[], dict[str, Any]]) -> None:
        """Raises UsageError if the ledger cannot be read, VerificationError for the revocation list."""
        self._config = config
        self._health = health
        self._callers = Callers(config.listener("api"), 1024)
        self._reader = SqliteReader(config.ledger.path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="api")
        self._exporting = Exporting(config)
        self._waiting = 0
        router = self._callers.app.router
        router.add_get("/checkpoint", self._checkpoint)
        router.add_get("/tile/{path:.+}", self._tile)
        router.add_get("/jwks.json", self._jwks)
        router.add_get("/monitor", self._monitor)
        router.add_get("/healthz", self._healthz)
        router.add_get("/export", self._exporting.serve, allow_head=False)

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises UsageError if that cannot be."""
        await self._callers.start(host, port)

    async def stop(self) -> None:
        """Stop listening and give the ledger back."""
        await self._callers.stop()
        await self._exporting.stop()
        await asyncio.to_thread(self._thread.shutdown)
        self._reader.close()

    async def _read[T](self, read: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise web.HTTPServiceUnavailable(text="too many requests wait\n", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, _paced, read)
        finally:
            self._waiting -= 1

    async def _checkpoint(self, request: web.Request) -> web.Response:
        note = await self._read(lambda: served_checkpoint(self._reader, self._config.witnessing.quorum))
        if note is None:
            raise web.HTTPNotFound(text="there is no checkpoint yet\n")
        return web.Response(text=note, headers={"Cache-Control": "max-age=1"})

    async def _tile(self, request: web.Request) -> web.Response:
        try:
            tile = Tile.parse(request.match_info["path"])
            if tile.level is None and not self._config.api.entries:
                raise web.HTTPForbidden(text="entries are not served here (api.entries)\n")
            packed = tile.level is None and "gzip" in request.headers.get("Accept-Encoding", "")
            data = await self._read(lambda: self._octets(tile, packed))
        except FormatError as e:
            raise web.HTTPNotFound(text=f"{e}\n") from None
        if data is None:
            raise web.HTTPNotFound(text="the log has no such tile, or not yet\n")
        # Nobody but the one who asked may keep entries; hashes may be kept by whoever carries them.
        headers = {"Cache-Control": f"{'private' if tile.level is None else 'public'}, {FOREVER}"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        if tile.level is None:
            headers["Vary"] = "Accept-Encoding"
        return web.Response(body=data, content_type="application/octet-stream", headers=headers)

    def _octets(self, tile: Tile, packed: bool) -> bytes | None:
        data = read_tile(self._reader, tile)
        return gzip.compress(data, 1, mtime=0) if packed and data is not None else data

    async def _jwks(self, request: web.Request) -> web.Response:
        keys = await self._read(lambda: [strict_json.loads_object(d.data) for d in self._reader.documents("key")])
        body = json.dumps({"keys": keys})
        return web.Response(text=body, content_type="application/jwk-set+json", headers={"Cache-Control": "max-age=60"})

    async def _monitor(self, request: web.Request) -> web.Response:
        token = await self._read(lambda: newest_token(self._reader))
        if token is None:
            raise web.HTTPNotFound(text="the monitor has not described itself yet\n")
        headers = {"Content-Type": f"application/{description.TYP}", "Cache-Control": "max-age=1"}
        return web.Response(body=token.encode(), headers=headers)

    async def _healthz(self, request: web.Request) -> web.Response:
        if not request[CALLER].startswith(f"spiffe://{self._config.monitor.trust_domain}/"):
            raise VerificationError("this is for the monitor's own trust domain")
        head = await self._read(self._reader.head)
        body = {"status": "ok", "size": head.size if head is not None else 0, **self._health()}
        return web.json_response(body, headers={"Cache-Control": "no-store"})


def _paced[T](read: Callable[[], T]) -> T:
    found = read()
    time.sleep(PACE_S)
    return found


def served_checkpoint(reader: SqliteReader, quorum: int) -> str | None:
    """The newest checkpoint with enough cosignatures; while there is none, that of the log's end."""
    for row in reader.cosigned():
        if row.cosignatures >= quorum:
            return row.note
    return reader.last_checkpoint()
