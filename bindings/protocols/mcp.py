"""MCP over Streamable HTTP: one message is one action on the target, or on what is inside of it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ..facts import Classified, RequestFacts, Unclassifiable
from ..jsonrpc import MAX_NAME, member, messages_of, parameters_of, quoted
from ..model import ActionType
from ..target import Kind, Target

_SESSION_METHODS = frozenset(
    (
        "initialize",
        "ping",
        "server/discover",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "logging/setLevel",
    )
)
_BODILESS_METHODS = frozenset(("GET", "DELETE", "HEAD", "OPTIONS"))


class Mcp:
    """A tool server. `tools/call` is an action on `<urn>#tools/<name>`, the session itself one on `<urn>`."""

    kind: Kind | None = "tool"

    def needs_body(self, method: str) -> bool:
        return method == "POST"

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        if facts.method != "POST":
            if facts.method not in _BODILESS_METHODS:
                raise Unclassifiable("method_not_supported", f"MCP has no HTTP method {facts.method}")
            if facts.header("mcp-method") or facts.header("mcp-name"):
                raise Unclassifiable("header_mismatch", "Mcp-Method and Mcp-Name belong to a POST")
            parameters = {"method": facts.method}
            return (Classified(ActionType.TOOL_CALL, target.urn, parameters, catalog_target=target),)
        messages, batch = messages_of(facts)
        _check_mirrors(facts, None if batch else messages[0])
        return tuple(
            Classified(
                ActionType.TOOL_CALL,
                target.urn + _fragment(message),
                parameters_of(facts, message),
                message.get("id"),
                True,
                target,
            )
            for message in messages
        )


def _fragment(message: dict[str, Any]) -> str:
    """What inside of the MCP target a message is for: `#tools/<name>`, `#<method>`, or "" for the session itself."""
    method = message.get("method")
    if method is None or method in _SESSION_METHODS:
        return ""
    if method.startswith("notifications/") and "id" not in message:
        return ""
    if method == "tools/call":
        return "#tools/" + quoted(member(message, "name"))
    if method.startswith("tools/"):
        raise Unclassifiable("method_not_supported", f"MCP has no method {method[:MAX_NAME]!r}")
    return "#" + quoted(method)


def _check_mirrors(facts: RequestFacts, message: dict[str, Any] | None) -> None:
    """MCP 2026-07-28 repeats method and name in headers; where they are there they must say what the body says."""
    params = message.get("params") if message is not None else None
    named = params if isinstance(params, dict) else {}
    expected = {
        "mcp-method": None if message is None else message.get("method"),
        "mcp-name": named.get("name", named.get("uri")),
    }
    for name, wanted in expected.items():
        values = facts.header(name)
        if values and (len(values) > 1 or wanted is None or _decoded(values[0]) != wanted):
            raise Unclassifiable("header_mismatch", f"the header {name} does not say what the body says")


def _decoded(value: str) -> str | None:
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
