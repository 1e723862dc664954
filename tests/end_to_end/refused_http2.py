"""HTTP/2 requests that must be refused: how each is sent, with which status and for which reason.

The connection of each goes on, except for those in `ENDED`. `at` is the authority that bindings know.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from end_to_end.http2 import Field, Http2, head
from end_to_end.refused_requests import CALL, FORBIDDEN, LONG
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

Fields = Callable[[str], list[Field]]


@dataclass
class Case:
    """`fields(at)` of the request and its body, if it has one."""

    fields: Fields
    status: int
    reason: str
    body: bytes | None = None


def plus(*more: Field) -> Fields:
    return lambda at: head(at, "/open/x", "GET", *more)


def put(name: str, value: str) -> Fields:
    """The pseudo field `name` has this value."""
    return lambda at: [(n, value if n == name else v) for n, v in head(at)]


def without(*names: str) -> Fields:
    return lambda at: [(n, v) for n, v in head(at) if n not in names]


def path(value: str, *more: Field, method: str = "GET") -> Fields:
    return lambda at: head(at, value, method, *more)


def mcp(value: Any, status: int, reason: str, *more: Field) -> Case:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Case(path("/mcp", ("content-type", "application/json"), *more, method="POST"), status, reason, body)


INVALID, NAME = (400, "invalid_request"), (400, "doubtful_name")
REFUSED = {
    "path that no pattern allows": Case(path("/closed"), 403, "not_in_allowlist"),
    "authority of another host": Case(put(":authority", "example.org"), 421, "misdirected_request"),
    "authority of another port": Case(put(":authority", "localhost:1"), 421, "misdirected_request"),
    "authority of the same host without port": Case(put(":authority", "localhost"), 421, "misdirected_request"),
    "Host of another host": Case(
        lambda at: [*without(":authority")(at), ("host", "example.org")], 421, "misdirected_request"
    ),
    "Host and authority differ": Case(plus(("host", "example.org")), 400, "name_mismatch"),
    "Host twice": Case(lambda at: [*head(at), ("host", at), ("host", at)], 400, "doubtful_header"),
    "neither Host nor authority": Case(without(":authority"), *NAME),
    "authority empty": Case(put(":authority", ""), *NAME),
    "authority with a user": Case(lambda at: head(f"me@{at}"), *NAME),
    "authority with a percent sign": Case(put(":authority", "%6cocalhost:443"), *NAME),
    "authority not ASCII": Case(put(":authority", "\xe9.example"), *NAME),
    "authority with a dot at its end": Case(put(":authority", "localhost.:443"), *NAME),
    "authority short address": Case(put(":authority", "127.1:443"), *NAME),
    "authority and a path": Case(lambda at: head(f"{at}/open"), *NAME),
    "authority twice": Case(lambda at: [(":authority", at), *head(at)], *INVALID),
    "scheme http": Case(put(":scheme", "http"), 400, "unsupported_scheme"),
    "scheme upper case": Case(put(":scheme", "HTTPS"), 400, "unsupported_scheme"),
    "scheme unknown": Case(put(":scheme", "ftp"), 400, "unsupported_scheme"),
    "no scheme": Case(without(":scheme"), *INVALID),
    "scheme twice": Case(lambda at: [(":scheme", "https"), *head(at)], *INVALID),
    "no path": Case(without(":path"), *INVALID),
    "path empty": Case(put(":path", ""), *INVALID),
    "path twice": Case(lambda at: [*head(at)[:4], (":path", "/closed")], *INVALID),
    "path absolute": Case(lambda at: head(at, f"https://{at}/open/x"), *NAME),
    "path without a slash": Case(path("open/x"), *NAME),
    "path a star": Case(path("*"), *NAME),
    "path with dot segments": Case(path("/open/../closed"), *NAME),
    "path with encoded dot segments": Case(path("/open/%2e%2e/closed"), *NAME),
    "path with an encoded slash before dots": Case(path("/open/..%2fclosed"), *NAME),
    "path with a backslash": Case(path("/open\\..\\closed"), *NAME),
    "path with a space": Case(path("/open/x HTTP/1.1"), *NAME),
    "path not ASCII": Case(path("/open/\xff"), *NAME),
    "path with a fragment": Case(path("/open/x#y"), *NAME),
    "path with a line end": Case(path("/open/x\r\nX-Smuggled: 1"), *INVALID),
    "no method": Case(without(":method"), *INVALID),
    "method twice": Case(lambda at: [(":method", "GET"), *head(at)], *INVALID),
    "method with a space": Case(put(":method", "GET /closed"), 400, "bad_method"),
    "method no token": Case(put(":method", "G\xffT"), 400, "bad_method"),
    "method empty": Case(put(":method", ""), 400, "bad_method"),
    "CONNECT": Case(put(":method", "CONNECT"), 400, "name_mismatch"),
    "CONNECT as RFC 9113 has it": Case(
        lambda at: [(":method", "CONNECT"), (":authority", "example.org:443")], 400, "name_mismatch"
    ),
    "extended CONNECT": Case(
        lambda at: [(":method", "CONNECT"), (":protocol", "websocket"), *head(at)[1:]], 403, "upgrade_refused"
    ),
    "protocol without CONNECT": Case(lambda at: [*head(at)[:4], (":protocol", "websocket")], 403, "upgrade_refused"),
    "pseudo field after a regular one": Case(lambda at: [*head(at)[:3], ("x-a", "b"), (":path", "/open/x")], *INVALID),
    "unknown pseudo field": Case(lambda at: [*head(at), (":foo", "bar")], *INVALID),
    "pseudo field of responses": Case(lambda at: [*head(at), (":status", "200")], *INVALID),
    "name in upper case": Case(plus(("X-Upper", "1")), *INVALID),
    "name empty": Case(plus(("", "1")), *INVALID),
    "name with a space": Case(plus(("x y", "1")), *INVALID),
    "name with a colon": Case(plus(("x:y", "1")), *INVALID),
    "name no token": Case(plus(("x(y)", "1")), *INVALID),
    "name not ASCII": Case(plus(("x\xe9", "1")), *INVALID),
    "name with a line end": Case(plus(("x\r\ny", "1")), *INVALID),
    "value with NUL": Case(plus(("x-a", "b\x00c")), *INVALID),
    "value with CR": Case(plus(("x-a", "b\rc")), *INVALID),
    "value with LF": Case(plus(("x-a", "b\nc")), *INVALID),
    "value with a request in it": Case(plus(("x-a", "b\r\n\r\nGET /closed HTTP/1.1\r\n")), *INVALID),
    "value that begins with a space": Case(plus(("x-a", " b")), *INVALID),
    "value that ends with a tab": Case(plus(("x-a", "b\t")), *INVALID),
    "connection": Case(plus(("connection", "close")), *INVALID),
    "keep-alive": Case(plus(("keep-alive", "timeout=5")), *INVALID),
    "proxy-connection": Case(plus(("proxy-connection", "keep-alive")), *INVALID),
    "transfer-encoding": Case(plus(("transfer-encoding", "chunked")), *INVALID),
    "upgrade": Case(plus(("upgrade", "websocket")), *INVALID),
    "te other than trailers": Case(plus(("te", "gzip")), *INVALID),
    "length and no body": Case(plus(("content-length", "5")), *INVALID),
    "two lengths": Case(
        path("/open/x", ("content-length", "2"), ("content-length", "2"), method="POST"), *INVALID, body=b"{}"
    ),
    "length with a sign": Case(path("/open/x", ("content-length", "+2"), method="POST"), *INVALID, body=b"{}"),
    "evidence that is not ASCII": Case(plus(("execution-context", "\xff")), 400, "doubtful_header"),
    "head too large": Case(plus(*((f"x-{n}", "x" * 4000) for n in range(17))), 431, "head_too_large"),
    "head too large by many small fields": Case(plus(*((f"x-{n}", "") for n in range(2000))), 431, "head_too_large"),
    "body not JSON": mcp(b"tools/call add", 400, "unparsable_body"),
    "body empty": mcp(b"", 400, "unparsable_body"),
    "tool that is not allowed": mcp(FORBIDDEN, 403, "not_in_allowlist"),
    "batch with one denied member": mcp([CALL, FORBIDDEN], 403, "not_in_allowlist"),
    "header names another tool": mcp(CALL, 400, "header_mismatch", ("mcp-method", "tools/call"), ("mcp-name", "other")),
    "encoded body": mcp(CALL, 400, "encoded_body", ("content-encoding", "gzip")),
    "judged body too large, announced": mcp(LONG, 413, "body_too_large", ("content-length", str(len(LONG)))),
    "judged body too large, not announced": mcp(LONG, 413, "body_too_large"),
}


@dataclass
class Ending:
    """What ends the connection. `send` gets the client; `reason` is the entry's, None where no request is named."""

    send: Callable[[Http2], None]
    reason: str


def raw(*frames: Any, data: bytes = b"") -> Callable[[Http2], None]:
    return lambda client: client.send(b"".join(frame.serialize() for frame in frames) + data)


def headers(stream: int, block: bytes, *flags: str) -> HeadersFrame:
    return HeadersFrame(stream, block, flags=flags)


def fill(frame: Any, count: int = 20_000) -> Callable[[Http2], None]:
    def send(client: Http2) -> None:
        client.send()
        one = frame.serialize()
        for _ in range(count // 1000):
            client.wire.send(one * 1000)

    return send


def opened(frame: Any) -> Callable[[Http2], None]:
    """Frames of an upload that never says anything."""

    def send(client: Http2) -> None:
        client.ask(head(client.at, "/mcp", "POST", ("content-type", "application/json")), end=False)
        fill(frame)(client)

    return send


def unfinished(client: Http2) -> None:
    client.send(headers(1, b"\x82").serialize())
    client.wire.socket.shutdown(2)


def rapid_reset(client: Http2) -> None:
    for _ in range(1000):
        stream = client.ask(head(client.at, "/closed"))
        client.h2.reset_stream(stream)
    client.send()


def bomb(client: Http2) -> None:
    """A table entry of 4 kB, and a thousand references to it."""
    block = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 1000
    client.send(headers(1, block, "END_HEADERS", "END_STREAM").serialize())


def continuations(client: Http2) -> None:
    client.send(headers(1, b"").serialize())
    client.wire.send(ContinuationFrame(1).serialize() * 1000)


def large_block(client: Http2) -> None:
    client.send(headers(1, b"").serialize())
    part = ContinuationFrame(1, b"\x00" * 16_000).serialize()
    for _ in range(64):
        client.wire.send(part)


def no_number(client: Http2) -> None:
    client.ask(head(client.at, "/open/x", "POST", ("content-length", "x")))


def settings() -> SettingsFrame:
    return SettingsFrame(0, settings={4: 65_535})


UNREADABLE, MANY = "unreadable_request", "too_many_frames"
ENDED = {
    "HTTP/1 where HTTP/2 was agreed": Ending(
        lambda client: client.wire.send(b"GET /open/x HTTP/1.1\r\nHost: x\r\n\r\n"), UNREADABLE
    ),
    "block that is no HPACK": Ending(raw(headers(1, b"\xff\xff\xff\xff", "END_HEADERS")), UNREADABLE),
    "block that is cut off": Ending(raw(headers(1, b"\x40\x05ab", "END_HEADERS")), UNREADABLE),
    "head without end, then nothing": Ending(unfinished, UNREADABLE),
    "other frames in a head": Ending(raw(headers(1, b"\x82"), PingFrame(0)), UNREADABLE),
    "continuations without end": Ending(continuations, UNREADABLE),
    "header block without end": Ending(large_block, "head_too_large"),
    "header list that inflates": Ending(bomb, "head_too_large"),
    "length not a number": Ending(no_number, UNREADABLE),
    "more streams than allowed": Ending(
        lambda client: client.send(
            b"".join(
                headers(2 * n + 1, client.h2.encoder.encode(head(client.at, "/mcp", "POST")), "END_HEADERS").serialize()
                for n in range(150)
            )
        ),
        UNREADABLE,
    ),
    "stream with an even number": Ending(
        lambda client: client.send(
            headers(2, client.h2.encoder.encode(head(client.at)), "END_HEADERS", "END_STREAM").serialize()
        ),
        UNREADABLE,
    ),
    "promise of a push": Ending(
        lambda client: client.send(PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"]).serialize()), UNREADABLE
    ),
    "frame that is too large": Ending(raw(DataFrame(1, b"x" * 70_000)), UNREADABLE),
    "pings without end": Ending(fill(PingFrame(0, b"12345678")), MANY),
    "settings without end": Ending(fill(settings()), MANY),
    "priorities without end": Ending(fill(PriorityFrame(1)), MANY),
    "windows opened without end": Ending(fill(WindowUpdateFrame(0, 1)), MANY),
    "empty data without end": Ending(opened(DataFrame(1, b"")), MANY),
    "streams taken back without end": Ending(rapid_reset, MANY),
    "resets without end": Ending(opened(RstStreamFrame(1)), MANY),
}
