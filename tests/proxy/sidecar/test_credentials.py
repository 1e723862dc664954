"""The first request head of a connection: whose it is, and that it is one."""

from __future__ import annotations

import base64

import pytest

from lictor.proxy.sidecar.credentials import MAX_HEAD, Refusal, admit, hopeless

TOKEN = "the-token-of-this-run"
GOOD = base64.b64encode(f"lictor:{TOKEN}".encode())
HEAD = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n%s\r\n"


def head(*lines: bytes) -> bytes:
    return HEAD % b"".join(line + b"\r\n" for line in lines)


@pytest.mark.parametrize("name", [b"Proxy-Authorization", b"proxy-authorization", b"PROXY-AUTHORIZATION"])
@pytest.mark.parametrize("value", [b"Basic " + GOOD, b"basic " + GOOD, b"  Basic  " + GOOD + b" \t"])
def test_the_credentials_are_taken_out_and_nothing_else(name: bytes, value: bytes) -> None:
    made = admit(head(b"A: 1", name + b":" + value, b"B:  2 "), TOKEN)
    assert made == head(b"A: 1", b"B:  2 ")


def test_plain_http_is_let_through_too() -> None:
    sent = b"GET http://api.example/ HTTP/1.0\r\nProxy-Authorization: Basic " + GOOD + b"\r\n\r\n"
    assert admit(sent, TOKEN) == b"GET http://api.example/ HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    {
        "none": (),
        "another token": (b"Proxy-Authorization: Basic " + base64.b64encode(b"lictor:guess"),),
        "another user": (b"Proxy-Authorization: Basic " + base64.b64encode(f"root:{TOKEN}".encode()),),
        "only the user": (b"Proxy-Authorization: Basic " + base64.b64encode(b"lictor"),),
        "empty": (b"Proxy-Authorization:",),
        "not base64": (b"Proxy-Authorization: Basic !!!!",),
        "bearer": (b"Proxy-Authorization: Bearer " + TOKEN.encode(),),
        "the origin's header": (b"Authorization: Basic " + GOOD,),
        "bytes beyond ASCII": (b"Proxy-Authorization: Basic \xff\xfe",),
    }.values(),
)
def test_without_the_token_407(lines: tuple[bytes, ...]) -> None:
    refusal = admit(head(*lines), TOKEN)
    assert isinstance(refusal, Refusal)
    response = refusal.response()
    assert response.startswith(b"HTTP/1.1 407 lictor exec: proxy credentials ")
    assert b'\r\nProxy-Authenticate: Basic realm="lictor exec"\r\n' in response
    assert b"\r\nConnection: close\r\n" in response
    assert b"HTTPS_PROXY" in response
    assert TOKEN.encode() not in response


@pytest.mark.parametrize(
    "sent",
    {
        "no version": b"CONNECT api.example:443\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
        "two spaces": b"GET  http://a/ HTTP/1.1\r\n\r\n",
        "space before the colon": head(b"Proxy-Authorization : Basic " + GOOD),
        "folded line": head(b"A: 1", b" Proxy-Authorization: Basic " + GOOD),
        "no colon": head(b"A"),
        "bare line feed": head(b"A: 1\nProxy-Authorization: Basic " + GOOD),
        "bare carriage return": head(b"A: 1\rB: 2", b"Proxy-Authorization: Basic " + GOOD),
        "null byte": head(b"A: \x00", b"Proxy-Authorization: Basic " + GOOD),
        "credentials twice": head(*[b"Proxy-Authorization: Basic " + GOOD] * 2),
        "right and wrong": head(b"Proxy-Authorization: Basic " + GOOD, b"Proxy-Authorization: Basic eDp5"),
    }.values(),
)
def test_what_is_no_request_head_400(sent: bytes) -> None:
    refusal = admit(sent, TOKEN)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"\x16\x03\x01", 400),
        (b"\x05\x01\x00", 400),
        (b"\r\n", 400),
        (b"G" * (MAX_HEAD + 1), 431),
        (b"GET http://a/ HTTP/1.1\r\nA: " + b"a" * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
def test_what_is_refused_at_its_start(start: bytes, status: int) -> None:
    refusal = hopeless(start)
    assert refusal is not None
    assert refusal.status == status


@pytest.mark.parametrize("start", [b"G", b"CONNECT api", b"G" * MAX_HEAD])
def test_what_may_still_become_a_head(start: bytes) -> None:
    assert hopeless(start) is None
