"""The ingress side: in front of a local agent. A caller's evidence is verified before its work reaches the agent.

The peer's certificate says who calls; the bindings of this monitor say whether it may; its `Execution-Context` and
`Behavioral-Evidence` say what stands behind the call. The agent's node comes back on the response, with its evidence.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from mitmproxy import http
from mitmproxy.proxy.mode_specs import ReverseMode

from ..bindings.catalog import Catalog
from ..bindings.classification import classify, needs_body
from ..bindings.criterion import Reads
from ..bindings.facts import Classified, Unclassifiable
from ..bindings.model import Action, ActionType, Decision, Verdict
from ..bindings.policy import CALLEE_IN_QUARANTINE, Policy
from ..bindings.target import Target
from ..engine.problem import problem_of
from ..evidence.admission import examine
from ..evidence.claims import KeyResolver
from ..evidence.entry import Receipt, Tokens
from ..formats.errors import FormatError, LictorError, VerificationError
from ..formats.names import parse_authority, parse_origin_form, url_text
from . import delegate
from .drafting import draft, drop_hop_by_hop, facts_of, method_text, place
from .enforce import Settings
from .exchange import Control, Exchange, Tally, attach, exchange_of
from .guard import NameRefused, check_head
from .identify import Identify
from .open_exchanges import OpenExchanges
from .settling import end_of, permit, refusal, refuse, unrecorded
from .upgrade import read_upgrade

log = logging.getLogger(__name__)
Hooked = Awaitable[None] | None


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """The local agent (SPIFFE ID, URN) and the address under which it is called."""

    agent: str
    urn: str
    address: tuple[str, int]


class Ingress:
    """Judges, records and admits what callers want of the local agent."""

    def __init__(
        self,
        settings: Settings,
        ingress: IngressSettings,
        policy: Callable[[], Policy],
        identify: Identify,
        resolve: KeyResolver,
        control: Control,
        open_exchanges: OpenExchanges,
    ) -> None:
        self._settings = settings
        self._ingress = ingress
        self._policy = policy
        self._identify = identify
        self._resolve = resolve
        self._control = control
        self._open = open_exchanges
        self._catalog = catalog_of(ingress)
        self._accepted = (ingress.agent, settings.monitor_id, ingress.urn)

    def requestheaders(self, flow: http.HTTPFlow) -> Hooked:
        if not isinstance(flow.client_conn.proxy_mode, ReverseMode):
            return None
        try:
            peer = self._identify.peer(flow.client_conn).spiffe_id
        except VerificationError as e:
            log.warning("refused a request: %s", e)
            flow.kill()
            return None
        exchange = Exchange(peer, True, "https", *self._ingress.address, "/", "", salt=self._settings.salt)
        exchange.callee = self._ingress.agent
        attach(flow, exchange)
        problem = problem_of(flow)
        if problem is not None:
            return self._refuse(flow, exchange, problem.reason, problem.text)
        try:
            check_head(flow.request)
            parse_authority(flow.request.headers.get("host", ""), 443)
            exchange.path, exchange.query = parse_origin_form(flow.request.path)
            exchange.upgrade = read_upgrade(flow.request)
            if exchange.upgrade is None and "upgrade" in flow.request.headers:
                raise NameRefused("upgrade_refused", "a connection to an agent is upgraded to WebSocket only")
        except (NameRefused, FormatError) as e:
            return self._refuse(flow, exchange, getattr(e, "reason", "doubtful_name"), str(e))
        drop_hop_by_hop(flow.request.headers)
        if exchange.upgrade is not None:
            exchange.upgrade.offer(flow.request.headers)
        if not needs_body(self._catalog.targets[0], flow.request.method, self._reads(exchange)):
            return self._judge(flow, exchange, None)
        length = flow.request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._settings.judged_body_bytes:
            text = f"the body of {length} bytes is too large to be judged"
            return self._refuse(flow, exchange, "body_too_large", text)
        return None

    def request(self, flow: http.HTTPFlow) -> Hooked:
        exchange = exchange_of(flow)
        if exchange is None or not exchange.inbound or exchange.refused or exchange.permit is not None:
            return None
        return self._judge(flow, exchange, flow.request.raw_content or b"")

    def responseheaders(self, flow: http.HTTPFlow) -> Hooked:
        exchange = exchange_of(flow)
        if exchange is None or not exchange.inbound or not exchange.delegated or exchange.permit is None:
            return None
        return self._control.delegation_response(exchange.receipts[0].node, lambda t: _answer(flow, t))

    def error(self, flow: http.HTTPFlow) -> Hooked:
        exchange = exchange_of(flow)
        if exchange is None:
            return self._never_seen(flow)
        if not exchange.inbound:
            return None
        self._finish(flow)
        if exchange.refused or exchange.receipts:
            return None
        problem = end_of(flow)
        return self._refuse(flow, exchange, problem.reason, problem.text)

    # An answer to what was not judged is that of the dispatcher: a hook has failed.
    response = error

    def _never_seen(self, flow: http.HTTPFlow) -> Hooked:
        """What should have begun its exchange has failed."""
        if not isinstance(flow.client_conn.proxy_mode, ReverseMode):
            return None
        try:
            peer = self._identify.peer(flow.client_conn).spiffe_id
        except VerificationError:
            return None
        exchange = Exchange(peer, True, "https", *self._ingress.address, "/", "", salt=self._settings.salt)
        attach(flow, exchange)
        problem = end_of(flow)
        return self._refuse(flow, exchange, problem.reason, problem.text)

    def _finish(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is not None and exchange.inbound and exchange.delegated and exchange.permit is not None:
            self._control.finish_delegation(exchange.receipts[0].node)

    def _refuse(self, flow: http.HTTPFlow, exchange: Exchange, reason: str, text: str) -> Awaitable[None]:
        action = Classified(ActionType.HTTP_REQUEST, self._ingress.urn, {"method": method_text(flow.request)})
        return self._record(flow, exchange, action, Decision(Verdict.DENY, reason, (), text))

    def _judge(self, flow: http.HTTPFlow, exchange: Exchange, body: bytes | None) -> Hooked:
        try:
            actions = classify(self._catalog, facts_of(flow.request, exchange, body), self._reads(exchange))
        except Unclassifiable as e:
            return self._refuse(flow, exchange, e.reason, str(e))
        if len(actions) > 1:
            return self._refuse(flow, exchange, "batch_not_supported", "A2A has no batches")
        action = actions[0]
        if exchange.upgrade is not None and action.type != ActionType.HTTP_REQUEST:
            return self._refuse(flow, exchange, "upgrade_refused", "work is not handed on over WebSocket")
        if action.type == ActionType.HTTP_REQUEST:
            # Callers reach the agent under different names, so what is judged is the agent's own.
            action = replace(action, target=f"{self._ingress.urn}#{exchange.path}")
        exchange.classified = (action,)
        if exchange.delegated:
            exchange.salt = None
        if body is not None:
            exchange.request_tally = Tally(exchange.salt)
            exchange.request_tally.update(body)
        policy = self._policy()
        decision = policy.judge(
            Action(exchange.agent_id, action.type, action.target, action.parameters, action.content)
        )
        if self._ingress.agent in policy.quarantined:
            decision = CALLEE_IN_QUARANTINE
        if exchange.delegated and not decision.denied:
            return self._admit(flow, exchange, action, decision)
        return self._record(flow, exchange, action, decision)

    def _reads(self, exchange: Exchange) -> Reads:
        return self._policy().reads(exchange.agent_id, self._catalog.targets[0], place(exchange))

    def _admit(
        self, flow: http.HTTPFlow, exchange: Exchange, action: Classified, decision: Decision
    ) -> Awaitable[None]:
        """Verify what came along. The control process checks that it was not taken before, and mints the node."""
        headers = flow.request.headers
        inbound = examine(
            agent_id=self._ingress.agent,
            peer_id=exchange.agent_id,
            action_target=action.target,
            action_parameters=draft(flow.request, exchange, action, decision).action_parameters,
            execution_context=headers.get_all(delegate.EXECUTION_CONTEXT),
            behavioral_evidence=headers.get_all(delegate.BEHAVIORAL_EVIDENCE),
            checkpoint=headers.get_all(delegate.CHECKPOINT),
            traceparent=headers.get("traceparent"),
            resolve=self._resolve,
            accepted=self._accepted,
            now=time.time(),
        )
        if inbound.decision == Verdict.ALLOW:
            behaviors = [behavior.to_json() for behavior in decision.behaviors]
            inbound = replace(inbound, decision=decision.verdict, reason=decision.reason, behaviors=behaviors)
        held = partial(self._open.hold, flow, exchange)
        return self._control.accept_delegation(
            inbound, lambda r: self._settle(flow, exchange, action, decision, r), held
        )

    def _record(
        self, flow: http.HTTPFlow, exchange: Exchange, action: Classified, decision: Decision
    ) -> Awaitable[None]:
        exchange.classified = (action,)
        entry = draft(flow.request, exchange, action, decision)
        held = partial(self._open.hold, flow, exchange)
        return self._control.record_action(entry, lambda r: self._settle(flow, exchange, action, decision, r), held)

    def _settle(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        action: Classified,
        decision: Decision,
        answer: Receipt | LictorError,
    ) -> None:
        self._open.decided(exchange)
        if not isinstance(answer, Receipt):
            refuse(flow, exchange, unrecorded(self._settings.monitor_id, action, answer))
            return
        exchange.receipts = (answer,)
        if decision.denied or answer.decision not in (Verdict.ALLOW, Verdict.FLAG):
            refuse(flow, exchange, refusal(self._settings.monitor_id, action, decision, answer))
            return
        permit(flow, exchange, self._open)
        # The reverse proxy has put the local agent's address in place of the one that was called.
        exchange.permit = (flow.request.scheme, flow.request.host, flow.request.port)
        if exchange.delegated:
            delegate.attach_tokens(flow.request.headers, answer.execution_context, ())


def catalog_of(ingress: IngressSettings) -> Catalog:
    """The one target that an ingress listener has."""
    url = url_text("https", *ingress.address, "/**")
    return Catalog([Target(ingress.urn, "agent", (url,), "a2a", ingress.agent)])


def _answer(flow: http.HTTPFlow, tokens: Tokens | LictorError) -> None:
    """Put the agent's node and evidence on the response; without them nothing is answered."""
    if not isinstance(tokens, Tokens):
        log.error("no evidence for the response: %s", tokens)
        flow.kill()
        return
    assert flow.response is not None
    delegate.attach_tokens(flow.response.headers, tokens.execution_context, tokens.behavioral_evidence)
