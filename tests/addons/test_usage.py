"""What a model used, out of its answer as it passes."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from flows import FakeControl, make_flow, nothing_open
from mitmproxy import http

from lictor.addons.exchange import Exchange, attach
from lictor.addons.outcome import BUFFERED, Outcome
from lictor.addons.upgrade import Upgrade
from lictor.addons.usage import MAX_COUNT, Usage, UsageReader
from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import classify
from lictor.bindings.facts import RequestFacts
from lictor.bindings.target import Target
from lictor.evidence.entry import Receipt

OPENAI = Target("urn:test:o", "model", ("https://o.example/**",), "openai")
ANTHROPIC = Target("urn:test:a", "model", ("https://a.example/**",), "anthropic")
PLAIN = Target("urn:test:p", "model", ("https://p.example/**",))
CATALOG = Catalog([OPENAI, ANTHROPIC, PLAIN])
UNKNOWN = {"usage_unknown": True}
LIMIT = 100_000


def used(model: str, into: int, out: int) -> dict[str, Any]:
    return {"usage": {"model": model, "input_tokens": into, "output_tokens": out}}


def reader(*models: str, free: bool = False, limit: int = LIMIT) -> UsageReader:
    return UsageReader(models or ("m",), free, limit)


def stated(
    answer: Any, content_type: str = "application/json", complete: bool = True, by: UsageReader | None = None
) -> dict[str, object]:
    """What is stated of an answer that comes in small pieces."""
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    found = by or reader()
    found.begin(content_type, "identity")
    for start in range(0, len(data), 7):
        found.update(data[start : start + 7])
    found.update(b"")
    return found.stated(complete)


def sse(*events: Any) -> bytes:
    """Events as the two makers send them: with a name where they have a type."""
    out = b""
    for event in events:
        name = f"event: {event['type']}\n".encode() if isinstance(event, dict) and "type" in event else b""
        out += name + b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return out


def stream(*events: Any, complete: bool = True, by: UsageReader | None = None) -> dict[str, object]:
    return stated(sse(*events), "text/event-stream; charset=utf-8", complete, by)


CHAT = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 5}}
RESPONSE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "input_tokens_details": {"cached_tokens": 5}}
MESSAGE = {"input_tokens": 9, "output_tokens": 4, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"object": "chat.completion", "model": "m-2026", "usage": CHAT}, used("m", 9, 4)),
        ({"object": "response", "usage": RESPONSE}, used("m", 9, 4)),
        ({"type": "message", "usage": MESSAGE}, used("m", 329, 4)),
        ({"type": "message", "usage": MESSAGE | {"cache_read_input_tokens": None}}, used("m", 29, 4)),
        ({"object": "list", "usage": {"prompt_tokens": 5, "total_tokens": 5}}, used("m", 5, 0)),
        (
            {"usage": MESSAGE | {"iterations": [{"type": "message", **MESSAGE}, {"type": "compaction", **MESSAGE}]}},
            used("m", 658, 8),
        ),
        ({"usage": MESSAGE | {"iterations": [{"type": "message", "input_tokens": 1}]}}, used("m", 329, 4)),
        ({"object": "response", "status": "queued", "usage": None}, UNKNOWN),
        ({"object": "chat.completion"}, UNKNOWN),
        ({"usage": {"prompt_tokens": 9}}, UNKNOWN),
        ({"usage": {"total_tokens": 9}}, UNKNOWN),
        ({"usage": {"input_tokens": -1, "output_tokens": 4}}, UNKNOWN),
        ({"usage": {"input_tokens": True, "output_tokens": 4}}, UNKNOWN),
        ({"usage": {"input_tokens": 1.5, "output_tokens": 4}}, UNKNOWN),
        ({"usage": {"input_tokens": "9", "output_tokens": 4}}, UNKNOWN),
        ({"usage": {"input_tokens": MAX_COUNT, "output_tokens": 4, "cache_read_input_tokens": 1}}, UNKNOWN),
        ({"usage": [9, 4]}, UNKNOWN),
        ([{"usage": CHAT}], UNKNOWN),
        (b'{"usage": {"prompt_tokens": 9', UNKNOWN),
        (b"", UNKNOWN),
    ],
)
def test_a_json_answer(answer: Any, expected: dict[str, Any]) -> None:
    assert stated(answer) == expected


CHUNK = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": 'the word "usage"'}}], "usage": None}
START = {"type": "message_start", "message": {"model": "m", "usage": MESSAGE | {"output_tokens": 1}}}
DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 'the word "usage"'}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}}
STOP = {"type": "message_stop"}
DONE = b"[DONE]"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((CHUNK, CHUNK, {"choices": [], "usage": CHAT}, DONE), used("m", 9, 4)),
        (({"usage": {"prompt_tokens": 9, "completion_tokens": 1}}, {"usage": CHAT}, DONE), used("m", 9, 4)),
        ((CHUNK, CHUNK, DONE), UNKNOWN),
        (
            (
                {"type": "response.created", "response": {"usage": None}},
                {"type": "response.output_text.delta", "delta": '"usage"'},
                {"type": "response.completed", "response": {"model": "m-1", "usage": RESPONSE}},
            ),
            used("m", 9, 4),
        ),
        (({"type": "response.incomplete", "response": {"usage": RESPONSE}},), used("m", 9, 4)),
        (({"type": "response.failed", "response": {"usage": None}},), UNKNOWN),
        ((START, DELTA, END, STOP), used("m", 329, 40)),
        ((START, {**END, "usage": {"output_tokens": 40, "input_tokens": 10}}, STOP), used("m", 330, 40)),
        ((START, DELTA, {"type": "error", "error": {"type": "overloaded_error"}}), UNKNOWN),
        ((START, DELTA), UNKNOWN),
        ((), UNKNOWN),
        ((b"not json with usage",), UNKNOWN),
    ],
)
def test_a_stream(events: tuple[Any, ...], expected: dict[str, Any]) -> None:
    assert stream(*events) == expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (({"choices": [], "usage": CHAT}, DONE), used("m", 9, 4)),
        ((START, END, STOP), used("m", 329, 40)),
        (({"type": "response.completed", "response": {"usage": RESPONSE}},), used("m", 9, 4)),
        (({"usage": {"prompt_tokens": 9, "completion_tokens": 1}},), UNKNOWN),
        ((START, END), UNKNOWN),
    ],
)
def test_of_a_stream_that_was_cut_off_only_what_was_final_counts(
    events: tuple[Any, ...], expected: dict[str, Any]
) -> None:
    assert stream(*events, complete=False) == expected


def test_a_json_answer_that_was_cut_off_is_unknown() -> None:
    assert stated({"usage": CHAT}, complete=False) == UNKNOWN


def test_the_model_is_one_that_was_judged() -> None:
    assert stated({"model": "b", "usage": CHAT}, by=reader("a", "b")) == used("b", 9, 4)
    assert stated({"model": "c", "usage": CHAT}, by=reader("a", "b")) == used("a", 9, 4)
    unnamed = UsageReader((), False, LIMIT)
    assert stated({"model": "c" * 300, "usage": CHAT}, by=unnamed) == used("c" * 256, 9, 4)


def test_what_is_not_read_is_unknown() -> None:
    assert stated({"usage": CHAT, "x": "y" * LIMIT}) == UNKNOWN
    long = {"choices": [], "x": "y" * LIMIT, "usage": CHAT}
    assert stream({"choices": [], "usage": CHAT}, long, DONE) == UNKNOWN
    assert stated({"usage": CHAT}, "text/plain") == UNKNOWN
    assert stated({"usage": CHAT}, "") == UNKNOWN
    zipped = reader()
    zipped.begin("application/json", "gzip")
    zipped.update(json.dumps({"usage": CHAT}).encode())
    assert zipped.stated(True) == UNKNOWN
    assert reader().stated(False) == UNKNOWN


def test_a_server_cannot_make_the_reader_grow() -> None:
    endless = reader()
    endless.begin("text/event-stream", "identity")
    for n in range(200):
        endless.update(sse({"usage": {**CHAT, f"x{n}": "y" * 1000}}))
    assert sys.getsizeof(endless._found) < 1000
    endless.update(b"data: " + b"x" * (2 * LIMIT))
    endless.update(b"x" * (2 * LIMIT))
    assert endless._events is None


def test_what_is_free_used_nothing_whatever_it_says() -> None:
    assert stated({"input_tokens": 50, "usage": CHAT}, by=reader(free=True)) == used("m", 0, 0)


def asked(target: Target, method: str, path: str, body: dict[str, Any] | None) -> tuple[http.HTTPFlow, Exchange]:
    """A permitted request, classified as the monitor does."""
    host = target.match[0].removeprefix("https://").partition("/")[0]
    data = None if body is None else json.dumps(body).encode()
    flow = make_flow(method, path, (b"Accept-Encoding", b"gzip, br"), host=host, body=data)
    exchange = Exchange("spiffe://x.test/agent/a", False, "https", host, 443, path, "")
    exchange.permit = ("https", host, 443)
    facts = RequestFacts(method, "https", host, 443, path, "", (("content-type", "application/json"),), data)
    exchange.classified = classify(CATALOG, facts)
    exchange.receipts = tuple(Receipt(n, 1.0, "allow", "allowed", "w", "n") for n, _ in enumerate(exchange.classified))
    attach(flow, exchange)
    return flow, exchange


def outcome(control: FakeControl, flow: http.HTTPFlow, data: bytes, content_type: str) -> dict[str, Any]:
    """Through the hooks in the engine's order; the bytes that the client gets are those of the server."""
    usage, recording = Usage(LIMIT), Outcome(control, nothing_open())
    usage.request(flow)
    flow.response = http.Response.make(200, b"", {"content-type": content_type, "content-length": str(len(data))})
    usage.responseheaders(flow)
    recording.responseheaders(flow)
    if callable(flow.response.stream):
        passed = [flow.response.stream(data[start : start + 1000]) for start in range(0, len(data), 1000)]
        assert b"".join(piece for piece in passed if isinstance(piece, bytes)) == data
    else:
        flow.response.raw_content = data
    recording.response(flow)
    return dict(control.outcomes[-1].outcome)


@pytest.mark.parametrize("padding", [0, BUFFERED])
def test_the_outcome_states_it(control: FakeControl, padding: int) -> None:
    flow, _ = asked(OPENAI, "POST", "/v1/chat/completions", {"model": "gpt", "messages": []})
    data = json.dumps({"model": "gpt-2026", "text": "x" * padding, "usage": CHAT}).encode()
    assert outcome(control, flow, data, "application/json")["usage"] == used("gpt", 9, 4)["usage"]
    assert flow.request.headers["accept-encoding"] == "identity"


def test_each_action_of_a_request_has_it(control: FakeControl) -> None:
    flow, exchange = asked(ANTHROPIC, "POST", "/v1/messages", {"model": "a", "fallbacks": [{"model": "b"}]})
    outcome(control, flow, json.dumps({"model": "b", "usage": MESSAGE}).encode(), "application/json")
    assert len(exchange.receipts) == 2
    assert [dict(draft.outcome)["usage"]["model"] for draft in control.outcomes] == ["b", "b"]


@pytest.mark.parametrize(
    ("target", "method", "path", "body", "expected"),
    [
        (OPENAI, "GET", "/v1/models", None, used("", 0, 0)),
        (ANTHROPIC, "POST", "/v1/messages/count_tokens", {"model": "m"}, used("m", 0, 0)),
        (OPENAI, "POST", "/v1/moderations", {"model": "m"}, used("m", 0, 0)),
        (OPENAI, "POST", "/v1/batches", {}, UNKNOWN),
        (OPENAI, "POST", "/v1/responses", {"prompt": {"id": "p"}}, UNKNOWN),
        (PLAIN, "POST", "/v1/chat/completions", {"model": "m"}, {}),
    ],
)
def test_what_an_outcome_states_without_usage(
    control: FakeControl,
    target: Target,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    expected: dict[str, Any],
) -> None:
    flow, _ = asked(target, method, path, body)
    found = outcome(control, flow, b'{"input_tokens": 5}', "application/json")
    assert {name: found[name] for name in ("usage", "usage_unknown") if name in found} == expected


def test_what_is_used_over_a_websocket_is_unknown() -> None:
    flow, exchange = asked(OPENAI, "GET", "/v1/realtime", None)
    exchange.upgrade = Upgrade("key", ())
    Usage(LIMIT).request(flow)
    assert exchange.usage is not None
    assert exchange.usage.stated(True) == UNKNOWN


def test_other_requests_keep_their_accept_encoding() -> None:
    flow, exchange = asked(PLAIN, "POST", "/v1/chat/completions", {"model": "m"})
    Usage(LIMIT).request(flow)
    assert exchange.usage is None
    assert flow.request.headers["accept-encoding"] == "gzip, br"
