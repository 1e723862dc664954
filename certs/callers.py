"""A listener over mutual TLS: who calls is looked at with every request.

TLS 1.3 with the server's certificate; a client certificate of the trust domain is required. What goes wrong inside is
not told outside.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ..formats.errors import LedgerError, UsageError, VerificationError
from .contexts import listener_context, trust_partners
from .identities import Identities
from .partners import Federated, Partners
from .revocation import RevocationList

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
SILENT_S = 10.0
"""How long after the time for its handshake a connection may bring no whole request."""
IDLE_S = 30.0
CONNECTIONS = 128
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CALLER = web.RequestKey("caller", str)
"""The SPIFFE ID of whoever calls."""


@dataclass(frozen=True, slots=True)
class Listener:
    """What a listener shows and whom it lets in: PEM files, and the trust domain of callers. `name` is for messages.

    Callers of the trust domains of `partners` are let in too.
    """

    name: str
    cert: Path
    key: Path
    ca: Path
    crl: Path
    trust_domain: str
    partners: tuple[Federated, ...] = ()

    def partners_of(self, revoked: RevocationList) -> Partners | None:
        """Their bundles, if there are any."""
        return Partners(revoked.ca, self.partners) if self.partners else None


class Callers:
    """Serves `app`; add to it what is served, then start."""

    def __init__(self, listener: Listener, max_body: int) -> None:
        """Raises VerificationError for the revocation list."""
        self._listener = listener
        revoked = RevocationList(listener.crl, listener.ca.read_bytes())
        self._partners = listener.partners_of(revoked)
        self._identities = Identities(listener.trust_domain, revoked, self._partners)
        self.app = web.Application(middlewares=[self._guarded], client_max_size=max_body)
        self._runner = web.AppRunner(self.app, access_log=None, keepalive_timeout=IDLE_S, shutdown_timeout=1.0)
        self._server: asyncio.Server | None = None
        self._silent: dict[int, asyncio.TimerHandle] = {}
        """What ends the connections that have brought no request yet."""

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises UsageError if that cannot be."""
        context = listener_context(self._listener.cert, self._listener.key, self._listener.ca)
        if self._partners is not None:
            trust_partners(context, self._partners)
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._protocol, host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError as e:
            text = f"{self._listener.name}: {host}:{port} cannot be listened on: {e.strerror or e}"
            raise UsageError(text) from None

    def _protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= CONNECTIONS:
            return _Full()
        made = server()
        end = asyncio.get_running_loop().call_later(HANDSHAKE_S + SILENT_S, self._end_silent, made)
        self._silent[id(made)] = end
        return made

    def _end_silent(self, connection: web.RequestHandler) -> None:
        del self._silent[id(connection)]
        connection.force_close()

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        for end in self._silent.values():
            end.cancel()
        await self._runner.cleanup()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if (end := self._silent.pop(id(request.protocol), None)) is not None:
            end.cancel()
        try:
            request[CALLER] = self._identify(request)
            return await handler(request)
        except VerificationError as e:
            refused = web.Response(status=403, text=f"{e}\n")
            refused.force_close()
            return refused
        except LedgerError as e:
            log.error("%s: %s", self._listener.name, e)
            return web.Response(status=500, text="the log cannot be read or written\n")

    def _identify(self, request: web.Request) -> str:
        session = request.transport and request.transport.get_extra_info("ssl_object")
        der = session.getpeercert(binary_form=True) if session else None
        if der is None:
            raise VerificationError("a client certificate of the trust domain is required")
        return self._identities.client(der, datetime.datetime.now(datetime.UTC)).spiffe_id


class _Full(asyncio.Protocol):
    """Ends a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
