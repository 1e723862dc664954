"""From an HTTP request to the actions that it is (sans-io). What cannot be told for certain is not classified.

HTTP targets of the catalog are one action each. On MCP and A2A targets the body decides: it must be JSON-RPC 2.0 that
every parser reads alike. Everything that is not in the catalog is an `http_request` to its URL without the query.

Where a behavior looks at parameters (`criterion.Reads`), an action also has `content`: `method`, `query` (a string by
name, a list of them for a name that stands more than once), and `arguments` (of an MCP tool call), `params` (of any
other JSON-RPC message) or `body` (of anything else that has one, which must be JSON then). It is judged, not recorded.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

from ..formats import strict_json
from ..formats.errors import FormatError, LictorError
from ..formats.names import url_text
from .catalog import ACTION_TYPES, Catalog, Target
from .criterion import Reads
from .model import ActionType

MAX_BATCH = 64
MAX_NAME = 1024
MAX_QUERY = 1000
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")

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
_DELEGATION_METHODS = frozenset(("message/send", "message/stream", "SendMessage", "SendStreamingMessage"))
_DELEGATION_PATHS = ("/message:send", "/message:stream")
_RPC_MEMBERS = frozenset(("jsonrpc", "method", "id", "params", "result", "error"))
_PARAMS_MEMBERS = frozenset(("name", "uri", "arguments", "_meta", "message", "configuration", "metadata"))
_BODILESS_METHODS = frozenset(("GET", "DELETE", "HEAD", "OPTIONS"))


class Unclassifiable(LictorError):
    """The request cannot be mapped to actions, so it is denied. `reason` is machine-readable."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A request in canonical parts (`formats.names`). Header names are lower case; `body` None means not read."""

    method: str
    scheme: str
    host: str
    port: int
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def header(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value.strip() for other, value in self.headers if other == name]


@dataclass(frozen=True, slots=True)
class Classified:
    """One action that a request is. `rpc`: the caller speaks JSON-RPC, and a refusal answers with `rpc_id`."""

    type: ActionType
    target: str
    parameters: dict[str, Any] = field(default_factory=dict)
    rpc_id: strict_json.JSON = None
    rpc: bool = False
    catalog_target: Target | None = None
    content: dict[str, Any] | None = None


def needs_body(target: Target | None, method: str, reads: Reads = "target") -> bool:
    """Must the whole body be read before this request can be classified, and judged by what `reads` so much of it?"""
    return reads == "body" or (target is not None and target.protocol != "http" and method == "POST")


def find_target(catalog: Catalog, facts: RequestFacts) -> Target | None:
    """The catalog's target of a request. Raises Unclassifiable if it depends on how the server reads `%2F`."""
    target = catalog.find(facts.scheme, facts.host, facts.port, facts.path)
    if "%2F" in facts.path:
        other = catalog.find(facts.scheme, facts.host, facts.port, facts.path.replace("%2F", "/"))
        if other is not target:
            raise Unclassifiable("ambiguous_path", "whether %2F separates decides which target this is")
    return target


def classify(catalog: Catalog, facts: RequestFacts, reads: Reads = "target") -> tuple[Classified, ...]:
    """The actions that a request is, at least one, in the order of the body. Raises Unclassifiable."""
    target = find_target(catalog, facts)
    if needs_body(target, facts.method, reads) and facts.body is None:
        raise Unclassifiable("body_not_read", "the body decides what this is, and it was not read")
    actions = _classify(target, facts)
    if reads == "target":
        return actions
    return tuple(replace(action, content=content) for action, content in _with_content(actions, facts, reads))


def _with_content(
    actions: tuple[Classified, ...], facts: RequestFacts, reads: Reads
) -> Iterator[tuple[Classified, dict[str, Any]]]:
    common: dict[str, Any] = {"method": facts.method, **_query(facts.query)}
    if reads == "query" or not facts.body:
        yield from ((action, common) for action in actions)
    elif not actions[0].rpc:
        yield actions[0], {**common, "body": _read(facts)}
    else:
        for action, message in zip(actions, _messages(facts)[0], strict=True):
            yield action, {**common, **_rpc_content(message)}


def _rpc_content(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    if message.get("method") == "tools/call" and isinstance(params, dict):
        return {"arguments": params["arguments"]} if "arguments" in params else {}
    return {"params": params} if "params" in message else {}


def _query(query: str) -> dict[str, Any]:
    """`query`, if there is one. What servers take apart in different ways is refused."""
    if not query:
        return {}
    if ";" in query or query.count("&") >= MAX_QUERY:
        raise Unclassifiable("ambiguous_query", "a query that is judged has no ; and not too many parameters")
    found: dict[str, Any] = {}
    for part in query.split("&"):
        name, _, value = (_form_decoded(text) for text in part.partition("="))
        if not part:
            continue
        before = found.get(name)
        if before is None:
            found[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            found[name] = [before, value]
    return {"query": found}


def _form_decoded(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise Unclassifiable("ambiguous_query", "a query that is judged has no % that encodes nothing")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeError:
        raise Unclassifiable("ambiguous_query", "a query that is judged is UTF-8") from None


def _classify(target: Target | None, facts: RequestFacts) -> tuple[Classified, ...]:
    parameters = {"method": facts.method}
    if target is None:
        return (Classified(ActionType.HTTP_REQUEST, _url(facts), parameters),)
    if target.protocol == "mcp":
        return _classify_mcp(target, facts)
    if target.protocol == "a2a":
        return _classify_a2a(target, facts)
    return (Classified(ACTION_TYPES[target.kind], target.urn, parameters, catalog_target=target),)


def _url(facts: RequestFacts) -> str:
    return url_text(facts.scheme, facts.host, facts.port, facts.path)


def _classify_mcp(target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
    if facts.method != "POST":
        if facts.method not in _BODILESS_METHODS:
            raise Unclassifiable("method_not_supported", f"MCP has no HTTP method {facts.method}")
        if facts.header("mcp-method") or facts.header("mcp-name"):
            raise Unclassifiable("header_mismatch", "Mcp-Method and Mcp-Name belong to a POST")
        parameters = {"method": facts.method}
        return (Classified(ActionType.TOOL_CALL, target.urn, parameters, catalog_target=target),)
    messages, batch = _messages(facts)
    _check_mirrors(facts, None if batch else messages[0])
    return tuple(
        Classified(
            ActionType.TOOL_CALL,
            target.urn + _mcp_fragment(message),
            _rpc_parameters(facts, message),
            message.get("id"),
            True,
            target,
        )
        for message in messages
    )


def _mcp_fragment(message: dict[str, Any]) -> str:
    """What inside of the MCP target a message is for: `#tools/<name>`, `#<method>`, or "" for the session itself."""
    method = message.get("method")
    if method is None or method in _SESSION_METHODS:
        return ""
    if method.startswith("notifications/") and "id" not in message:
        return ""
    if method == "tools/call":
        return "#tools/" + _quoted(_member(message, "name"))
    if method.startswith("tools/"):
        raise Unclassifiable("method_not_supported", f"MCP has no method {method[:MAX_NAME]!r}")
    return "#" + _quoted(method)


def _classify_a2a(target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
    plain = Classified(ActionType.HTTP_REQUEST, _url(facts), {"method": facts.method}, catalog_target=target)
    if unquote(facts.path).rstrip("/").endswith(_DELEGATION_PATHS):
        if facts.method == "POST":
            _read_object(facts)
        parameters = {"method": facts.method}
        return (Classified(ActionType.DELEGATION, target.urn, parameters, catalog_target=target),)
    if facts.method != "POST" or not facts.body or _is_rest(_read(facts)):
        return (plain,)
    return tuple(_a2a_action(target, facts, message) for message in _messages(facts)[0])


def _is_rest(body: Any) -> bool:
    """A body of A2A's HTTP+JSON binding: an object that no JSON-RPC server takes for a message, however lenient."""
    return isinstance(body, dict) and not any(name.casefold() in ("jsonrpc", "method") for name in body)


def _a2a_action(target: Target, facts: RequestFacts, message: dict[str, Any]) -> Classified:
    delegation = message.get("method") in _DELEGATION_METHODS
    return Classified(
        ActionType.DELEGATION if delegation else ActionType.HTTP_REQUEST,
        target.urn if delegation else _url(facts),
        _rpc_parameters(facts, message),
        message.get("id"),
        True,
        target,
    )


def _rpc_parameters(facts: RequestFacts, message: dict[str, Any]) -> dict[str, Any]:
    return {"method": facts.method, "rpc_method": message.get("method", "")[:MAX_NAME]}


def _quoted(name: str) -> str:
    if not name or len(name) > MAX_NAME:
        raise Unclassifiable("bad_name", f"a name has {len(name)} characters, expected 1 to {MAX_NAME}")
    return quote(name, safe="/")


def _member(message: dict[str, Any], name: str) -> str:
    params = message.get("params")
    value = params.get(name) if isinstance(params, dict) else None
    if not isinstance(value, str):
        raise Unclassifiable("not_json_rpc", f"the params of {message['method']!r} have no {name}")
    return value


def _read(facts: RequestFacts) -> Any:
    """The body as JSON that every parser reads alike. Raises Unclassifiable."""
    if any(value.lower() != "identity" for value in facts.header("content-encoding")):
        raise Unclassifiable("encoded_body", "a body that decides must come without Content-Encoding")
    types = facts.header("content-type")
    if len(types) > 1 or not _is_utf8(types[0] if types else ""):
        raise Unclassifiable("unparsable_body", "expected one Content-Type, with charset utf-8 if it has one")
    try:
        return strict_json.loads(facts.body or b"")
    except FormatError as e:
        raise Unclassifiable("unparsable_body", f"the body cannot be judged: {e}") from None


def _is_utf8(content_type: str) -> bool:
    parameters = [part.partition("=") for part in content_type.lower().split(";")[1:]]
    charsets = [value.strip(' \t"') for name, _, value in parameters if name.strip().startswith("charset")]
    return all(charset in ("utf-8", "utf8", "us-ascii") for charset in charsets)


def _read_object(facts: RequestFacts) -> dict[str, Any]:
    value = _read(facts)
    if not isinstance(value, dict):
        raise Unclassifiable("unparsable_body", "expected a JSON object as the body")
    return value


def _messages(facts: RequestFacts) -> tuple[list[dict[str, Any]], bool]:
    """The JSON-RPC messages of the body, and whether they came as a batch."""
    value = _read(facts)
    messages = value if isinstance(value, list) else [value]
    if not messages or len(messages) > MAX_BATCH:
        raise Unclassifiable("bad_batch", f"a batch has {len(messages)} messages, expected 1 to {MAX_BATCH}")
    for message in messages:
        _check_message(message)
    return messages, isinstance(value, list)


def _check_message(message: Any) -> None:
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Unclassifiable("not_json_rpc", 'expected a JSON-RPC object with "jsonrpc": "2.0"')
    _check_spelling(message, _RPC_MEMBERS)
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
        _check_spelling(params, _PARAMS_MEMBERS)


def _check_spelling(members: dict[str, Any], known: frozenset[str]) -> None:
    """Some parsers (Go's) take `Method` for `method`, so a known name in another case means two things."""
    for name in members:
        if name not in known and name.casefold() in known:
            raise Unclassifiable("ambiguous_member", f"the member {name!r} differs from a known one only in case")


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
