"""The exchanges of this worker that were let out and have not ended: answers that are read, streams, tunnels.

When other rules come into force each of them is judged again, as it was classified then, and those that are denied now
are ended at once. Behaviors with a memory are not asked again: they said what may begin.

Whoever lets an exchange out calls `settling.permit`, and `Outcome.send` once it has ended; that is all it takes. An
exchange may last as long as its connection (a WebSocket, a tunnel): its `classified` is what it was judged by when it
began. What is ended is the client's connection: where that carries several exchanges (HTTP/2), they end together.

Exchanges that are held, so that a person decides, are here too: those whose client is gone, and those that other rules
deny, are withdrawn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from mitmproxy import connection, http

from ..bindings.model import Verdict
from ..bindings.policy import QUARANTINED, Policy
from ..evidence.held import APPROVED, APPROVED_ALWAYS
from .drafting import as_action
from .exchange import Exchange

log = logging.getLogger(__name__)

POLICY_CHANGED = "policy_changed"
REVOKED = "revoked"
CALLER_GONE = "caller_gone"
MAX_ENDED = 1 << 16


class OpenExchanges:
    """Costs an exchange one insertion and one deletion. `cut` ends a client's connections at once.

    `withdraw` tells the control process that nobody waits for the held action of an entry any more, and why.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        cut: Callable[[connection.Client], None],
        withdraw: Callable[[int, str], None],
    ) -> None:
        self._policy = policy
        self._cut = cut
        self._withdraw = withdraw
        self._open: dict[int, tuple[connection.Client, Exchange]] = {}
        self._held: dict[int, tuple[connection.Client, Exchange, list[int]]] = {}
        self._changed = 0.0
        """When other rules last came into force (monotonic)."""
        self._ended: dict[int, str] = {}
        """The entries of actions that were to be ended, of whichever worker, and why; the oldest are forgotten."""

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """The exchange has its permit. If the rules changed after it was begun they are asked again, here and now."""
        self._open[id(exchange)] = flow.client_conn, exchange
        why = self._denied(exchange) if exchange.started <= self._changed else None
        if self._ended and why is None:
            why = self._why_ended(exchange)
        if why is not None:
            self.end((flow.client_conn,), why)

    def leave(self, exchange: Exchange) -> None:
        """Its outcome is said."""
        self._open.pop(id(exchange), None)

    def hold(self, flow: http.HTTPFlow, exchange: Exchange, seq: int) -> None:
        """An action of the exchange waits for a decision."""
        if flow.client_conn.state is connection.ConnectionState.CLOSED:
            self._withdraw(seq, CALLER_GONE)
            return
        self._held.setdefault(id(exchange), (flow.client_conn, exchange, []))[2].append(seq)

    def decided(self, exchange: Exchange) -> None:
        """Its receipts are in."""
        if self._held:
            self._held.pop(id(exchange), None)

    def client_disconnected(self, client: connection.Client) -> None:
        for waiting in [one for one in self._held.values() if one[0].id == client.id]:
            self._take_back(*waiting, CALLER_GONE)

    def _take_back(self, client: connection.Client, exchange: Exchange, seqs: list[int], why: str) -> None:
        del self._held[id(exchange)]
        for seq in seqs:
            self._withdraw(seq, why)

    def judge_again(self) -> None:
        """Other rules are in force: end what they deny."""
        self._changed = time.monotonic()
        for waiting in list(self._held.values()):
            why = self._denied(waiting[1], held=True)
            if why is not None:
                self._take_back(*waiting, why)
        denied = {}
        for client, exchange in self._open.values():
            why = self._denied(exchange)
            if why is not None:
                denied[client.id] = client, why
        self._end(denied)

    def end_actions(self, ended: Iterable[int], why: str) -> None:
        """End the exchanges of these entries, also those that have their permit only later."""
        self._ended |= dict.fromkeys(ended, why)
        for entry in list(islice(self._ended, max(0, len(self._ended) - MAX_ENDED))):
            del self._ended[entry]
        found = {}
        for client, exchange in self._open.values():
            reason = self._why_ended(exchange)
            if reason is not None and exchange.ended_by is None:
                found[client.id] = client, reason
        self._end(found)

    def _why_ended(self, exchange: Exchange) -> str | None:
        return next((self._ended[one.seq] for one in exchange.receipts if one.seq in self._ended), None)

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

    def _denied(self, exchange: Exchange, *, held: bool = False) -> str | None:
        """Why the exchange may not go on, or None. What would be held by now ends too, unless a person let it out."""
        try:
            policy = self._policy()
            if exchange.agent_id in policy.quarantined or exchange.callee in policy.quarantined:
                return QUARANTINED
            decisions = [policy.judge(as_action(exchange, action)) for action in exchange.classified]
        except Exception:
            log.exception("an open exchange cannot be judged again: it is ended")
            return "monitor_error"
        held = held or any(receipt.reason in (APPROVED, APPROVED_ALWAYS) for receipt in exchange.receipts)
        most = Verdict.HOLD if held else Verdict.FLAG
        return POLICY_CHANGED if any(decision.verdict.weight > most.weight for decision in decisions) else None
