"""What follows from a decision and its receipt: a permit, or a refusal in place of the upstream's answer."""

from __future__ import annotations

from mitmproxy import http
from mitmproxy.flow import Error

from ..bindings.facts import Classified
from ..bindings.model import BehaviorResult, Decision, Verdict
from ..engine.grpc_status import is_grpc
from ..engine.problem import Problem, problem_of
from ..evidence.entry import Receipt
from ..formats.errors import LictorError
from .exchange import Exchange, Tally
from .open_exchanges import OpenExchanges
from .refusal import Refusal

MEMBER_DENIED = "batch_member_denied"


def permit(flow: http.HTTPFlow, exchange: Exchange, open_exchanges: OpenExchanges) -> None:
    """Let this request go to the authority that was judged, and count its body if that is still to come."""
    exchange.permit = (exchange.scheme, exchange.host, exchange.port)
    open_exchanges.enter(flow, exchange)
    if exchange.request_tally is None:
        tally = exchange.request_tally = Tally(exchange.salt)

        def count(chunk: bytes) -> bytes:
            tally.update(chunk)
            return chunk

        flow.request.stream = count


def end_of(flow: http.HTTPFlow) -> Problem:
    """Why a request came to its end before it was judged."""
    found = problem_of(flow)
    if found is None and flow.error is not None and flow.error.msg != Error.KILLED_MESSAGE:
        found = Problem("request_aborted", str(flow.error)[:200])
    return found or Problem("monitor_error", "an error inside the monitor")


def refuse(flow: http.HTTPFlow, exchange: Exchange, why: Refusal) -> None:
    """Answer in place of the upstream."""
    exchange.refused = True
    calls = [action for action in exchange.classified if action.rpc]
    ids = [action.rpc_id for action in calls if action.rpc_id is not None]
    if ids and why.reason not in ("monitor_error", "overloaded"):
        flow.response = why.jsonrpc(ids, batch=len(calls) > 1)
    elif is_grpc(flow.request):
        flow.response = why.grpc()
    else:
        flow.response = why.response()


def refusal(monitor_id: str, action: Classified, decision: Decision, receipt: Receipt) -> Refusal:
    """The refusal of an action that was judged and recorded."""
    reason, hint, blamed = decision.reason, decision.hint, decision.blamed
    if not decision.denied:
        reason, hint = receipt.reason, receipt.detail
        blamed = BehaviorResult(**receipt.behavior) if receipt.behavior is not None else decision.blamed
    hint = hint or "This action is not allowed for this agent; ask the operator, do not try another way round."
    return Refusal(
        monitor_id, reason, hint, action.type, action.target, receipt.seq, blamed, receipt.behavioral_evidence
    )


def unrecorded(monitor_id: str, action: Classified, problem: LictorError) -> Refusal:
    """The refusal of an action that could not be recorded: nothing leaves without an entry."""
    reason = getattr(problem, "reason", "monitor_error")
    hint = f"The monitor could not record this action, so it was not let out: {problem}. Try again later."
    return Refusal(monitor_id, reason, hint, action.type, action.target)


def whole_or_nothing(judged: list[tuple[Classified, Decision]]) -> list[tuple[Classified, Decision]]:
    """One denied member of a batch denies all of it."""
    if len(judged) < 2 or not any(decision.denied for _, decision in judged):
        return judged
    hint = "Another member of this batch is not allowed; send the allowed ones without it."
    return [
        (action, d if d.denied else Decision(Verdict.DENY, MEMBER_DENIED, d.behaviors, hint)) for action, d in judged
    ]
