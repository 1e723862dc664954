"""The HTTP side of a witness: `POST /add-checkpoint`, answered by a `WitnessDesk` in one thread."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from ...evidence.witness import MAX_REQUEST, WitnessDesk
from ...formats.errors import LedgerError, UsageError

log = logging.getLogger(__name__)

IDLE_S = 60.0
WAITING = 256


class WitnessService:
    """Serves until SIGTERM, SIGINT or `stop`."""

    def __init__(self, desk: WitnessDesk) -> None:
        self._desk = desk
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="witness")
        self._waiting = 0
        self._stopping = asyncio.Event()

    async def run(self, host: str, port: int, context: ssl.SSLContext | None, ready: Callable[[], None]) -> None:
        """Listen on host:port; `ready` is called when that is so. Raises UsageError if it cannot be."""
        app = web.Application(client_max_size=MAX_REQUEST)
        app.router.add_post("/add-checkpoint", self._add_checkpoint)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_S, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
            ready()
            await self._stopping.wait()
        except OSError as e:
            raise UsageError(f"{host}:{port} cannot be listened on: {e.strerror or e}") from None
        finally:
            await runner.cleanup()
            await asyncio.to_thread(self._thread.shutdown)

    async def _add_checkpoint(self, request: web.Request) -> web.Response:
        if self._waiting >= WAITING:
            return web.Response(status=503, text="too many requests wait\n", headers={"Retry-After": "1"})
        body = await request.read()
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._thread, self._desk.add_checkpoint, body)
        except LedgerError as e:
            log.error("%s", e)
            return web.Response(status=500, text="the state cannot be written\n")
        finally:
            self._waiting -= 1
        if answer.status == 422:
            log.error("a log shows another history than before: %s", answer.body.strip())
        # The content type stands without a charset: for the size of 409 it is the whole header that the document gives.
        headers = {"Content-Type": answer.content_type}
        return web.Response(status=answer.status, body=answer.body.encode(), headers=headers)
