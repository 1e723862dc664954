"""GraphQL over HTTP: each field at the top of an operation is an action on `<urn>#<type>/<field>`.

The field is what the server does; the operation's name is the caller's own word and is kept as a parameter only. An
operation that comes as a hash or an id, without its text, is an action on `<urn>#persisted/<id>`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from ...formats import strict_json
from ...formats.errors import FormatError
from ..bodies import check_spelling, read_json
from ..facts import Classified, RequestFacts, Unclassifiable
from ..jsonrpc import MAX_BATCH, MAX_NAME, quoted
from ..query import read_query
from ..target import ACTION_TYPES, Kind, Target

_IDS = ("documentId", "doc_id", "id")
_MEMBERS = frozenset(("query", "operationName", "variables", "extensions", *_IDS))
_FOLDED = frozenset(name.casefold() for name in _MEMBERS)


class GraphQl:
    """A tool or a data source that is asked in GraphQL."""

    kinds: tuple[Kind, ...] = ("tool", "data_source")
    inside: tuple[str, ...] = ("query/", "mutation/", "subscription/", "persisted/")

    def needs_body(self, method: str) -> bool:
        return method == "POST"

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        actions: list[Classified] = []
        for request in _requests(facts):
            actions += _actions(target, facts.method, request)
            if len(actions) > MAX_BATCH:
                raise Unclassifiable(
                    "bad_batch", f"a request has at most {MAX_BATCH} operations and fields at their top"
                )
        return tuple(actions) or (_action(target, "", {"method": facts.method}),)


def _requests(facts: RequestFacts) -> list[dict[str, Any]]:
    """The GraphQL requests that an HTTP request holds; none if it is a GET that asks for something else."""
    if facts.method in ("GET", "HEAD"):
        request = _from_query(facts)
        return [request] if request else []
    if facts.method != "POST":
        raise Unclassifiable("method_not_supported", f"GraphQL has no HTTP method {facts.method}")
    if any(name.casefold() in _FOLDED for name in read_query(facts.query)):
        raise Unclassifiable("ambiguous_query", "a POST has its GraphQL in the body and not in the query too")
    value = read_json(facts)
    requests = value if isinstance(value, list) else [value]
    if not requests or len(requests) > MAX_BATCH:
        raise Unclassifiable("bad_batch", f"a batch has {len(requests)} requests, expected 1 to {MAX_BATCH}")
    return requests


def _from_query(facts: RequestFacts) -> dict[str, Any]:
    given = read_query(facts.query)
    check_spelling(given, _MEMBERS)
    request: dict[str, Any] = {name: value for name, value in given.items() if name in _MEMBERS}
    if not all(isinstance(value, str) for value in request.values()):
        raise Unclassifiable("ambiguous_query", "a parameter of a GraphQL request stands twice in the query")
    for name in ("variables", "extensions"):
        if request.get(name):
            try:
                request[name] = strict_json.loads(request[name])
            except FormatError as e:
                raise Unclassifiable("ambiguous_query", f"{name} cannot be judged: {e}") from None
        else:
            request.pop(name, None)
    return request


def _actions(target: Target, method: str, request: Any) -> Iterator[Classified]:
    # 0.1 s and 10 MB that only a monitor with such a target spends.
    from ..graphql_document import asked_of

    _check(request)
    source, variables = request.get("query") or "", request.get("variables") or {}
    content: dict[str, Any] = {"body": request} if method == "POST" else {}
    persisted = _persisted(request, source)
    if not source:
        yield _action(
            target, "#persisted/" + quoted(persisted), {"method": method}, {"arguments": variables, **content}
        )
        return
    for asked in asked_of(source, request.get("operationName"), variables):
        if asked.type == "mutation" and method != "POST":
            raise Unclassifiable("method_not_supported", "a mutation is sent by POST")
        parameters = {"method": method, **({"operation": asked.operation[:MAX_NAME]} if asked.operation else {})}
        fragment = "#" + quoted(f"{asked.type}/{asked.field}")
        yield _action(target, fragment, parameters, {"arguments": asked.arguments, **content})


def _action(
    target: Target, fragment: str, parameters: dict[str, Any], content: dict[str, Any] | None = None
) -> Classified:
    return Classified(
        ACTION_TYPES[target.kind], target.urn + fragment, parameters, catalog_target=target, content=content
    )


def _check(request: Any) -> None:
    if not isinstance(request, dict):
        raise Unclassifiable("not_graphql", "expected a JSON object with query")
    check_spelling(request, _MEMBERS)
    for names, kind in (("query operationName", str), ("variables extensions", dict)):
        for name in names.split():
            if request.get(name) is not None and not isinstance(request[name], kind):
                raise Unclassifiable(
                    "not_graphql", f"expected {name} to be {'a string' if kind is str else 'an object'}"
                )


def _persisted(request: dict[str, Any], source: str) -> str:
    """The hash or id of a persisted operation; "" if there is none. Raises Unclassifiable if the text is another's."""
    extension = (request.get("extensions") or {}).get("persistedQuery")
    digest = extension.get("sha256Hash") if isinstance(extension, dict) else None
    ids = [one for one in (digest, *(request.get(name) for name in _IDS)) if one is not None]
    if not ids and source:
        return ""
    if len(ids) != 1 or not isinstance(ids[0], str):
        raise Unclassifiable("not_graphql", "expected the text of an operation, or one string as its hash or id")
    if source and (digest is None or digest.lower() != hashlib.sha256(source.encode()).hexdigest()):
        raise Unclassifiable("ambiguous_operation", "a persisted operation is named that is not the text beside it")
    return str(ids[0])
