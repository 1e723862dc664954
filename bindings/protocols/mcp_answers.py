"""What an MCP server sends to the client, read (sans-io): requests of its own, lists of what it has, answers.

Up to revision 2025-11-25 a server asks the client by messages of its own, in streams; from 2026-07-28 on by the
`inputRequests` of a result. Both are actions on `<urn>#<method>`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...formats import base64url, strict_json
from ...formats.errors import FormatError
from ..bodies import check_spelling
from ..facts import Classified, Unclassifiable
from ..jsonrpc import MAX_BATCH, MAX_NAME, check_message
from ..model import ActionType
from ..target import Target
from .mcp import SERVER_REQUESTS, content_of, prompt_target, resource_target, tool_target

FROM_SERVER = "from_server"
_RESULT_MEMBERS = frozenset(("tools", "prompts", "resources", "inputRequests"))


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """What the server asks the client, as an action. Not `known`: nothing that a server asks, so it is never let in."""

    action: Classified
    known: bool


def read_messages(data: bytes) -> tuple[list[dict[str, Any]], bool]:
    """The messages of a JSON answer or of one event, and whether they came as a batch. Raises Unclassifiable."""
    try:
        value = strict_json.loads(data)
    except FormatError as e:
        raise Unclassifiable("unparsable_answer", f"the answer cannot be judged: {e}") from None
    messages = value if isinstance(value, list) else [value]
    if not messages or len(messages) > MAX_BATCH:
        raise Unclassifiable("unparsable_answer", f"a batch has {len(messages)} messages, expected 1 to {MAX_BATCH}")
    for message in messages:
        try:
            check_message(message)
            if isinstance(result := message.get("result"), dict):
                check_spelling(result, _RESULT_MEMBERS)
        except Unclassifiable as e:
            raise Unclassifiable("unparsable_answer", f"the answer cannot be judged: {e}") from None
        if "method" in message and "id" in message and message["id"] is None:
            raise Unclassifiable("unparsable_answer", "the server's request has the id null")
    return messages, isinstance(value, list)


def is_request(message: dict[str, Any]) -> bool:
    """The server wants an answer to this one; a ping needs nobody's leave."""
    return "method" in message and "id" in message and message["method"] != "ping"


def input_requests(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The requests that a result holds, before the original request can go on. Raises Unclassifiable."""
    result = message.get("result")
    found = result.get("inputRequests") if isinstance(result, dict) else None
    if found is None:
        return []
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise Unclassifiable("unparsable_answer", "the inputRequests of a result are not requests by name")
    if len(found) > MAX_BATCH or not all(isinstance(one.get("method"), str) for one in found.values()):
        raise Unclassifiable("unparsable_answer", "the inputRequests of a result are too many, or have no method")
    return list(found.values())


def classify_request(target: Target, request: Mapping[str, Any]) -> ServerRequest:
    """A request of the server as an action of the agent that is to answer it."""
    method = request["method"]
    known = method in SERVER_REQUESTS
    parameters = {"direction": FROM_SERVER, "rpc_method": method[:MAX_NAME]}
    where = f"{target.urn}#{method}" if known else target.urn
    content = {"direction": FROM_SERVER, **content_of(request)}
    return ServerRequest(
        Classified(ActionType.TOOL_CALL, where, parameters, catalog_target=target, content=content), known
    )


def tools_of(message: dict[str, Any]) -> list[Any]:
    """The tools of a `tools/list` result; of anything else none."""
    result = message.get("result")
    found = result.get("tools") if isinstance(result, dict) else None
    return found if isinstance(found, list) else []


def tool_digest(tool: dict[str, Any]) -> str:
    """Of what clients are told of a tool: base64url SHA-256 over its JSON without `_meta`, names sorted, no spaces."""
    told = {name: value for name, value in tool.items() if name != "_meta"}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return base64url.encode(hashlib.sha256(text.encode()).digest())


def cut_down(message: dict[str, Any], urn: str, shown: Callable[[str], bool]) -> tuple[dict[str, Any], int]:
    """A list without what is not to be shown, by its action target, and how much that was; anything else as it is.

    Templates of resources stay: what they will name is not known yet, and each read is judged.
    """
    result = message.get("result")
    if not isinstance(result, dict):
        return message, 0
    hidden, cut = 0, dict(result)
    for kind, name, target in (
        ("tools", "name", tool_target),
        ("prompts", "name", prompt_target),
        ("resources", "uri", resource_target),
    ):
        listed = result.get(kind)
        if isinstance(listed, list):
            kept = [one for one in listed if any(map(shown, _target_of(one, name, urn, target)))]
            hidden += len(listed) - len(kept)
            cut[kind] = kept
    return ({**message, "result": cut}, hidden) if hidden else (message, 0)


def _target_of(listed: Any, name: str, urn: str, target: Callable[[str, str], str]) -> Iterator[str]:
    """The action target of what is listed; none if there can be no such action."""
    if not isinstance(listed, dict) or not isinstance(listed.get(name), str):
        return
    try:
        yield target(urn, listed[name])
    except Unclassifiable:
        return
