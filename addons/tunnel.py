"""Tunnels that are not intercepted: each is one action, judged by its server name and recorded before it opens."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from ..bindings.classification import tunnel
from ..bindings.model import Decision, Verdict
from ..bindings.policy import Policy
from ..engine.problem import Problem
from ..engine.tunnel_layer import Tunnel
from ..evidence.entry import Receipt
from ..formats.errors import LictorError, VerificationError
from .drafting import as_action, draft
from .exchange import Control, Exchange, Tally, exchange_of
from .guard import is_address
from .identify import Identify
from .open_exchanges import OpenExchanges
from .outcome import Outcome
from .settling import permit

log = logging.getLogger(__name__)


class Tunnels:
    """What becomes of a CONNECT to a target that has `passthrough`."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        identify: Identify,
        control: Control,
        outcome: Outcome,
        open_exchanges: OpenExchanges,
    ) -> None:
        self._policy = policy
        self._identify = identify
        self._control = control
        self._outcome = outcome
        self._open = open_exchanges

    def tunnel_opening(self, opening: Tunnel) -> Awaitable[None] | None:
        exchange = exchange_of(opening.flow)
        if exchange is None or exchange.permit is not None:
            raise ValueError("a tunnel without an exchange of its own")
        try:
            self._identify.peer(opening.flow.client_conn)
        except VerificationError as e:
            log.warning("refused a tunnel: %s", e)
            return None
        policy = self._policy()
        target = policy.catalog.passthrough(exchange.host, exchange.port)
        if target is None:
            raise ValueError("a tunnel to what is intercepted by now")
        action = tunnel(target, exchange.host, exchange.port)
        exchange.classified = (action,)
        problem = opening.problem or _other_name(exchange, opening.server_name)
        if problem is not None:
            decision = Decision(Verdict.DENY, problem.reason, (), problem.text)
        else:
            decision = policy.judge(as_action(exchange, action))
        kept = policy.kept(as_action(exchange, action))
        entry = draft(opening.flow.request, exchange, action, decision, kept)
        held = partial(self._open.hold, opening.flow, exchange)
        return self._control.record_action(
            entry, lambda answer: self._settle(opening, exchange, decision, answer), held
        )

    def tunnel_ended(self, ended: Tunnel) -> None:
        exchange = exchange_of(ended.flow)
        if exchange is None or exchange.permit is None:
            return
        more: dict[str, object] = {"request_bytes": ended.passed["out"], "response_bytes": ended.passed["in"]}
        if ended.closed_by is not None:
            more["closed_by"] = "monitor" if exchange.ended_by is not None else ended.closed_by
        complete = not ended.error and exchange.ended_by is None
        self._outcome.send(exchange, 0, complete=complete, error=ended.error[:200] or None, more=more)

    def _settle(self, opening: Tunnel, exchange: Exchange, decision: Decision, answer: Receipt | LictorError) -> None:
        self._open.decided(exchange)
        allowed = isinstance(answer, Receipt) and answer.decision in (Verdict.ALLOW, Verdict.FLAG)
        if isinstance(answer, Receipt):
            exchange.receipts = (answer,)
        if decision.denied or not allowed:
            exchange.refused = True
            return
        exchange.request_tally = Tally(exchange.salt)  # nothing of it is a body
        permit(opening.flow, exchange, self._open)
        # As the CONNECT's own request says it, so that it is a permit for nothing else.
        exchange.permit = (opening.flow.request.scheme, exchange.host, exchange.port)


def _other_name(exchange: Exchange, server_name: str | None) -> Problem | None:
    """CONNECT and ClientHello must name the same host; an address has no server name."""
    expected = "" if is_address(exchange.host) else exchange.host
    if server_name == expected:
        return None
    return Problem("name_mismatch", f"the TLS server name is {server_name!r}, CONNECT named {exchange.host}")
