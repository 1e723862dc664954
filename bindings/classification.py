"""From an HTTP request to the actions that it is (sans-io). What cannot be told for certain is not classified.

A target of the catalog has a protocol, and that tells the actions (`protocols`). Everything that is not in the catalog
is an `http_request` to its URL without the query.

Where a behavior looks at parameters (`criterion.Reads`), an action also has `content`: `method`, `query` (a string by
name, a list of them for a name that stands more than once), and what the protocol says that it carries (of a JSON-RPC
message `rpc_method` and `arguments` or `params`), else the `body`, which must be JSON then. It is judged, not recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from .bodies import read_json
from .catalog import Catalog
from .criterion import Reads
from .facts import Classified, RequestFacts, Unclassifiable
from .model import ActionType
from .protocols import PROTOCOLS
from .query import read_query
from .target import Target

_SLASHES = re.compile("/{2,}")


def needs_body(target: Target | None, method: str, reads: Reads = "target") -> bool:
    """Must the whole body be read before this request can be classified, and judged by what `reads` so much of it?"""
    return reads == "body" or (target is not None and PROTOCOLS[target.protocol].needs_body(method))


def find_target(catalog: Catalog, facts: RequestFacts) -> Target | None:
    """The catalog's target of a request. Raises Unclassifiable if it depends on how the server reads `%2F` or `//`.

    A path with empty segments is let through only to a target of protocol `http`: of what is in no catalog, and of what
    other protocols do, the path itself decides what it is.
    """
    target = catalog.find(facts.scheme, facts.host, facts.port, facts.path)
    if "%2F" in facts.path:
        other = catalog.find(facts.scheme, facts.host, facts.port, facts.path.replace("%2F", "/"))
        if other is not target:
            raise Unclassifiable("ambiguous_path", "whether %2F separates decides which target this is")
    separated = facts.path.replace("%2F", "/")
    if "//" in separated:
        if target is None or target.protocol != "http":
            raise Unclassifiable("ambiguous_path", "only http targets of the catalog take a path with an empty segment")
        for path in (facts.path, separated):
            if catalog.find(facts.scheme, facts.host, facts.port, _SLASHES.sub("/", path)) is not target:
                raise Unclassifiable("ambiguous_path", "whether // is / decides which target this is")
    return target


def classify(catalog: Catalog, facts: RequestFacts, reads: Reads = "target") -> tuple[Classified, ...]:
    """The actions that a request is, at least one, in the order of the body. Raises Unclassifiable."""
    target = find_target(catalog, facts)
    if target is not None and target.passthrough:
        return (tunnel(target, facts.host, facts.port),)
    if needs_body(target, facts.method, reads) and facts.body is None:
        raise Unclassifiable("body_not_read", "the body decides what this is, and it was not read")
    actions = _classify(target, facts)
    if reads == "target":
        return actions
    return tuple(replace(action, content=content) for action, content in _with_content(actions, facts, reads))


def tunnel(target: Target, host: str, port: int) -> Classified:
    """The one action that all requests in a tunnel are which is not intercepted."""
    where = {"host": host, "port": port}
    return Classified(ActionType.TUNNEL, target.urn, where, catalog_target=target, content=dict(where))


def _with_content(
    actions: tuple[Classified, ...], facts: RequestFacts, reads: Reads
) -> Iterator[tuple[Classified, dict[str, Any]]]:
    common: dict[str, Any] = {"method": facts.method}
    if query := read_query(facts.query):
        common["query"] = query
    for action, own in zip(actions, _own_content(actions, facts, reads), strict=True):
        yield action, {**common, **own}


def _own_content(actions: tuple[Classified, ...], facts: RequestFacts, reads: Reads) -> Iterable[dict[str, Any]]:
    """What each action carries beside method and query."""
    if any(action.content for action in actions):
        return (action.content or {} for action in actions)
    if reads == "query" or not facts.body:
        return ({} for _ in actions)
    return ({"body": read_json(facts)} for _ in actions)


def _classify(target: Target | None, facts: RequestFacts) -> tuple[Classified, ...]:
    if target is None:
        return (Classified(ActionType.HTTP_REQUEST, facts.url, {"method": facts.method}),)
    return PROTOCOLS[target.protocol].classify(target, facts)
