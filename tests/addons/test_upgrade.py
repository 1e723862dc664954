"""Who asks for a WebSocket asks rightly, and who grants it was asked."""

from __future__ import annotations

from typing import Any

import pytest
from flows import make_flow
from mitmproxy import http

from lictor.addons.guard import NameRefused
from lictor.addons.upgrade import Upgrade, problem_with_grant, read_upgrade

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASKED = {
    b"Connection": b"Upgrade",
    b"Upgrade": b"websocket",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}


def request(*more: tuple[bytes, bytes], method: str = "GET", **changed: bytes | None) -> http.Request:
    headers = {**ASKED, **{name.replace("_", "-").encode(): value for name, value in changed.items()}}
    fields = [(name, value) for name, value in headers.items() if value is not None]
    return make_flow(method, "/chat", *fields, *more).request


def response(*more: tuple[bytes, bytes], status: int = 101, **changed: bytes | None) -> http.Response:
    headers = {b"Upgrade": b"websocket", b"Connection": b"Upgrade", b"Sec-WebSocket-Accept": ACCEPT}
    headers |= {name.replace("_", "-").encode(): value for name, value in changed.items()}  # type: ignore[arg-type]
    fields = [(name, value) for name, value in headers.items() if value is not None]
    return http.Response.make(status, b"", http.Headers([*fields, *more])) if status != 101 else _bare(fields, more)


def _bare(fields: Any, more: Any) -> http.Response:
    made = http.Response.make(101)
    made.headers = http.Headers([*fields, *more])
    return made


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(Upgrade=b"WebSocket", Connection=b"keep-alive, upgrade"),
        request((b"Sec-WebSocket-Extensions", b"permessage-deflate"), (b"Origin", b"https://x.example")),
        request((b"Content-Length", b"0")),
    ],
    ids=["as the RFC writes it", "in another case", "with extensions", "with an empty body"],
)
def test_asked_rightly(asked: http.Request) -> None:
    upgrade = read_upgrade(asked)
    assert upgrade is not None
    assert upgrade.key == KEY.decode()
    upgrade.offer(asked.headers)
    assert (asked.headers["connection"], asked.headers["upgrade"]) == ("Upgrade", "websocket")
    assert "sec-websocket-extensions" not in asked.headers


def test_subprotocols_are_kept_in_order() -> None:
    upgrade = read_upgrade(request((b"Sec-WebSocket-Protocol", b"b, a"), (b"Sec-WebSocket-Protocol", b"c")))
    assert upgrade is not None
    assert upgrade.protocols == ("b", "a", "c")


@pytest.mark.parametrize("other", [b"h2c", b"TLS/1.0", None])
def test_an_upgrade_to_something_else_is_none(other: bytes | None) -> None:
    assert read_upgrade(request(Upgrade=other)) is None


@pytest.mark.parametrize(
    "asked",
    [
        request(Connection=None),
        request(Connection=b"keep-alive"),
        request(Upgrade=b"h2c, websocket"),
        request(Upgrade=b"websocket/13"),
        request((b"Upgrade", b"websocket")),
        request(method="POST"),
        request((b"Content-Length", b"1")),
        request((b"Transfer-Encoding", b"chunked")),
        request(Sec_WebSocket_Version=b"8"),
        request(Sec_WebSocket_Version=None),
        request((b"Sec-WebSocket-Version", b"13")),
        request(Sec_WebSocket_Key=None),
        request(Sec_WebSocket_Key=b"AAAA"),
        request(Sec_WebSocket_Key=KEY + b"AAAA"),
        request(Sec_WebSocket_Key=b"\xff" * 24),
        request((b"Sec-WebSocket-Key", KEY)),
        request((b"Sec-WebSocket-Protocol", b"a b")),
        request((b"Sec-WebSocket-Protocol", b"a,,b")),
        request((b"Sec-WebSocket-Protocol", b"a, a")),
        request((b"Sec-WebSocket-Protocol", b"a" * 257)),
        request((b"Sec-WebSocket-Protocol", ",".join(map(str, range(33))).encode())),
    ],
)
def test_asked_wrongly(asked: http.Request) -> None:
    with pytest.raises(NameRefused) as refused:
        read_upgrade(asked)
    assert refused.value.reason == "upgrade_refused"


def test_http_2_has_no_upgrade() -> None:
    asked = request()
    asked.http_version = "HTTP/2.0"
    with pytest.raises(NameRefused):
        read_upgrade(asked)


OFFERED = Upgrade(KEY.decode(), ("chat",))


@pytest.mark.parametrize("granted", [response(), response(Upgrade=b"WebSocket", Sec_WebSocket_Protocol=b"chat")])
def test_granted(granted: http.Response) -> None:
    assert problem_with_grant(OFFERED, granted) == ""


@pytest.mark.parametrize(
    "granted",
    [
        response(Upgrade=b"h2c"),
        response(Upgrade=None),
        response(Connection=None),
        response(Sec_WebSocket_Accept=None),
        response(Sec_WebSocket_Accept=ACCEPT.lower()),
        response((b"Sec-WebSocket-Accept", ACCEPT)),
        response((b"Sec-WebSocket-Extensions", b"permessage-deflate")),
        response(Sec_WebSocket_Protocol=b"raw"),
        response(Sec_WebSocket_Protocol=b"chat, raw"),
        response((b"Sec-WebSocket-Protocol", b"chat"), (b"Sec-WebSocket-Protocol", b"chat")),
        response((b"Content-Length", b"5")),
        response((b"Transfer-Encoding", b"chunked")),
    ],
)
def test_granted_otherwise(granted: http.Response) -> None:
    assert problem_with_grant(OFFERED, granted)


def test_granted_to_nobody() -> None:
    assert problem_with_grant(None, response())
