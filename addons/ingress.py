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
from . import delegate, ways
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
    """The local agent (SPIFFE ID, URN) and the address under which it is called.

    `fetched`: whether callers' monitors can fetch what cannot go back with an answer (`listen.evidence`).
    """

    agent: str
    urn: str
    address: tuple[str, int]
    fetched: bool = False


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
        signed = ways.is_signed(flow.request.headers)
        if not signed and not needs_body(self._catalog.targets[0], flow.request.method, self._reads(exchange)):
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
        if exchange is None or not exchange.inbound or exchange.carriage is None or exchange.permit is None:
            return None
        assert flow.response is not None
        back = exchange.carriage.back = ways.way_back(flow.request, flow.response)
        if back.end == "trailers":
            flow.response.headers["transfer-encoding"] = "chunked"
        if back.head:
            return self._control.delegation_response(exchange.receipts[0].node, lambda t: _answer(flow, t))
        if not self._ingress.fetched:
            log.error("an answer is signed so that no evidence can be added: set listen.evidence, where it is fetched")
            flow.kill()
        return None

    def response(self, flow: http.HTTPFlow) -> Hooked:
        """What there is to say once all of the answer is known. Its last piece waits for it."""
        exchange = exchange_of(flow)
        carriage = exchange.carriage if exchange is not None and exchange.inbound else None
        if exchange is None or carriage is None or carriage.back is None or not carriage.back.end:
            return self.error(flow)  # of what was not judged it is the answer of the dispatcher: a hook has failed
        if carriage.back.end == "fetch" and not self._ingress.fetched:
            return self.error(flow)
        node = exchange.receipts[0].node

        def then(tokens: Tokens | LictorError) -> None:
            if not isinstance(tokens, Tokens):
                log.error("no evidence about the end of an answer: %s", tokens)
            elif carriage.back is not None and carriage.back.end == "trailers":
                ways.put_in_trailers(flow, tokens)
            self._finish(flow)

        if carriage.back.end == "trailers":
            return self._control.delegation_response(node, then)
        return self._control.leave_evidence(node, exchange.agent_id, carriage.brought, then)

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
        if exchange is not None and exchange.inbound and exchange.carriage is not None and exchange.permit is not None:
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
            try:
                exchange.carriage = ways.way_there(flow.request)
            except FormatError as e:
                decision = Decision(Verdict.DENY, ways.SIGNATURE_DOUBTFUL, decision.behaviors, ways.doubtful(e))
        if exchange.carriage is None:
            return self._record(flow, exchange, action, decision)
        if not exchange.carriage.apart:
            return self._admit(flow, exchange, action, decision, Tokens())
        return self._admit_delivered(flow, exchange, action, decision, exchange.carriage.apart)

    def _reads(self, exchange: Exchange) -> Reads:
        return self._policy().reads(exchange.agent_id, self._catalog.targets[0], place(exchange))

    async def _admit_delivered(
        self, flow: http.HTTPFlow, exchange: Exchange, action: Classified, decision: Decision, request: str
    ) -> None:
        """A request that its monitor could not touch: what it delivered for it stands for the lines."""
        found: list[Tokens | LictorError] = []
        await self._control.take_delivery(exchange.agent_id, request, found.append)
        if not isinstance(found[0], Tokens):
            await self._refuse(flow, exchange, getattr(found[0], "reason", "monitor_error"), str(found[0]))
            return
        if found[0].execution_context or found[0].behavioral_evidence:
            action = ways.delivered(action)
        await self._admit(flow, exchange, action, decision, found[0])

    def _admit(
        self, flow: http.HTTPFlow, exchange: Exchange, action: Classified, decision: Decision, delivered: Tokens
    ) -> Awaitable[None]:
        """Verify what came along. The control process checks that it was not taken before, and mints the node."""
        headers = flow.request.headers
        inbound = examine(
            agent_id=self._ingress.agent,
            peer_id=exchange.agent_id,
            action_target=action.target,
            action_parameters=draft(flow.request, exchange, action, decision).action_parameters,
            execution_context=[*headers.get_all(delegate.EXECUTION_CONTEXT), *delivered.execution_context],
            behavioral_evidence=[*headers.get_all(delegate.BEHAVIORAL_EVIDENCE), *delivered.behavioral_evidence],
            checkpoint=[*headers.get_all(delegate.CHECKPOINT), *delivered.checkpoint],
            traceparent=headers.get("traceparent"),
            resolve=self._resolve,
            accepted=self._accepted,
            now=time.time(),
        )
        if inbound.decision == Verdict.ALLOW:
            behaviors = [behavior.to_json() for behavior in decision.behaviors]
            inbound = replace(inbound, decision=decision.verdict, reason=decision.reason, behaviors=behaviors)
        if exchange.carriage is not None:
            exchange.carriage.brought = tuple(str(parent["jti"]) for parent in inbound.parents)
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
        if exchange.carriage is not None and not exchange.carriage.apart:
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
