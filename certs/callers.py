"""A listener over mutual TLS: who calls is looked at with every request.

TLS 1.3 with the server's certificate; a client certificate of the trust domain is required. What goes wrong inside is
not told outside.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from ..formats.errors import LedgerError, UsageError, VerificationError
from ..formats.spiffe import is_named, trust_domain
from .contexts import listener_context, trust_partners
from .identities import Identities
from .listener import Listener
from .revocation import RevocationList

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
SILENT_S = 10.0
"""How long after its handshake a connection may bring no whole request."""
IDLE_S = 30.0
CONNECTIONS = 128
CONNECTIONS_OF_ONE = 32
"""Of one caller; of a partner's trust domain all callers together, since it names as many as it likes."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CALLER = web.RequestKey("caller", str)
"""The SPIFFE ID of whoever calls."""


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
        self._held_by: dict[web.RequestHandler, str] = {}
        """Whose the open connections are; of those that have ended since the last came, too."""

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
        return _Arriving(self._take)

    def _take(self, transport: asyncio.Transport) -> None:
        """Serve a connection whose handshake is done, unless there are too many, or too many of whoever calls."""
        server, holder = self._runner.server, self._holder(transport)
        connected = server.connections if server is not None else []
        self._held_by = {one: self._held_by[one] for one in connected}
        of_one = list(self._held_by.values()).count(holder)
        if server is None or len(connected) >= CONNECTIONS or of_one >= CONNECTIONS_OF_ONE:
            transport.close()
            return
        made = server()
        self._held_by[made] = holder
        self._silent[id(made)] = asyncio.get_running_loop().call_later(SILENT_S, self._end_silent, made)
        transport.set_protocol(made)
        made.connection_made(transport)

    def _holder(self, transport: asyncio.Transport) -> str:
        """Whom a connection counts for; who is not let in is told so with the first request."""
        try:
            caller = self._identify(transport)
        except VerificationError:
            return ""
        own = self._partners is None or not self._partners.speaks_for(caller)
        return caller if own else trust_domain(caller)

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
            request[CALLER] = self._identify(request.transport)
            return await handler(request)
        except VerificationError as e:
            refused = web.Response(status=403, text=f"{e}\n")
            refused.force_close()
            return refused
        except LedgerError as e:
            log.error("%s: %s", self._listener.name, e)
            return web.Response(status=500, text="the log cannot be read or written\n")

    def _identify(self, transport: asyncio.Transport | None) -> str:
        session = transport and transport.get_extra_info("ssl_object")
        der = session.getpeercert(binary_form=True) if session else None
        if der is None:
            raise VerificationError("a client certificate of the trust domain is required")
        found, listener = self._identities.client(der, datetime.datetime.now(datetime.UTC)), self._listener
        theirs = found.trust_domain != listener.trust_domain
        if theirs and listener.named is not None and not is_named(listener.named, found.spiffe_id):
            raise VerificationError(f"{found.spiffe_id} is of another trust domain, and not named here")
        return found.spiffe_id


class _Arriving(asyncio.Protocol):
    """A connection up to the end of its handshake."""

    def __init__(self, take: Callable[[asyncio.Transport], None]) -> None:
        self._take = take

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._take(cast(asyncio.Transport, transport))  # uvloop's transports are not of this class
