"""From an HTTP request to the actions that it is (sans-io). What cannot be told for certain is not classified.

A target of the catalog has a protocol, and that tells the actions (`protocols`). Everything that is not in the catalog
is an `http_request` to its URL without the query.

Where a behavior looks at parameters (`criterion.Reads`), an action also has `content`: `method`, `query` (a string by
name, a list of them for a name that stands more than once), and `arguments` (of an MCP tool call), `params` (of any
other JSON-RPC message) or `body` (of anything else that has one, which must be JSON then). It is judged, not recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

from .bodies import read_json
from .catalog import Catalog
from .criterion import Reads
from .facts import Classified, RequestFacts, Unclassifiable
from .jsonrpc import messages_of
from .model import ActionType
from .protocols import PROTOCOLS
from .target import Target

MAX_QUERY = 1000
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def needs_body(target: Target | None, method: str, reads: Reads = "target") -> bool:
    """Must the whole body be read before this request can be classified, and judged by what `reads` so much of it?"""
    return reads == "body" or (target is not None and PROTOCOLS[target.protocol].needs_body(method))


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
        yield actions[0], {**common, "body": read_json(facts)}
    else:
        for action, message in zip(actions, messages_of(facts)[0], strict=True):
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
    if target is None:
        return (Classified(ActionType.HTTP_REQUEST, facts.url, {"method": facts.method}),)
    return PROTOCOLS[target.protocol].classify(target, facts)
