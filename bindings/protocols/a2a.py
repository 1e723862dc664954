"""A2A, 0.3 and 1.0: sending a message to the other agent is a delegation; everything else on its URLs is plain HTTP.

A push notification URL tells the other agent to POST to it what becomes of a task. So where a request carries one it is
an action more: an `http_request` to that URL, which a binding must allow as if the agent called it itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ...formats.errors import FormatError
from ...formats.names import parse_url
from ..bodies import read_json, read_object
from ..facts import Classified, RequestFacts, Unclassifiable
from ..jsonrpc import messages_of, parameters_of
from ..model import ActionType
from ..target import Kind, Target

_DELEGATION_METHODS = frozenset(("message/send", "message/stream", "SendMessage", "SendStreamingMessage"))
_DELEGATION_PATHS = ("/message:send", "/message:stream")
_GRPC_PATH = re.compile(r"/(?:[a-z0-9_]+\.)*A2AService/([A-Za-z]+)")
_GRPC_FLAGS = (b"\x00", b"\x01")
MAX_PUSH_URLS = 8


class A2a:
    """Another agent, by JSON-RPC, by the HTTP+JSON binding, or by gRPC (of which only the path is read)."""

    kinds: tuple[Kind, ...] = ("agent",)
    inside: tuple[str, ...] = ()

    def needs_body(self, method: str) -> bool:
        return method == "POST"

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        grpc = _grpc_method(facts)
        if grpc in _DELEGATION_METHODS or unquote(facts.path).rstrip("/").endswith(_DELEGATION_PATHS):
            pushed = _pushed(read_object(facts)) if facts.method == "POST" and not grpc else ()
            parameters = {"method": facts.method}
            return (Classified(ActionType.DELEGATION, target.urn, parameters, catalog_target=target), *pushed)
        plain = Classified(ActionType.HTTP_REQUEST, facts.url, {"method": facts.method}, catalog_target=target)
        if facts.method != "POST" or not facts.body or grpc:
            return (plain,)
        body = read_json(facts)
        if _is_rest(body):
            return (plain, *_pushed(body))
        return tuple(action for message in messages_of(facts)[0] for action in _actions(target, facts, message))


def _grpc_method(facts: RequestFacts) -> str | None:
    """The method of a gRPC call: its path names it, and its body begins as no JSON does."""
    found = _GRPC_PATH.fullmatch(facts.path)
    types = facts.header("content-type")
    if found is None or facts.method != "POST" or len(types) != 1 or not types[0].startswith("application/grpc"):
        return None
    return found[1] if facts.body and facts.body.startswith(_GRPC_FLAGS) else None


def _is_rest(body: Any) -> bool:
    """A body of A2A's HTTP+JSON binding: an object that no JSON-RPC server takes for a message, however lenient."""
    return isinstance(body, dict) and not any(name.casefold() in ("jsonrpc", "method") for name in body)


def _actions(target: Target, facts: RequestFacts, message: dict[str, Any]) -> Iterator[Classified]:
    method, params = message.get("method", ""), message.get("params")
    delegation = method in _DELEGATION_METHODS
    content: dict[str, Any] = {"rpc_method": method}
    if params is not None:
        content["params"] = params
    yield Classified(
        ActionType.DELEGATION if delegation else ActionType.HTTP_REQUEST,
        target.urn if delegation else facts.url,
        parameters_of(facts, message),
        message.get("id"),
        True,
        target,
        content,
    )
    yield from _pushed(params)


def _pushed(params: Any) -> tuple[Classified, ...]:
    """The requests that the other agent is told to make. Raises Unclassifiable for a URL that is none."""
    if not isinstance(params, dict):
        return ()
    # The message itself and its metadata are for the other agent to read: what URLs stand there are content.
    urls = dict.fromkeys(
        url for name, value in params.items() if name not in ("message", "metadata") for url in _urls({name: value})
    )
    if len(urls) > MAX_PUSH_URLS:
        raise Unclassifiable("bad_push_url", f"a request names {len(urls)} URLs to notify, expected {MAX_PUSH_URLS}")
    return tuple(
        Classified(ActionType.HTTP_REQUEST, url, {"method": "POST", "push_notification": True}) for url in urls
    )


def _urls(value: Any) -> Iterator[str]:
    """Every member called `url`, in any spelling, canonical."""
    if isinstance(value, list):
        for inner in value:
            yield from _urls(inner)
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if name.casefold() != "url":
            yield from _urls(inner)
        elif inner not in (None, ""):
            yield _canonical(inner)


def _canonical(url: Any) -> str:
    try:
        if not isinstance(url, str):
            raise FormatError(f"it is {type(url).__name__}")
        parsed = parse_url(url)
    except FormatError as e:
        raise Unclassifiable("bad_push_url", f"a URL to notify cannot be judged: {e}") from None
    return parsed.text
