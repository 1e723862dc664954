"""Evidence between monitors, apart from the requests that it is about: delivered before them, fetched after them.

A caller's monitor delivers its node and BETs for a request that must not be touched: `PUT /deliveries/REQUEST`, where
REQUEST is the digest of that request (`addons.delegate.request_digest`), with `execution_context` and
`behavioral_evidence`, lists of tokens. 204: they wait for the request, which takes them once; 409: others do already;
503: too much waits. It fetches what the local agent's monitor has to say once a stream has ended, or where the answer
must not be touched either: `GET /delegations/JTI`, where JTI is that of the node it sent; 404: nothing is there for it.

What waits belongs to the caller's SPIFFE ID: nobody delivers for another's request, or fetches another's evidence. Only
those may call whom a binding could let delegate. Nothing is believed of what is delivered: the request that takes it is
admitted, or not, as if it had brought the lines itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from typing import Any

from aiohttp import web

from ...bindings.model import ActionType, Binding
from ...bindings.subjects import applies_to
from ...certs.callers import CALLER, Callers
from ...evidence.admission import MAX_LINES
from ...evidence.deposit import Deposit
from ...evidence.entry import Tokens
from ...formats import strict_json
from ...formats.errors import FormatError, VerificationError
from ..config import Config

log = logging.getLogger(__name__)

MAX_DELIVERY = 256 * 1024
READ_S = 5.0
DELIVERED_S = 30.0
LEFT_S = 60.0
_NAME = re.compile("[A-Za-z0-9_-]{1,64}")
_LINE = re.compile("[!-~]+")
_FRESH = {"Cache-Control": "no-store"}


class EvidenceListener:
    """`bindings` are those in force."""

    def __init__(self, config: Config, bindings: Callable[[], Iterable[Binding]]) -> None:
        """Raises VerificationError for the revocation list."""
        self._bindings = bindings
        self._callers = Callers(config.listener("evidence"), MAX_DELIVERY)
        self._delivered, self._left = Deposit(DELIVERED_S), Deposit(LEFT_S)
        router = self._callers.app.router
        router.add_put("/deliveries/{name}", self._deliver)
        router.add_get("/delegations/{name}", self._fetch)
        self.start, self.stop = self._callers.start, self._callers.stop

    def take(self, peer: str, request: str) -> Tokens:
        """What `peer` delivered for this request of its own, once; nothing if it did not."""
        return self._delivered.take(peer, request, time.monotonic()) or Tokens()

    def leave(self, peer: str, nodes: Iterable[str], tokens: Tokens) -> None:
        """Let `peer` fetch what there is to say of the delegations with these nodes of its own."""
        for node in nodes:
            if problem := self._left.put(peer, node, tokens, time.monotonic()):
                log.error("the evidence about the delegation %s cannot be fetched by %s: %s", node, peer, problem)

    async def _deliver(self, request: web.Request) -> web.Response:
        name = self._named(request)
        try:
            async with asyncio.timeout(READ_S):
                tokens = read_tokens(await request.read())
        except TimeoutError:
            return web.Response(status=408, text=f"the body did not come within {READ_S:g} seconds\n")
        except FormatError as e:
            return web.Response(status=400, text=f"{e}\n")
        problem = self._delivered.put(request[CALLER], name, tokens, time.monotonic())
        if problem:
            return web.Response(status=503 if problem.startswith("too much") else 409, text=f"{problem}\n")
        return web.Response(status=204)

    async def _fetch(self, request: web.Request) -> web.Response:
        tokens = self._left.look(request[CALLER], self._named(request), time.monotonic())
        if tokens is None:
            return web.Response(status=404, text="there is nothing for you under this name\n")
        return web.json_response(asdict(tokens), headers=_FRESH)

    def _named(self, request: web.Request) -> str:
        caller, name = request[CALLER], request.match_info["name"]
        if not may_delegate(self._bindings(), caller):
            log.warning("%s may not delegate: %s %s is refused", caller, request.method, request.path)
            raise VerificationError(f"{caller} may not delegate to the agent of this monitor")
        if not _NAME.fullmatch(name):
            raise web.HTTPNotFound(text="expected a digest or a jti\n")
        return name


def may_delegate(bindings: Iterable[Binding], caller: str) -> bool:
    """Whether this caller is a monitor of whose delegations a binding says anything: else they are all denied."""
    return "/monitor/" in caller and any(
        applies_to(binding.subjects, caller)
        and any(ActionType.DELEGATION in behavior.observable_actions for behavior in binding.behaviors)
        for binding in bindings
    )


def read_tokens(data: bytes) -> Tokens:
    """Tokens as one monitor sends them to another. Raises FormatError."""
    found: dict[str, Any] = strict_json.loads_object(data)
    known = [field.name for field in fields(Tokens)]
    if set(found) != set(known):
        raise FormatError(f"expected an object with {' and '.join(known)}, found {', '.join(found)[:100] or 'nothing'}")
    for name, lines in found.items():
        if not isinstance(lines, list) or not all(isinstance(line, str) and _LINE.fullmatch(line) for line in lines):
            raise FormatError(f"{name} is no list of tokens")
        if len(lines) > MAX_LINES:
            raise FormatError(f"{name} has {len(lines)} tokens, more than {MAX_LINES}")
    return Tokens(**{name: tuple(lines) for name, lines in found.items()})
