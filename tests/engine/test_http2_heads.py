"""Header blocks of HTTP/2: what they say, or what is wrong with them. Refused requests: end_to_end/refused_http2.py."""

from __future__ import annotations

import pytest

from lictor.engine.http2_heads import read_request, read_response, read_trailers
from lictor.engine.request_reader import problem_with

AT = b"a.example"
HEAD = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", AT), (b":path", b"/x?y"))


@pytest.mark.parametrize(
    "fields",
    [
        HEAD,
        (*HEAD, (b"host", AT)),
        (HEAD[0], HEAD[1], HEAD[3], (b"host", AT)),
    ],
    ids=["authority", "both", "host"],
)
def test_the_one_name_of_a_request(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    request = read_request((*fields, (b"x-a", b"b")), ended=True)
    assert problem_with(request) is None
    assert (request.data.authority, request.data.method, request.data.path) == (AT, b"GET", b"/x?y")
    assert request.headers.fields == ((b"x-a", b"b"),)
    assert request.is_http2


def test_a_refused_request_says_what_it_was() -> None:
    request = read_request((*HEAD, (b"X", b"")), ended=True)
    problem = problem_with(request)
    assert problem is not None
    assert problem.reason == "invalid_request"
    assert "uppercase" in problem.text
    assert (request.data.method, request.data.path) == (b"GET", b"/"), "nothing of it is passed on"


def test_a_length_of_nothing_needs_no_body() -> None:
    assert problem_with(read_request((*HEAD, (b"content-length", b"0")), ended=True)) is None
    assert problem_with(read_request((*HEAD, (b"content-length", b"5")), ended=False)) is None
    assert problem_with(read_request((*HEAD, (b"content-length", b"5")), ended=True)) is not None


def test_a_response() -> None:
    response = read_response(((b":status", b"204"), (b"x-a", b"b")))
    assert (response.status_code, response.headers.fields, response.is_http2) == (204, ((b"x-a", b"b"),), True)


@pytest.mark.parametrize("status", [b"", b"20", b"0200", b"+20", b"101", b"199", b" 200", b"2 0", "２００".encode()])
def test_a_status_that_is_none(status: bytes) -> None:
    with pytest.raises(ValueError, match=r"status|whitespace"):
        read_response(((b":status", status),))


def test_trailers() -> None:
    kept = read_trailers(((b"grpc-status", b"0"), (b"content-length", b"3"), (b"host", b"x"), (b"x-a", b"")))
    assert kept.fields == ((b"grpc-status", b"0"), (b"x-a", b""))


@pytest.mark.parametrize(
    "field", [(b":path", b"/"), (b"X", b""), (b"x", b"a\r\nb"), (b"connection", b"close"), (b"x", b"v" * 70_000)]
)
def test_trailers_that_are_none(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"pseudo|uppercase|Illegal|connection|Connection|bytes"):
        read_trailers((field,))
