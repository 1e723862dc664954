"""By which way evidence goes and comes back, and what a request is known by that must not be touched."""

from __future__ import annotations

from typing import Any

import pytest
from flows import make_flow
from mitmproxy import http

from lictor.addons.ways import (
    Carriage,
    WayBack,
    ask_for_trailers,
    choose,
    is_signed,
    is_streamed,
    lacks_evidence,
    request_digest,
    take_from_trailers,
    takes_trailers,
    way_back,
    way_there,
)
from lictor.bindings.facts import Classified
from lictor.bindings.model import ActionType, Decision, Verdict
from lictor.bindings.target import Target
from lictor.formats.errors import FormatError

URN = "urn:test:agent:b"
CONTEXT = (b"Execution-Context", b"line")
ALLOW = Decision(Verdict.ALLOW, "allowed", ())


def covering(*names: str) -> tuple[tuple[bytes, bytes], ...]:
    listed = " ".join(f'"{name}"' for name in names).encode()
    return (b"Signature-Input", b"sig=(%s);created=1" % listed), (b"Signature", b"sig=:YQ==:")


def request(*headers: tuple[bytes, bytes], path: str = "/x", body: bytes = b"{}", method: str = "POST") -> http.Request:
    return make_flow(method, path, *headers, body=body).request


def answer(*headers: tuple[bytes, bytes], status: int = 200, version: bytes = b"HTTP/1.1") -> http.Response:
    made = http.Response.make(status, b"", http.Headers(headers))
    if not any(name.lower() == b"content-length" for name, _ in headers):
        made.headers.pop("content-length", None)
    made.data.http_version = version
    return made


@pytest.mark.parametrize(
    ("headers", "apart", "asks"),
    [
        ((), False, True),
        ((CONTEXT,), False, True),
        ((CONTEXT, *covering("@method", "content-type")), False, True),
        ((CONTEXT, *covering("execution-context")), True, False),
        (((b"Behavioral-Evidence", b""), *covering("behavioral-evidence")), True, False),
        (((b"Behavioral-Evidence-Checkpoint", b""), *covering("behavioral-evidence-checkpoint")), True, False),
        (((b"TE", b"gzip"), *covering("te")), False, False),
        (((b"Connection", b"close"), *covering("connection")), False, False),
    ],
)
def test_the_way_there(headers: Any, apart: bool, asks: bool) -> None:
    found = way_there(request(*headers))
    assert (bool(found.apart), found.asks) == (apart, asks)


@pytest.mark.parametrize("name", ["execution-context", "behavioral-evidence", "behavioral-evidence-checkpoint"])
def test_a_field_that_is_covered_and_not_there(name: str) -> None:
    with pytest.raises(FormatError, match=f"covers {name}, which the request does not have"):
        way_there(request(*covering(name)))


def test_what_a_request_is_known_by() -> None:
    base = (CONTEXT, *covering("execution-context"))
    known = request_digest(request(*base))
    assert len(known) == 43
    assert known == request_digest(request((b"X-Via", b"1"), *((n.lower(), v) for n, v in base), (b"TE", b"trailers")))
    others = [
        request(*base, path="/y"),
        request(*base, path="/x?q"),
        request(*base, method="PUT"),
        request(*base, body=b"{} "),
        request(*base, body=b""),
        request((b"Execution-Context", b"other"), *base[1:]),
        request(CONTEXT, *base),
        request(CONTEXT, base[1], (b"Signature", b"sig=:Yg==:")),
        request(*base, (b"Workload-Proof-Token", b"x")),
        request(*base, (b"Workload-Identity-Token", b"x")),
        request(*base, (b"Behavioral-Evidence", b"x")),
        request((b"Execution-Context", b"lin"), (b"Execution-Context", b"e"), *base[1:]),
    ]
    assert len({known, *map(request_digest, others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (request(CONTEXT, body=b"{}"), request((b"Execution-Context", b"lin"), body=b"e{}")),
        (
            request((b"Signature-Input", b"x"), (b"Signature", b"y"), (b"Signature", b"signature")),
            request(*((b"Signature-Input", line) for line in (b"x", b"signature", b"y"))),
        ),
    ],
)
def test_no_other_request_is_known_by_the_same(one: http.Request, other: http.Request) -> None:
    """Its parts are told apart, whatever stands in them."""
    assert request_digest(one) != request_digest(other)


@pytest.mark.parametrize(
    ("target", "headers", "reason", "by"),
    [
        (Target(URN, "agent", (), "a2a"), (), "allowed", None),
        (Target(URN, "agent", (), "a2a"), covering("execution-context"), "evidence_not_deliverable", None),
        (Target(URN, "agent", (), "a2a", evidence="https://e"), covering("execution-context"), "allowed", "delivery"),
        (Target(URN, "agent", (), "a2a", evidence="https://e"), covering("Bad"), "signature_doubtful", None),
        (None, covering("execution-context"), "evidence_not_deliverable", None),
    ],
)
def test_choosing(target: Target | None, headers: Any, reason: str, by: str | None) -> None:
    judged = [
        (Classified(ActionType.DELEGATION, URN, {"method": "POST"}, catalog_target=target), ALLOW),
        (Classified(ActionType.HTTP_REQUEST, "https://push.example/"), ALLOW),
    ]
    carriage, found = choose(request(CONTEXT, *headers), judged)
    assert [decision.reason for _, decision in found] == [reason, reason]
    assert [action.parameters.get("evidence_by") for action, _ in found] == [by, None]
    assert bool(carriage.apart) is (by is not None)


def test_asking_for_trailers() -> None:
    asked = request((b"Connection", b"keep-alive"))
    assert not takes_trailers(asked)
    for _ in range(2):
        ask_for_trailers(asked)
    assert takes_trailers(asked)
    assert asked.headers.get_all("te") == ["trailers"]
    assert asked.headers.get_all("connection") == ["keep-alive", "TE"]
    assert takes_trailers(request((b"TE", b"gzip;q=0.5, Trailers")))
    assert not takes_trailers(request((b"TE", b"no-trailers")))


def test_whoever_speaks_http_1_0_is_sent_no_chunks() -> None:
    """It could not read them (RFC 9112 section 6.1), wherever they come from."""
    asked = request(TE)
    asked.http_version = "HTTP/1.0"
    assert way_back(asked, answer()) == WayBack(True, "fetch")
    del asked.headers["te"]
    ask_for_trailers(asked)
    assert "te" not in asked.headers


def test_http_2_has_no_field_that_names_fields_of_the_connection() -> None:
    asked = request()
    asked.http_version = "HTTP/2.0"
    ask_for_trailers(asked)
    assert takes_trailers(asked)
    assert "connection" not in asked.headers  # RFC 9113 section 8.2.2


@pytest.mark.parametrize(
    ("what", "response", "streamed"),
    [
        ("length", answer((b"Content-Length", b"2")), False),
        ("chunked", answer((b"Transfer-Encoding", b"chunked")), True),
        ("until closed", answer(), True),
        ("no content", answer(status=204), False),
        ("not modified", answer(status=304), False),
    ],
)
def test_streamed(what: str, response: http.Response, streamed: bool) -> None:
    assert is_streamed(request(), response) is streamed
    assert not is_streamed(request(method="HEAD"), response)


TE = (b"TE", b"trailers")
LENGTH = (b"Content-Length", b"2")


@pytest.mark.parametrize(
    ("what", "asked", "response", "expected"),
    [
        ("plain", (), answer(LENGTH), WayBack(True, "")),
        ("plain, trailers taken", (TE,), answer(LENGTH), WayBack(True, "")),
        ("stream", (), answer(), WayBack(True, "fetch")),
        ("stream, trailers taken", (TE,), answer(), WayBack(True, "trailers")),
        ("stream of HTTP/1.0", (TE,), answer(version=b"HTTP/1.0"), WayBack(True, "fetch")),
        ("stream with another coding", (TE,), answer((b"Transfer-Encoding", b"gzip, chunked")), WayBack(True, "fetch")),
        ("signed", (TE,), answer(LENGTH, *covering("@status")), WayBack(True, "")),
        ("signed with ours", (TE,), answer(LENGTH, *covering("execution-context")), WayBack(False, "fetch")),
        ("stream signed with ours", (TE,), answer(*covering("behavioral-evidence")), WayBack(False, "fetch")),
        ("coding signed", (TE,), answer(*covering("transfer-encoding")), WayBack(True, "fetch")),
        ("doubtful", (TE,), answer(LENGTH, (b"Signature-Input", b"x")), WayBack(False, "fetch")),
    ],
)
def test_the_way_back(what: str, asked: Any, response: http.Response, expected: WayBack) -> None:
    assert way_back(request(*asked), response) == expected


MONITORED = Carriage(target=Target(URN, "agent", (), "a2a", "spiffe://x.test/agent/b"))
BOTH = {"peer_ect": ["x"], "peer_bet": ["x"]}


@pytest.mark.parametrize(
    ("what", "carriage", "response", "came", "lacks"),
    [
        ("all there", MONITORED, answer(LENGTH), BOTH, False),
        ("nothing there", MONITORED, answer(LENGTH), {}, True),
        ("no BET", MONITORED, answer(LENGTH), {"peer_ect": ["x"]}, True),
        ("stream without its end", MONITORED, answer(), BOTH, True),
        ("stream with its end", MONITORED, answer(), {**BOTH, "last_evidence": "trailers"}, False),
        ("signed, with lines of the agent's", MONITORED, answer(LENGTH, *covering("execution-context")), BOTH, True),
        ("refused by something in between", MONITORED, answer(LENGTH, status=503), {}, False),
        ("agent without a monitor", Carriage(target=Target(URN, "agent", (), "a2a")), answer(), {}, False),
        ("not ours", Carriage(), answer(), {}, False),
    ],
)
def test_what_is_still_to_come(what: str, carriage: Carriage, response: http.Response, came: Any, lacks: bool) -> None:
    flow = make_flow("POST", "/x", body=b"{}")
    flow.response = response
    assert lacks_evidence(carriage, flow, came) is lacks


def test_evidence_is_taken_out_of_trailers() -> None:
    response = answer()
    response.trailers = http.Headers([(b"x-sum", b"1"), (b"execution-context", b"n"), (b"Behavioral-Evidence", b"b")])
    assert take_from_trailers(response).fields == ((b"execution-context", b"n"), (b"Behavioral-Evidence", b"b"))
    assert response.trailers.fields == ((b"x-sum", b"1"),)
    response.trailers = http.Headers([(b"behavioral-evidence-checkpoint", b"b")])
    assert len(take_from_trailers(response).fields) == 1
    assert response.trailers is None
    assert take_from_trailers(response).fields == ()


@pytest.mark.parametrize("name", [b"Signature", b"signature-input", b"Workload-Proof-Token"])
def test_what_may_be_a_signature(name: bytes) -> None:
    assert is_signed(http.Headers([(name, b"")]))
    assert not is_signed(http.Headers([(b"Workload-Identity-Token", b"")]))


class Compared(bytes):
    """Octets that count how often they are compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return bytes.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = bytes.__hash__


def test_any_number_of_trailers_is_gone_through_once() -> None:
    """A server of any kind can send as many as have room in 64 KiB."""
    Compared.times, response = 0, http.Response.make(200)
    evidence = [(Compared(b"execution-context"), Compared(b"%d" % n)) for n in range(500)]
    others = [(Compared(b"x"), Compared(b"%d" % n)) for n in range(500)]
    response.trailers = http.Headers(evidence + others)
    assert len(take_from_trailers(response).fields) == len(response.trailers.fields) == 500
    assert Compared.times < 5000
