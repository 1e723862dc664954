"""From mitmproxy's request to plain values: the facts that are judged, and the entry to be."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mitmproxy import http

from ..bindings.catalog import Catalog
from ..bindings.facts import Classified, RequestFacts
from ..bindings.keep import NOTHING, Kept
from ..bindings.model import Action, ActionType, Decision
from ..evidence.entry import ActionDraft
from ..evidence.lineage import split_lines
from ..evidence.salted import disclosure
from ..formats.names import url_text
from .exchange import Exchange, Tally

MAX_NAMED = 64
"""Tokens of `Execution-Context` that are looked at to find what an action is work of: the last ones."""


def authority_action(catalog: Catalog, host: str, port: int) -> Classified:
    """What a CONNECT that its authority alone denies was on the way to do."""
    targets = catalog.at(host, port)
    parameters = {"method": "CONNECT"}
    if len(targets) == 1:
        return Classified(targets[0].action_type, targets[0].urn, parameters, None, False, targets[0])
    return Classified(ActionType.HTTP_REQUEST, url_text("https", host, port, "/"), parameters)


def method_text(request: http.Request) -> str:
    """The method as an entry can hold it, whatever bytes it was."""
    return request.data.method[:32].decode("ascii", "backslashreplace")


def place(exchange: Exchange) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of a request."""
    return exchange.scheme, exchange.host, exchange.port, exchange.path


def facts_of(request: http.Request, exchange: Exchange, body: bytes | None) -> RequestFacts:
    """The request as plain values."""
    fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.headers.fields]
    return RequestFacts(request.method, *place(exchange), exchange.query, tuple(fields), body)


def as_action(exchange: Exchange, action: Classified) -> Action:
    """The action as a policy sees it."""
    return Action(exchange.agent_id, action.type, action.target, action.parameters, action.content)


def draft(
    request: http.Request, exchange: Exchange, action: Classified, decision: Decision, kept: Kept = NOTHING
) -> ActionDraft:
    """The entry to be of a request, with digests in place of content; what is to be kept of that goes beside it."""
    more: dict[str, object] = {}
    if exchange.query:
        tally = Tally(exchange.salt)
        tally.update(exchange.query.encode("utf-8", "surrogateescape"))
        more["query_digest"] = tally.digest()
    if exchange.request_tally is not None:
        more["request_bytes"] = exchange.request_tally.size
        more["request_digest"] = exchange.request_tally.digest()
    return entry_to_be(request, exchange, action, decision, kept, more)


def entry_to_be(
    request: http.Request,
    exchange: Exchange,
    action: Classified,
    decision: Decision,
    kept: Kept = NOTHING,
    more: Mapping[str, object] = MappingProxyType({}),
) -> ActionDraft:
    """The entry to be of what is done by a request, or through what it has opened; its parameters with `more`."""
    if kept.omitted:
        more = {**more, "kept_omitted": kept.omitted}
    target = action.catalog_target
    # A request is refused for lines that are not ASCII; the entry that says so does without them.
    context = split_lines(line for line in request.headers.get_all("execution-context") if line.isascii())
    trace = request.headers.get("traceparent", "")
    return ActionDraft(
        agent_id=exchange.agent_id,
        action_type=action.type,
        action_target=action.target,
        action_parameters={**action.parameters, **more} if more else action.parameters,
        decision=decision.verdict,
        reason=decision.reason,
        behaviors=[b.to_json() for b in decision.behaviors],
        execution_context=tuple(context[-MAX_NAMED:]),
        traceparent=trace if trace and trace.isascii() else None,
        audience=(target.agent_id,) if target is not None and target.agent_id else (),
        disclosures=tuple(disclosure(name, value) for name, value in kept.values),
    )


def drop_hop_by_hop(headers: http.Headers) -> None:
    """Take out what was meant for the proxy; an upgrade to anything but WebSocket is simply not offered on."""
    for name in ("proxy-authorization", "proxy-connection", "upgrade"):
        if name in headers:
            del headers[name]
