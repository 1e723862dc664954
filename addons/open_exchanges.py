"""The exchanges of this worker that were let out and have not ended: answers that are read, streams, tunnels.

When other rules come into force each of them is judged again, as it was classified then, and those that are denied now
are ended at once. Behaviors with a memory are not asked again: they said what may begin.

Whoever lets an exchange out calls `settling.permit`, and `Outcome.send` once it has ended; that is all it takes. An
exchange may last as long as its connection (a WebSocket, a tunnel): its `classified` is what it was judged by when it
began. What is ended is the client's connection: where that carries several exchanges (HTTP/2), they end together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from mitmproxy import connection, http

from ..bindings.model import Verdict
from ..bindings.policy import Policy
from .drafting import as_action
from .exchange import Exchange

log = logging.getLogger(__name__)

POLICY_CHANGED = "policy_changed"
REVOKED = "revoked"


class OpenExchanges:
    """Costs an exchange one insertion and one deletion. `cut` ends a client's connections at once."""

    def __init__(self, policy: Callable[[], Policy], cut: Callable[[connection.Client], None]) -> None:
        self._policy = policy
        self._cut = cut
        self._open: dict[int, tuple[connection.Client, Exchange]] = {}
        self._changed = 0.0
        """When other rules last came into force (monotonic)."""

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """The exchange has its permit. If the rules changed after it was begun they are asked again, here and now."""
        self._open[id(exchange)] = flow.client_conn, exchange
        if exchange.started <= self._changed and (why := self._denied(exchange)) is not None:
            self.end((flow.client_conn,), why)

    def leave(self, exchange: Exchange) -> None:
        """Its outcome is said."""
        self._open.pop(id(exchange), None)

    def judge_again(self) -> None:
        """Other rules are in force: end what they deny."""
        self._changed = time.monotonic()
        denied = {}
        for client, exchange in self._open.values():
            why = self._denied(exchange)
            if why is not None:
                denied[client.id] = client, why
        self._end(denied)

    def end(self, clients: Iterable[connection.Client], why: str) -> None:
        """End these clients' connections, idle ones too; the outcomes of what was open on them say `why`."""
        self._end({client.id: (client, why) for client in clients})

    def _end(self, clients: Mapping[str, tuple[connection.Client, str]]) -> None:
        if not clients:
            return
        for client, exchange in self._open.values():
            if client.id in clients:
                exchange.ended_by = clients[client.id][1]
        for client, why in clients.values():
            log.warning("ending a connection from %s: %s", client.peername, why)
            self._cut(client)

    def _denied(self, exchange: Exchange) -> str | None:
        """Why the exchange may not go on, or None."""
        try:
            policy = self._policy()
            decisions = [policy.judge(as_action(exchange, action)) for action in exchange.classified]
        except Exception:
            log.exception("an open exchange cannot be judged again: it is ended")
            return "monitor_error"
        return POLICY_CHANGED if any(decision.verdict is Verdict.DENY for decision in decisions) else None
