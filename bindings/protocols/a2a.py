"""A2A: sending a message to the other agent is a delegation; everything else on its URLs is plain HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from ..bodies import read_json, read_object
from ..facts import Classified, RequestFacts
from ..jsonrpc import messages_of, parameters_of
from ..model import ActionType
from ..target import Kind, Target

_DELEGATION_METHODS = frozenset(("message/send", "message/stream", "SendMessage", "SendStreamingMessage"))
_DELEGATION_PATHS = ("/message:send", "/message:stream")


class A2a:
    """Another agent, by JSON-RPC or by the HTTP+JSON binding."""

    kind: Kind | None = "agent"

    def needs_body(self, method: str) -> bool:
        return method == "POST"

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        plain = Classified(ActionType.HTTP_REQUEST, facts.url, {"method": facts.method}, catalog_target=target)
        if unquote(facts.path).rstrip("/").endswith(_DELEGATION_PATHS):
            if facts.method == "POST":
                read_object(facts)
            parameters = {"method": facts.method}
            return (Classified(ActionType.DELEGATION, target.urn, parameters, catalog_target=target),)
        if facts.method != "POST" or not facts.body or _is_rest(read_json(facts)):
            return (plain,)
        return tuple(_a2a_action(target, facts, message) for message in messages_of(facts)[0])


def _is_rest(body: Any) -> bool:
    """A body of A2A's HTTP+JSON binding: an object that no JSON-RPC server takes for a message, however lenient."""
    return isinstance(body, dict) and not any(name.casefold() in ("jsonrpc", "method") for name in body)


def _a2a_action(target: Target, facts: RequestFacts, message: dict[str, Any]) -> Classified:
    delegation = message.get("method") in _DELEGATION_METHODS
    return Classified(
        ActionType.DELEGATION if delegation else ActionType.HTTP_REQUEST,
        target.urn if delegation else facts.url,
        parameters_of(facts, message),
        message.get("id"),
        True,
        target,
    )
