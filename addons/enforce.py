"""Judge, record, and only then let pass: the one place that permits a request to leave.

CONNECT is judged by its authority alone, where that decides. Each request is judged when its headers are in, or, where
the action stands in the body (MCP, A2A), when the body is. The permit is given by an allowing receipt and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mitmproxy import http
from mitmproxy.proxy.mode_specs import ReverseMode

from ..bindings.classification import classify, needs_body
from ..bindings.criterion import Reads
from ..bindings.facts import Classified, Unclassifiable
from ..bindings.keep import NOTHING
from ..bindings.model import ActionType, Decision, Verdict
from ..bindings.policy import Policy
from ..engine.problem import problem_of
from ..engine.tunnel_layer import let_through
from ..evidence.entry import ActionDraft, OutcomeDraft, Receipt
from ..formats.errors import FormatError, LictorError, VerificationError
from ..formats.names import host_text, parse_authority, parse_origin_form, url_text
from . import delegate, ways
from .drafting import as_action, authority_action, draft, drop_hop_by_hop, facts_of, method_text, place
from .exchange import Control, Exchange, Tally, attach, exchange_of
from .guard import Guard, NameRefused, check_head, same_name
from .identify import Identify
from .open_exchanges import OpenExchanges
from .places import Places, unreachable
from .request_ids import open_answers
from .settling import MEMBER_DENIED, end_of, permit, refusal, refuse, unrecorded, whole_or_nothing
from .tool_watch import ToolWatch
from .upgrade import read_upgrade

log = logging.getLogger(__name__)
Hooked = Awaitable[None] | None


@dataclass(frozen=True, slots=True)
class Settings:
    """What enforcement needs to know of the monitor."""

    monitor_id: str
    judged_body_bytes: int
    salt: bytes


class Enforce:
    """The egress side: an agent's requests on their way out."""

    def __init__(
        self,
        settings: Settings,
        policy: Callable[[], Policy],
        identify: Identify,
        guard: Guard,
        control: Control,
        open_exchanges: OpenExchanges,
        places: Places,
        watch: Callable[[], ToolWatch],
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._identify = identify
        self._guard = guard
        self._control = control
        self._open = open_exchanges
        self._places = places
        self._watch = watch

    def http_connect(self, flow: http.HTTPFlow) -> Hooked:
        agent = self._agent(flow)
        if agent is None:
            return None
        try:
            if self._guard.tunnel(flow.client_conn) is not None:
                raise NameRefused("name_mismatch", "CONNECT inside a tunnel is refused")
            check_head(flow.request)
            authority = parse_authority(flow.request.authority, None)
        except (NameRefused, FormatError) as e:
            return self._refuse_name(flow, self._exchange(flow, agent, self._nearest(flow), "/"), e)
        return self._judge_connect(flow, self._exchange(flow, agent, ("https", *authority), "/"))

    def _judge_connect(self, flow: http.HTTPFlow, exchange: Exchange) -> Hooked:
        authority = exchange.host, exchange.port
        decision = self._policy().judge_authority(exchange.agent_id, *authority)
        action = authority_action(self._policy().catalog, *authority)
        if decision is not None:
            return self._record(flow, exchange, [(action, decision)])
        if not self._places.known(flow.client_conn, authority):
            return self._find(flow, exchange, [action], partial(self._judge_connect, flow, exchange))
        self._guard.open_tunnel(flow.client_conn, authority)
        if self._policy().catalog.passthrough(*authority) is not None:
            flow.request.data.host, flow.request.data.port = authority
            let_through(flow)
        return None

    async def _find(
        self, flow: http.HTTPFlow, exchange: Exchange, actions: Sequence[Classified], again: Callable[[], Hooked]
    ) -> None:
        """Resolve a name that the policy lets through. Then judge again, since the policy may be another by now."""
        try:
            await self._places.find(flow.client_conn, exchange.agent_id, (exchange.host, exchange.port))
        except NameRefused as e:
            hooked: Hooked = self._record(flow, exchange, unreachable(actions, e))
        else:
            hooked = again()
        if hooked is not None:
            await hooked

    def requestheaders(self, flow: http.HTTPFlow) -> Hooked:
        if isinstance(flow.client_conn.proxy_mode, ReverseMode):
            return None
        agent = self._agent(flow)
        if agent is None:
            return None
        request, problem = flow.request, problem_of(flow)
        try:
            if problem is not None:
                raise NameRefused(problem.reason, problem.text)
            check_head(request)
            path, query = parse_origin_form(request.path, empty_segments=True)
            host, port = same_name(request, self._guard.tunnel(flow.client_conn), flow.client_conn.sni)
            upgrade = read_upgrade(request)
        except (NameRefused, FormatError) as e:
            return self._refuse_name(flow, self._exchange(flow, agent, self._nearest(flow), "/"), e)
        exchange = self._exchange(flow, agent, (request.scheme, host, port), path)
        exchange.query = query
        request.data.host, request.data.port = host, port
        drop_hop_by_hop(request.headers)
        policy = self._policy()
        target = policy.catalog.find(*place(exchange))
        if upgrade is not None:
            exchange.upgrade = upgrade
            upgrade.offer(request.headers)
            if target is not None and target.protocol in ("mcp", "a2a", "graphql"):
                why = NameRefused("upgrade_refused", f"{target.protocol} is not spoken over WebSocket")
                return self._refuse_name(flow, exchange, why)
        signed = target is not None and target.kind == "agent" and ways.is_signed(request.headers)
        reads = policy.reads(agent, target, place(exchange))
        if signed or needs_body(target, request.method, reads):
            return self._announced_too_large(flow, exchange)
        return self._judge(flow, exchange, None, reads)

    def request(self, flow: http.HTTPFlow) -> Hooked:
        exchange = exchange_of(flow)
        if exchange is None or exchange.inbound or exchange.refused or exchange.permit is not None:
            return None
        return self._judge(flow, exchange, flow.request.raw_content or b"")

    def error(self, flow: http.HTTPFlow) -> Hooked:
        """A request that ended before it was judged is an entry too."""
        exchange = exchange_of(flow)
        if exchange is None:
            return self._never_seen(flow)
        if exchange.inbound or exchange.refused or exchange.receipts:
            return None
        problem = end_of(flow)
        return self._refuse_name(flow, exchange, NameRefused(problem.reason, problem.text))

    # An answer to what was not judged is that of the dispatcher: a hook has failed.
    response = http_connect_error = error

    def _never_seen(self, flow: http.HTTPFlow) -> Hooked:
        """What should have begun its exchange has failed."""
        if isinstance(flow.client_conn.proxy_mode, ReverseMode):
            return None
        try:
            agent = self._identify.peer(flow.client_conn).spiffe_id
        except VerificationError:
            return None
        problem = end_of(flow)
        exchange = self._exchange(flow, agent, self._nearest(flow), "/")
        return self._refuse_name(flow, exchange, NameRefused(problem.reason, problem.text))

    def _agent(self, flow: http.HTTPFlow) -> str | None:
        try:
            return self._identify.peer(flow.client_conn).spiffe_id
        except VerificationError as e:
            log.warning("refused a request: %s", e)
            flow.kill()
            return None

    def _exchange(self, flow: http.HTTPFlow, agent: str, authority: tuple[str, str, int], path: str) -> Exchange:
        exchange = Exchange(agent, False, *authority, path, "", salt=self._settings.salt)
        attach(flow, exchange)
        return exchange

    def _nearest(self, flow: http.HTTPFlow) -> tuple[str, str, int]:
        """Where a request that names no one place would have gone, as far as that can be told."""
        tunnel = self._guard.tunnel(flow.client_conn)
        if tunnel is not None:
            return ("https", *tunnel)
        try:
            return ("http", *parse_authority(f"{host_text(flow.request.host)}:{flow.request.port}", None))
        except FormatError:
            return ("http", "invalid", 80)

    def _refuse_name(self, flow: http.HTTPFlow, exchange: Exchange, problem: LictorError) -> Hooked:
        """Record and refuse what could not be mapped to an action at all."""
        reason = getattr(problem, "reason", "doubtful_name")
        target = url_text(exchange.scheme, exchange.host, exchange.port, "/")
        action = Classified(ActionType.HTTP_REQUEST, target, {"method": method_text(flow.request)}, None, False, None)
        return self._record(flow, exchange, [(action, Decision(Verdict.DENY, reason, (), f"{problem}"))])

    def _announced_too_large(self, flow: http.HTTPFlow, exchange: Exchange) -> Hooked:
        length = flow.request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) <= self._settings.judged_body_bytes:
            return None
        text = f"the body of {length} bytes exceeds {self._settings.judged_body_bytes}, and this one must be read"
        return self._refuse_name(flow, exchange, NameRefused("body_too_large", text))

    def _judge(self, flow: http.HTTPFlow, exchange: Exchange, body: bytes | None, reads: Reads | None = None) -> Hooked:
        """`reads` is the policy's answer for this request, where it was asked just now."""
        policy = self._policy()
        facts = facts_of(flow.request, exchange, body)
        try:
            if reads is None:
                target = policy.catalog.find(*place(exchange))
                reads = policy.reads(exchange.agent_id, target, place(exchange))
            actions = classify(policy.catalog, facts, reads)
            if body:
                session = flow.request.headers.get("mcp-session-id", "")
                opened = open_answers(self._settings.salt, exchange.agent_id, session, actions, body)
                if opened is not body:
                    flow.request.content = opened
        except Unclassifiable as e:
            return self._refuse_name(flow, exchange, NameRefused(e.reason, str(e)))
        exchange.classified = actions
        if exchange.delegated:
            exchange.salt = None
        watch = self._watch()
        judged: ways.Judged = whole_or_nothing(
            [(a, watch.judge(a, policy.judge(as_action(exchange, a)))) for a in actions]
        )
        if body is not None:
            exchange.request_tally = Tally(exchange.salt)
            exchange.request_tally.update(body)
        if not judged[0][1].denied and not self._places.known(flow.client_conn, (exchange.host, exchange.port)):
            return self._find(flow, exchange, actions, partial(self._judge, flow, exchange, body))
        if exchange.delegated and not judged[0][1].denied:
            exchange.carriage, judged = ways.choose(flow.request, judged)
        return self._record(flow, exchange, judged)

    def _record(
        self, flow: http.HTTPFlow, exchange: Exchange, judged: Sequence[tuple[Classified, Decision]]
    ) -> Future[None] | Awaitable[None]:
        exchange.classified = tuple(action for action, _ in judged)
        policy = self._policy()
        drafts = [
            draft(
                flow.request,
                exchange,
                action,
                decision,
                NOTHING if action.content is None else policy.kept(as_action(exchange, action)),
            )
            for action, decision in judged
        ]
        if len(drafts) == 1 and not (exchange.carriage and exchange.carriage.apart):
            held = partial(self._open.hold, flow, exchange)
            return self._control.record_action(drafts[0], lambda r: self._settle(flow, exchange, judged, [r]), held)
        return self._record_all(flow, exchange, judged, drafts)

    async def _record_all(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        judged: Sequence[tuple[Classified, Decision]],
        drafts: Sequence[ActionDraft],
    ) -> None:
        # Receipts come as they are ready: that of a denied action, which carries evidence, after the others.
        answers: dict[int, Receipt | LictorError] = {}
        held = partial(self._open.hold, flow, exchange)
        await asyncio.gather(
            *(self._control.record_action(d, partial(answers.__setitem__, i), held) for i, d in enumerate(drafts))
        )
        settled = [answers[i] for i in range(len(drafts))]
        if exchange.carriage is not None and exchange.carriage.apart:
            problem = await self._deliver(exchange.agent_id, exchange.carriage, settled)
            if problem:
                self._not_delivered(flow, exchange, judged, settled, problem)
                return
        self._settle(flow, exchange, judged, settled)

    async def _deliver(self, agent_id: str, carriage: ways.Carriage, answers: Sequence[Receipt | LictorError]) -> str:
        """Hand the evidence of what was let out to the callee's monitor; "", or why that cannot be."""
        receipts = [a for a in answers if isinstance(a, Receipt) and a.decision in (Verdict.ALLOW, Verdict.FLAG)]
        if len(receipts) < len(answers):
            return ""
        assert carriage.target is not None
        said: list[str | LictorError] = []
        tokens = delegate.tokens_of(receipts)
        await self._control.deliver(agent_id, carriage.target.urn, carriage.apart, tokens, said.append)
        return str(said[0])

    def _not_delivered(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        judged: Sequence[tuple[Classified, Decision]],
        answers: Sequence[Receipt | LictorError],
        problem: str,
    ) -> None:
        """The actions were let out, but nothing leaves without its evidence."""
        self._open.decided(exchange)
        exchange.receipts = tuple(a for a in answers if isinstance(a, Receipt))
        self._not_sent(exchange.receipts, f"{ways.NOT_DELIVERED}: {problem}"[:200])
        why = Decision(Verdict.DENY, ways.NOT_DELIVERED, (), ways.NOT_DELIVERED_HINT)
        refuse(flow, exchange, refusal(self._settings.monitor_id, judged[0][0], why, exchange.receipts[0]))

    def _settle(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        judged: Sequence[tuple[Classified, Decision]],
        answers: Sequence[Receipt | LictorError],
    ) -> None:
        """The receipts are in: permit, or refuse with what they say. That of what was held says what became of it."""
        self._open.decided(exchange)
        receipts = [a for a in answers if isinstance(a, Receipt)]
        exchange.receipts = tuple(receipts)
        if len(receipts) < len(judged):
            problem = next(a for a in answers if not isinstance(a, Receipt))
            self._not_sent(receipts)
            refuse(flow, exchange, unrecorded(self._settings.monitor_id, judged[0][0], problem))
            return
        refused = [
            (action, decision, receipt)
            for (action, decision), receipt in zip(judged, receipts, strict=True)
            if decision.denied or receipt.decision not in (Verdict.ALLOW, Verdict.FLAG)
        ]
        if refused:
            # Of a batch the member that is to blame, not one that only shares its fate.
            refused.sort(key=lambda one: one[1].reason == MEMBER_DENIED)
            self._not_sent(receipts)
            refuse(flow, exchange, refusal(self._settings.monitor_id, *refused[0]))
            return
        permit(flow, exchange, self._open)
        if exchange.carriage is not None and not exchange.carriage.apart:
            delegate.attach_evidence(flow.request.headers, receipts)
            if exchange.carriage.asks and exchange.carriage.monitored:
                ways.ask_for_trailers(flow.request)

    def _not_sent(self, receipts: Sequence[Receipt], why: str = MEMBER_DENIED) -> None:
        """Say of members that were let out by themselves that the request they came in was not."""
        for receipt in receipts:
            if receipt.decision in (Verdict.ALLOW, Verdict.FLAG):
                outcome = {"status": 0, "complete": False, "duration_ms": 0, "error": why}
                self._control.record_outcome(OutcomeDraft(receipt.seq, outcome))
