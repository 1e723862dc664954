"""MCP over Streamable HTTP: one message is one action on the target, or on what is inside of it.

Revisions 2025-03-26 (with batches), 2025-06-18, 2025-11-25 and 2026-07-28 are read alike: what the body says is judged,
and headers that repeat it must agree (`mcp_headers`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from ..facts import Classified, RequestFacts, Unclassifiable
from ..jsonrpc import MAX_NAME, member, messages_of, parameters_of, quoted
from ..model import ActionType
from ..target import Kind, Target
from .mcp_headers import check_headers, check_no_mirrors

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
_OF_ONE_RESOURCE = frozenset(("resources/read", "resources/subscribe", "resources/unsubscribe"))
_RESERVED = ("tools/", "resources/", "prompts/")
"""What fragments begin with that name a tool, a resource or a prompt, and no method."""
SERVER_REQUESTS = frozenset(("sampling/createMessage", "elicitation/create", "roots/list"))
"""What only servers ask, of clients."""
_BODILESS_METHODS = frozenset(("GET", "DELETE", "HEAD", "OPTIONS"))
_URI_SAFE = "/:?=&@,;+$!'()"
_DOT_SEGMENT = re.compile(r"(?:^|[/\\:])\.{1,2}(?=[/\\;?#]|\Z)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Mcp:
    """A tool server. `tools/call` is an action on `<urn>#tools/<name>`, the session itself one on `<urn>`."""

    kinds: tuple[Kind, ...] = ("tool",)
    inside: tuple[str, ...] = ("",)

    def needs_body(self, method: str) -> bool:
        return method == "POST"

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        if facts.method != "POST":
            if facts.method not in _BODILESS_METHODS:
                raise Unclassifiable("method_not_supported", f"MCP has no HTTP method {facts.method}")
            check_no_mirrors(facts)
            parameters = {"method": facts.method}
            return (Classified(ActionType.TOOL_CALL, target.urn, parameters, catalog_target=target),)
        messages, batch = messages_of(facts)
        check_headers(facts, None if batch else messages[0])
        return tuple(
            Classified(
                ActionType.TOOL_CALL,
                target.urn + _fragment(message),
                parameters_of(facts, message),
                message.get("id"),
                True,
                target,
                content_of(message),
            )
            for message in messages
        )


def tool_target(urn: str, name: str) -> str:
    """The action target of a call of the tool. Raises Unclassifiable for a name that no call can have."""
    return f"{urn}#tools/{quoted(name)}"


def prompt_target(urn: str, name: str) -> str:
    """The action target of getting the prompt. Raises Unclassifiable."""
    return f"{urn}#prompts/{quoted(name)}"


def resource_target(urn: str, uri: str) -> str:
    """The action target of reading the resource: of its URI, what no pattern may hold is percent-encoded.

    Raises Unclassifiable for a URI that a server may take for another: with dot segments or control characters, plain
    or encoded once or twice.
    """
    if not uri or len(uri) > MAX_NAME:
        raise Unclassifiable("bad_name", f"a URI has {len(uri)} characters, expected 1 to {MAX_NAME}")
    text = uri
    for _ in range(3):
        if _DOT_SEGMENT.search(text) or _CONTROL.search(text):
            raise Unclassifiable("ambiguous_uri", "a resource's URI has no dot segment and no control character")
        text = unquote(text)
    return f"{urn}#resources/{quote(uri, safe=_URI_SAFE)}"


def content_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """What criteria on parameters may look at."""
    method, params = message.get("method", ""), message.get("params")
    content: dict[str, Any] = {"rpc_method": method}
    if method == "tools/call" and isinstance(params, dict):
        return content | ({"arguments": params["arguments"]} if "arguments" in params else {})
    return content | {name: message[name] for name in ("params", "result") if name in message}


def _fragment(message: dict[str, Any]) -> str:
    """What inside of the MCP target a message is for: a tool, a resource, a prompt, `#<method>`, or "": the session."""
    method = message.get("method")
    if method is None or method in _SESSION_METHODS:
        return ""
    if method.startswith("notifications/") and "id" not in message:
        return ""
    if method == "tools/call":
        return tool_target("", member(message, "name"))
    if method == "prompts/get":
        return prompt_target("", member(message, "name"))
    if method in _OF_ONE_RESOURCE:
        return resource_target("", member(message, "uri"))
    if method.startswith(_RESERVED) or method in SERVER_REQUESTS:
        raise Unclassifiable("method_not_supported", f"an MCP client has no method {method[:MAX_NAME]!r}")
    return "#" + quoted(method)
