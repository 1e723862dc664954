"""JSON-RPC 2.0 messages that every parser reads alike: the ground of MCP and A2A."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .bodies import check_spelling, read_json
from .facts import RequestFacts, Unclassifiable

MAX_BATCH = 64
MAX_NAME = 1024
_RPC_MEMBERS = frozenset(("jsonrpc", "method", "id", "params", "result", "error"))
_PARAMS_MEMBERS = frozenset(("name", "uri", "arguments", "_meta", "message", "configuration", "metadata"))


def messages_of(facts: RequestFacts) -> tuple[list[dict[str, Any]], bool]:
    """The JSON-RPC messages of the body, and whether they came as a batch."""
    value = read_json(facts)
    messages = value if isinstance(value, list) else [value]
    if not messages or len(messages) > MAX_BATCH:
        raise Unclassifiable("bad_batch", f"a batch has {len(messages)} messages, expected 1 to {MAX_BATCH}")
    for message in messages:
        check_message(message)
    return messages, isinstance(value, list)


def check_message(message: Any) -> None:
    """A request, a notification or a response that every parser takes for the same. Raises Unclassifiable."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Unclassifiable("not_json_rpc", 'expected a JSON-RPC object with "jsonrpc": "2.0"')
    check_spelling(message, _RPC_MEMBERS)
    if isinstance(message.get("id"), (bool, dict, list)):
        raise Unclassifiable("not_json_rpc", "a JSON-RPC id is a string or a number")
    answers = [name for name in ("result", "error") if name in message]
    if "method" in message:
        if answers or not isinstance(message["method"], str):
            raise Unclassifiable("not_json_rpc", "a JSON-RPC message is a request or a response, not both")
    elif len(answers) != 1 or "id" not in message:
        raise Unclassifiable("not_json_rpc", "a JSON-RPC message without method is a response with id")
    params = message.get("params", {})
    if not isinstance(params, (dict, list)):
        raise Unclassifiable("not_json_rpc", "JSON-RPC params are an object or an array")
    if isinstance(params, dict):
        check_spelling(params, _PARAMS_MEMBERS)


def parameters_of(facts: RequestFacts, message: dict[str, Any]) -> dict[str, Any]:
    """What the entry keeps of a message: the HTTP method and the JSON-RPC method (of a response: "")."""
    return {"method": facts.method, "rpc_method": message.get("method", "")[:MAX_NAME]}


def quoted(name: str, safe: str = "/") -> str:
    """A name as it stands in the fragment of an action target, with `safe` as it is. Raises Unclassifiable."""
    if not name or len(name) > MAX_NAME:
        raise Unclassifiable("bad_name", f"a name has {len(name)} characters, expected 1 to {MAX_NAME}")
    return quote(name, safe=safe)


def member(message: dict[str, Any], name: str) -> str:
    """A string that the params of a request must have. Raises Unclassifiable."""
    params = message.get("params")
    value = params.get(name) if isinstance(params, dict) else None
    if not isinstance(value, str):
        raise Unclassifiable("not_json_rpc", f"the params of {message['method']!r} have no {name}")
    return value
