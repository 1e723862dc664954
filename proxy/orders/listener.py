"""Orders from afar: what the operator decides, for the SPIFFE IDs that the configuration lists, each what it may.

A listener apart from the log's: that one is for every identity of the trust domain, and whoever reads much there must
not be in the way of an order. `GET /orders` says what there is; `GET /orders/NAME` for what only asks and
`POST /orders/NAME` with a JSON object for what changes something answer `{"ok": true, "result": …}`, or
`{"ok": false, "error": TEXT}` with 400 for an order that makes no sense, 403 for a caller that may give none. Each
change is an entry with the caller's SPIFFE ID; it is durable when the answer comes. The Verifier to which evidence is
pushed (`verifier.name`) may demand evidence (`bet`), and nothing else unless it is listed. Who may give an order may
ask for what it is about (`ASKING`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ...certs.callers import CALLER, Callers
from ...formats import strict_json
from ...formats.errors import FormatError, UsageError, VerificationError
from ..config import Config
from .catalogue import Order

log = logging.getLogger(__name__)

MAX_ORDER = 64 * 1024
DEMAND = "bet"
ASKING = {
    "quarantined": frozenset(("quarantine", "release")),
    "waiting": frozenset(("decide",)),
    "standing": frozenset(("decide", "revoke")),
    "delegations": frozenset(("revoke_delegation",)),
    "holds": frozenset(("hold", "unhold")),
}
"""What only asks, and the orders of which a caller must be allowed one."""
_FRESH = {"Cache-Control": "no-store"}


class OrderListener:
    """`allowed`: who may give orders (SPIFFE IDs), and which."""

    def __init__(self, config: Config, allowed: Mapping[str, frozenset[str]], orders: Mapping[str, Order]) -> None:
        """Raises VerificationError for the revocation list."""
        self._allowed = dict(allowed)
        if config.verifier is not None:
            self._allowed[config.verifier.name] = self._allowed.get(config.verifier.name, frozenset()) | {DEMAND}
        self._orders = orders
        self._callers = Callers(config.listener("orders"), MAX_ORDER)
        router = self._callers.app.router
        router.add_get("/orders", self._list)
        router.add_get("/orders/{name}", self._ask)
        router.add_post("/orders/{name}", self._give)
        self.start, self.stop = self._callers.start, self._callers.stop

    def _caller(self, request: web.Request) -> str:
        """Who calls, if it may give this order. One that there is not is for those who may give any."""
        caller, name = request[CALLER], request.match_info.get("name", "")
        allowed = self._allowed.get(caller, frozenset())
        if not allowed:
            log.warning("%s may give no orders: %s %s is refused", caller, request.method, request.path)
            raise VerificationError(f"{caller} may give no orders to this monitor")
        if name in self._orders and not _may(allowed, name):
            log.warning("%s may not give this order: %s %s is refused", caller, request.method, request.path)
            raise VerificationError(f"{caller} may not give the order {name} to this monitor")
        return caller

    async def _list(self, request: web.Request) -> web.Response:
        allowed = self._allowed[self._caller(request)]
        names = [name for name in self._orders if _may(allowed, name)]
        return _good({"ask": [n for n in names if n in ASKING], "order": [n for n in names if n not in ASKING]})

    async def _ask(self, request: web.Request) -> web.Response:
        return await self._work(request, request.match_info["name"] in ASKING, {})

    async def _give(self, request: web.Request) -> web.Response:
        self._caller(request)
        try:
            arguments = strict_json.loads_object(await request.read())
        except FormatError as e:
            return _bad(f"expected a JSON object: {e}")
        return await self._work(request, request.match_info["name"] not in ASKING, arguments)

    async def _work(self, request: web.Request, known: bool, arguments: dict[str, Any]) -> web.Response:
        caller, order = self._caller(request), self._orders.get(request.match_info["name"])
        if order is None or not known:
            return _bad(f"there is no such order for {request.method}; GET /orders lists them", 404)
        try:
            return _good(await order(arguments, caller))
        except UsageError as e:
            return _bad(str(e))


def _may(allowed: frozenset[str], name: str) -> bool:
    return bool(allowed & ASKING[name]) if name in ASKING else name in allowed


def _good(result: Any) -> web.Response:
    return web.json_response({"ok": True, "result": result}, headers=_FRESH)


def _bad(text: str, status: int = 400) -> web.Response:
    return web.json_response({"ok": False, "error": text}, status=status, headers=_FRESH)
