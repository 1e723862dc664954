"""How it ended, once for every permitted request, with exact counts."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from flows import FakeControl, make_flow, nothing_open
from mitmproxy import flow as mitm_flow
from mitmproxy import http

from lictor.addons.exchange import Exchange, Tally, attach
from lictor.addons.outcome import BUFFERED, Outcome, short
from lictor.addons.ways import Carriage
from lictor.bindings.facts import Classified
from lictor.bindings.model import ActionType
from lictor.bindings.target import Target
from lictor.evidence.entry import Receipt
from lictor.formats import base64url


def sent(*, permit: bool = True, delegation: bool = False, receipts: int = 1) -> tuple[http.HTTPFlow, Exchange]:
    flow = make_flow()
    exchange = Exchange("spiffe://x.test/agent/a", False, "https", "api.example", 443, "/", "")
    if permit:
        exchange.permit = ("https", "api.example", 443)
    if delegation:
        exchange.classified = (Classified(ActionType.DELEGATION, "urn:test:agent"),)
    exchange.receipts = tuple(Receipt(n, 1.0, "allow", "allowed", "w", "n") for n in range(receipts))
    exchange.request_tally = Tally(None)
    exchange.request_tally.update(b"question")
    attach(flow, exchange)
    return flow, exchange


def answer(control: FakeControl, flow: http.HTTPFlow, body: bytes, *headers: tuple[bytes, bytes]) -> Outcome:
    """Run the hooks as the engine does: streamed or in one piece."""
    outcome = Outcome(control, nothing_open())
    flow.response = http.Response.make(200, b"", http.Headers(headers))
    if not headers:
        flow.response.headers["content-length"] = str(len(body))
    outcome.responseheaders(flow)
    if callable(flow.response.stream):
        for start in range(0, len(body), 1000):
            assert flow.response.stream(body[start : start + 1000]) == body[start : start + 1000]
        assert flow.response.stream(b"") == b""
    else:
        flow.response.raw_content = body
    outcome.response(flow)
    return outcome


@pytest.mark.parametrize("size", [0, 1, BUFFERED, BUFFERED + 1])
def test_counts(control: FakeControl, size: int) -> None:
    flow, _ = sent()
    answer(control, flow, b"x" * size)
    (draft,) = control.outcomes
    assert draft.outcome_of == 0
    said: dict[str, Any] = dict(draft.outcome)
    assert said.pop("duration_ms") >= 0
    expected = {
        "status": 200,
        "complete": True,
        "request_bytes": 8,
        "request_digest": digest(b"question"),
        "response_bytes": size,
    }
    assert said == expected | ({"response_digest": digest(b"x" * size)} if size else {})


def digest(data: bytes) -> str:
    return "sha-256:" + base64url.encode(hashlib.sha256(data).digest())


def test_once(control: FakeControl) -> None:
    flow, _ = sent()
    outcome = answer(control, flow, b"x")
    flow.error = mitm_flow.Error("late")
    outcome.error(flow)
    outcome.response(flow)
    assert len(control.outcomes) == 1


def test_every_member_of_a_batch(control: FakeControl) -> None:
    flow, _ = sent(receipts=3)
    answer(control, flow, b"x")
    assert [draft.outcome_of for draft in control.outcomes] == [0, 1, 2]


@pytest.mark.parametrize("answered", [False, True])
def test_broken_off(control: FakeControl, answered: bool) -> None:
    flow, _ = sent()
    outcome = Outcome(control, nothing_open())
    if answered:
        flow.response = http.Response.make(206)
        del flow.response.headers["content-length"]
        outcome.responseheaders(flow)
        assert callable(flow.response.stream)
        flow.response.stream(b"abc")
    flow.error = mitm_flow.Error("server closed connection" * 100)
    outcome.error(flow)
    (draft,) = control.outcomes
    assert draft.outcome["complete"] is False
    assert draft.outcome["status"] == (206 if answered else 0)
    assert draft.outcome["response_bytes"] == (3 if answered else 0)
    assert len(draft.outcome["error"]) == 200


@pytest.mark.parametrize("what", ["refused", "unknown"])
def test_what_was_not_sent_has_no_outcome(control: FakeControl, what: str) -> None:
    flow, exchange = sent(permit=False)
    exchange.refused = what == "refused"
    if what == "unknown":
        flow.metadata.clear()
    answer(control, flow, b"x")
    assert control.outcomes == []


def test_evidence_of_the_other_side(control: FakeControl) -> None:
    """Of a delegation its digest is kept and the line goes on; of anything else it is taken away."""
    for delegation in (True, False):
        flow, _ = sent(delegation=delegation)
        lines = ((b"Behavioral-Evidence", b"a.b.c"), (b"Content-Length", b"0"))
        answer(control, flow, b"", *lines)
        assert flow.response is not None
        assert ("behavioral-evidence" in flow.response.headers) is delegation
        assert ("peer_bet" in control.outcomes[-1].outcome) is delegation


@pytest.mark.parametrize(
    ("length", "expected"),
    [("0", True), (str(BUFFERED), True), (str(BUFFERED + 1), False), ("", False), ("-1", False), ("1e3", False)],
)
def test_short(length: str, expected: bool) -> None:
    assert short(http.Headers(content_length=length)) is expected


def test_of_unknown_length_is_streamed() -> None:
    assert not short(http.Headers())


def delegated(flow: http.HTTPFlow, exchange: Exchange, **more: Any) -> None:
    target = Target("urn:test:agent", "agent", (), "a2a", "spiffe://x.test/agent/b", evidence="https://b.example:1")
    exchange.classified = (Classified(ActionType.DELEGATION, "urn:test:agent", catalog_target=target),)
    exchange.carriage = Carriage(target=target, **more)
    exchange.receipts = (Receipt(0, 1.0, "allow", "allowed", "w", "node-a", ("node.a",)),)


HEAD = (b"Execution-Context", b"node.b"), (b"Behavioral-Evidence", b"bet.1")
TRAILERS = http.Headers([(b"x-sum", b"1"), (b"execution-context", b"node.b"), (b"behavioral-evidence", b"bet.2")])


def streamed(
    control: FakeControl, flow: http.HTTPFlow, trailers: http.Headers | None, *lines: tuple[bytes, bytes]
) -> None:
    outcome = Outcome(control, nothing_open())
    flow.response = http.Response.make(200, b"", http.Headers(lines))
    del flow.response.headers["content-length"]
    outcome.responseheaders(flow)
    flow.response.trailers = trailers
    outcome.response(flow)


@pytest.mark.parametrize("passes", [True, False])
def test_evidence_after_a_stream(control: FakeControl, passes: bool) -> None:
    flow, exchange = sent()
    delegated(flow, exchange, passes=passes)
    streamed(control, flow, TRAILERS.copy(), *HEAD)
    [draft] = control.outcomes
    assert draft.outcome["last_evidence"] == "trailers"
    assert draft.outcome["peer_ect"] == [plain(b"node.b")]
    assert draft.outcome["peer_bet"] == [plain(b"bet.1"), plain(b"bet.2")]
    assert control.fetched == [None]
    assert flow.response is not None
    assert flow.response.trailers is not None
    assert ("behavioral-evidence" in flow.response.trailers) is passes
    assert flow.response.trailers["x-sum"] == "1"


def test_nobody_elses_word_counts(control: FakeControl) -> None:
    """An origin's trailers say nothing of evidence, to the agent or in the log."""
    for inbound in (False, True):
        flow, exchange = sent()
        exchange.inbound = inbound
        if inbound:
            exchange.carriage = Carriage()
        streamed(control, flow, TRAILERS.copy())
        assert flow.response is not None
        assert flow.response.trailers is not None
        assert flow.response.trailers.fields == ((b"x-sum", b"1"),)
        assert "peer_bet" not in control.outcomes[-1].outcome
        assert "last_evidence" not in control.outcomes[-1].outcome


def test_evidence_that_did_not_come_is_fetched(control: FakeControl) -> None:
    flow, exchange = sent()
    delegated(flow, exchange)
    streamed(control, flow, None, *HEAD)
    assert control.outcomes[0].outcome["last_evidence"] == "missing"
    assert control.fetched == [("urn:test:agent", "node-a")]


def test_evidence_that_came_is_not(control: FakeControl) -> None:
    flow, exchange = sent()
    delegated(flow, exchange)
    answer(control, flow, b"x", (b"Content-Length", b"1"), *HEAD)
    assert "last_evidence" not in control.outcomes[0].outcome
    assert control.fetched == [None]


def plain(line: bytes) -> str:
    return base64url.encode(hashlib.sha256(line).digest())
