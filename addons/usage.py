"""How many tokens a model used, read beside its answer while that passes: no byte is held back or changed.

Read are JSON answers and streams of server-sent events up to a limit (of a stream: each event). So that they can be
read, the server is asked not to compress them. What was not read to its end is stated as unknown, never as nothing.
"""

from __future__ import annotations

from typing import Any

import orjson
from mitmproxy import http

from ..bindings.model_api import ModelApi
from ..bindings.protocols import PROTOCOLS
from ..formats.errors import FormatError
from ..formats.sse import Event, Splitter
from .exchange import exchange_of

MAX_COUNT = (1 << 53) - 1
MAX_MODEL = 256
_INPUT = ("input_tokens", "prompt_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_OUTPUT = ("output_tokens", "completion_tokens")
_TAKEN = frozenset((*_INPUT, *_OUTPUT, "total_tokens", "iterations"))
_LAST = frozenset((b"message_stop", b"response.completed", b"response.failed", b"response.incomplete"))


class Usage:
    """Gives the exchanges with model APIs a reader; the outcome states what it has read."""

    def __init__(self, limit: int) -> None:
        """`limit`: the largest answer, or event of a stream, that is read, in bytes."""
        self._limit = limit

    def request(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is None or exchange.permit is None or exchange.inbound:
            return
        target = exchange.classified[0].catalog_target
        api = PROTOCOLS[target.protocol] if target is not None else None
        if not isinstance(api, ModelApi):
            return
        parameters = [action.parameters for action in exchange.classified]
        reads = parameters[0]["method"] != "POST" and exchange.upgrade is None
        free = reads or parameters[0].get("operation") in api.free
        models = tuple(named["model"] for named in parameters if "model" in named)
        exchange.usage = UsageReader(models, free, self._limit)
        flow.request.headers["accept-encoding"] = "identity"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is not None and exchange.usage is not None and flow.response is not None:
            headers = flow.response.headers
            exchange.usage.begin(headers.get("content-type", ""), headers.get("content-encoding", "identity"))


class UsageReader:
    """Reads one answer (sans-io): `begin`, `update` with each piece of it, `stated` at its end."""

    def __init__(self, models: tuple[str, ...], free: bool, limit: int) -> None:
        """`models`: those that the request names; `free`: it uses no tokens, whatever its answer says."""
        self._models = models
        self._free = free
        self._limit = limit
        self._whole: bytearray | None = None
        self._events: Splitter | None = None
        self._found: dict[str, Any] = {}
        self._model = ""
        self._final = self._ended = False

    def begin(self, content_type: str, encoding: str) -> None:
        """The head of the answer is in."""
        media = content_type.partition(";")[0].strip().lower()
        if self._free or encoding.strip().lower() != "identity":
            return
        if media == "text/event-stream":
            self._events = Splitter(self._limit)
        elif media == "application/json" or media.endswith("+json"):
            self._whole = bytearray()

    def update(self, chunk: bytes) -> None:
        """Bytes of the answer as they pass; b"" ends it. Never raises."""
        if self._whole is not None:
            self._whole += chunk
            if len(self._whole) > self._limit:
                self._whole = None
        elif self._events is not None:
            try:
                for event in self._events.feed(chunk):
                    self._take(event)
            except FormatError:
                self._events = None
                self._final = False

    def stated(self, complete: bool) -> dict[str, object]:
        """For the outcome: `usage`, or `usage_unknown`. `complete`: the answer came to its end."""
        if self._free:
            return {"usage": {"model": self._named(), "input_tokens": 0, "output_tokens": 0}}
        if self._whole is not None and complete:
            self._read(bytes(self._whole))
        counts = _counts(self._found) if self._final and (complete or self._ended) else None
        if counts is None:
            return {"usage_unknown": True}
        return {"usage": {"model": self._named(), "input_tokens": counts[0], "output_tokens": counts[1]}}

    def _take(self, event: Event) -> None:
        if event.type in _LAST or event.data == b"[DONE]":
            self._ended = True
        if event.data is not None and b'"usage"' in event.data:
            self._read(event.data)

    def _read(self, data: bytes) -> None:
        """An answer, or an event of one: what it says is used so far. Later ones replace what earlier ones said."""
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        if not isinstance(value, dict):
            return
        for holder in (value, value.get("response"), value.get("message")):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                said = holder["usage"]
                self._found |= {name: said[name] for name in _TAKEN if said.get(name) is not None}
                if isinstance(holder.get("model"), str):
                    self._model = holder["model"][:MAX_MODEL]
                # At its start Anthropic states the input and a first token of output only.
                self._final = value.get("type") != "message_start"

    def _named(self) -> str:
        """The model that was judged, where the answer does not name another one that was judged too."""
        if self._model in self._models or not self._models:
            return self._model
        return self._models[0]


def _counts(usage: dict[str, Any]) -> tuple[int, int] | None:
    """Input and output; None if they are not stated. Of what a request took in parts the larger sum counts."""
    counted, parts = _of_one(usage), usage.get("iterations")
    if counted is not None and isinstance(parts, list):
        each = [one for one in map(_of_one, parts) if one is not None]
        counted = max(counted[0], sum(i for i, _ in each)), max(counted[1], sum(o for _, o in each))
    return counted if counted is not None and max(counted) <= MAX_COUNT else None


def _of_one(usage: Any) -> tuple[int, int] | None:
    """Input counts what was read from or written to a cache too: Anthropic states that besides, OpenAI included."""
    if not isinstance(usage, dict):
        return None
    into = [usage[name] for name in _INPUT if name in usage]
    out = [usage[name] for name in _OUTPUT if name in usage]
    if not out and into and "total_tokens" in usage:  # embeddings have no output
        out = [0]
    if not into or not out or not all(type(n) is int and n >= 0 for n in (*into, *out)):
        return None
    return sum(into), sum(out)
