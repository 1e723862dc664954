"""Evidence that goes to, and comes from, the monitor of another agent apart from the request that it is about.

The caller's end; the callee's is `evidence_listener`. The catalog says where that monitor is met (`evidence`) and who
it is (`monitor`): another server is sent nothing, and believed nothing.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import asdict

import aiohttp
import orjson

from ...bindings.target import Target
from ...certs.contexts import client_context
from ...certs.servers import ExpectedServer
from ...evidence.entry import Tokens
from ...formats.errors import FormatError, LictorError, UsageError
from ..config import Config
from .evidence_listener import MAX_DELIVERY, read_tokens

log = logging.getLogger(__name__)

DELIVERY_S = 5.0
FETCH_S = 5.0
PAUSES_S = (0.1, 0.5, 1.5)
IDLE_S = 15.0
"""Less than the other side keeps a connection open, so that it is not the one to end it while we write."""
CONNECTIONS = 8
FETCHES = 256
"""Fetches at a time: agents can begin more of them than a monitor that is slow answers."""


class HandingOver:
    """Runs in the event loop of the control process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._targets = {target.urn: target for target in config.targets if target.evidence is not None}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None
        self._fetching = 0

    async def stop(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()

    async def deliver(self, urn: str, request: str, tokens: Tokens) -> str:
        """Have the monitor in front of the target `urn` keep `tokens` for a request; "", or why it does not."""
        target = self._targets.get(urn)
        if target is None:
            return "the catalog does not say where its monitor takes evidence"
        body = orjson.dumps(asdict(tokens))
        try:
            async with asyncio.timeout(DELIVERY_S):
                status, said = await self._ask(target, "PUT", f"deliveries/{request}", body)
        except (LictorError, aiohttp.ClientError, OSError) as e:  # a TimeoutError is an OSError
            return f"its monitor {target.monitor} cannot be reached at {target.evidence}: {_text(e)}"
        if status == 204:
            return ""
        answer = said[:200].decode("utf-8", "replace").strip()
        return f"its monitor {target.monitor} does not take the evidence: {status} {answer}"

    async def fetch(self, urn: str, node: str) -> Tokens | None:
        """What the monitor in front of the target `urn` says of the delegation with this node; None if nothing."""
        target = self._targets.get(urn)
        if target is None:
            return None
        if self._fetching >= FETCHES:
            log.warning("no evidence of %s about the delegation %s: too much is fetched already", target.monitor, node)
            return None
        self._fetching += 1
        try:
            async with asyncio.timeout(FETCH_S):
                return await self._fetch(target, node)
        except (LictorError, aiohttp.ClientError, OSError) as e:
            log.warning("no evidence of %s about the delegation %s: %s", target.monitor, node, _text(e))
            return None
        finally:
            self._fetching -= 1

    async def _fetch(self, target: Target, node: str) -> Tokens:
        for pause in (*PAUSES_S, None):
            try:
                status, data = await self._ask(target, "GET", f"delegations/{node}")
                if status != 200:
                    raise UsageError(f"it answers {status}")
                return read_tokens(data)
            except (aiohttp.ClientError, OSError):
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last one has no pause")

    async def _ask(self, target: Target, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer. Raises LictorError, ClientError and OSError."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit_per_host=CONNECTIONS, keepalive_timeout=IDLE_S)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        url = f"{target.evidence}/{path}"
        async with self._session.request(
            method, url, data=body, headers=headers, ssl=self._context(target), allow_redirects=False
        ) as answer:
            data = bytearray()
            async for chunk in answer.content.iter_chunked(65536):
                data += chunk
                if len(data) > MAX_DELIVERY:
                    raise FormatError(f"its answer has more than {MAX_DELIVERY} octets")
            return answer.status, bytes(data)

    def _context(self, target: Target) -> ssl.SSLContext:
        """TLS as this monitor, to that one and no other."""
        assert target.monitor is not None
        context = self._contexts.get(target.monitor)
        if context is None:
            listener = self._config.listener("evidence")
            context = client_context(listener.ca, listener.cert, listener.key)
            known = listener.trust_domain, listener.ca, listener.crl, listener.partners
            ExpectedServer(target.monitor, *known).watch(context)
            self._contexts[target.monitor] = context
        return context


def _text(error: BaseException) -> str:
    """What went wrong, without the object of ours that aiohttp writes before it."""
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    return (
        (getattr(inner, "strerror", None) if isinstance(inner, OSError) else None) or str(inner) or "no answer in time"
    )
