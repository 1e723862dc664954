"""Exchanges that must pass unharmed: what is sent, and what the agent gets, byte for byte.

What may differ: header lines that are for the proxy alone, and how a body is cut into chunks.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from end_to_end.verbatim import Got, Script, ok


@dataclass(frozen=True)
class Exchange:
    """`fields` and `body` must arrive as they are; `status`, `answer` and `answered` must come back."""

    method: str = "GET"
    path: str = "/open/plain"
    fields: tuple[str, ...] = ()
    body: bytes | None = None
    chunks: tuple[bytes, ...] = ()
    status: int = 200
    answer: bytes | None = None
    """None: the body that was sent."""
    answered: tuple[tuple[str, str], ...] = ()
    version: str = "HTTP/1.1"


def fixed(*parts: bytes) -> Script:
    def script(got: Got) -> Iterator[bytes]:
        yield from parts

    return script


BIG = bytes(range(256)) * 8192
PACKED = gzip.compress(b"packed " * 1000)
EVENTS = b"".join(b'id: %d\ndata: {"n": %d}\n\n' % (i, i) for i in range(50))
PIECES = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"one", b"two" * 1000, b"three"))
HTML = "<p>\u00fc\u6f22</p>".encode()

DONE = b'{"jsonrpc": "2.0", "id": 1,  "result": {"x": [1.50, 9007199254740993, "\\u00e9"]}}'

SCRIPTS: dict[str, Script] = {
    "/mcp": fixed(ok(DONE, "Content-Type: application/json")),
    "/open/created": fixed(b"HTTP/1.1 201 Created\r\nLocation: /open/new\r\nContent-Length: 2\r\n\r\n{}"),
    "/open/nothing": fixed(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/open/same": fixed(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
    "/open/moved": fixed(b"HTTP/1.1 302 Found\r\nLocation: https://example.org/x?y=1#z\r\nContent-Length: 0\r\n\r\n"),
    "/open/missing": fixed(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone"),
    "/open/teapot": fixed(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n"),
    "/open/broken": fixed(b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nbad"),
    "/open/later": fixed(b"HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"),
    "/open/asks": fixed(b'HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'),
    "/open/strange": fixed(b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n"),
    "/open/no-reason": fixed(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
    "/open/cookies": fixed(ok(b"c", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; Secure; HttpOnly")),
    "/open/packed": fixed(ok(PACKED, "Content-Encoding: gzip", "Content-Type: text/plain")),
    "/open/html": fixed(ok(HTML, "Content-Type: text/html; charset=utf-8")),
    "/open/latin": fixed(ok(b"x", "X-Name: caf\xe9")),
    "/open/long-field": fixed(ok(b"x", "X-Long: " + "y" * 8000)),
    "/open/part": fixed(
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/10\r\nContent-Length: 4\r\n\r\n0123"
    ),
    "/open/pieces": fixed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + PIECES + b"0\r\n\r\n"),
    "/open/extended": fixed(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x="y"\r\nabc\r\n0\r\n\r\n'),
    "/open/until-closed": fixed(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"until ", b"the end", b""),
    "/open/http10": fixed(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold"),
    "/open/hints": fixed(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n", ok(b"after hints")),
    "/open/processing": fixed(b"HTTP/1.1 102 Processing\r\n\r\n" * 3, ok(b"after all")),
    "/open/events": fixed(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVENTS), EVENTS),
    ),
    "/open/big": fixed(ok(BIG)),
    "/open/empty": fixed(ok(b"")),
    "/open/empty-chunked": fixed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "/open/slow-parts": fixed(b"HTTP/1.1 200 OK\r\nContent-", b"Length: 4\r\n", b"\r\nab", b"cd"),
}


def rpc(**members: object) -> bytes:
    message = {"jsonrpc": "2.0", "method": "tools/call", "params": adding({})}
    return json.dumps(message | members).encode()


def adding(arguments: object) -> dict[str, object]:
    return {"name": "add", "arguments": arguments}


JSON = ("Content-Type: application/json",)
_MCP: dict[str, Exchange] = {
    "call": Exchange("POST", "/mcp", JSON, rpc(id=1)),
    "id as text": Exchange("POST", "/mcp", JSON, rpc(id="call-\u00fc")),
    "id of 20 digits": Exchange("POST", "/mcp", JSON, rpc(id=12345678901234567890)),
    "id zero": Exchange("POST", "/mcp", JSON, rpc(id=0)),
    "id below zero": Exchange("POST", "/mcp", JSON, rpc(id=-7)),
    "batch": Exchange("POST", "/mcp", JSON, b"[" + rpc(id=1) + b"," + rpc(id=2) + b"]"),
    "notification": Exchange("POST", "/mcp", JSON, b'{"jsonrpc":"2.0","method":"notifications/initialized"}'),
    "initialize": Exchange("POST", "/mcp", JSON, b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}'),
    "ping": Exchange("POST", "/mcp", JSON, b'{"jsonrpc":"2.0","id":9,"method":"ping"}'),
    "list of tools": Exchange("POST", "/mcp", JSON, b'{"jsonrpc":"2.0","id":9,"method":"tools/list","params":{}}'),
    "white space around": Exchange("POST", "/mcp", JSON, b" \r\n" + rpc(id=1) + b"\n"),
    "escapes in texts": Exchange("POST", "/mcp", JSON, rpc(id=1, params=adding({"t": '\u2028"\\/'}))),
    "nested arguments": Exchange("POST", "/mcp", JSON, rpc(id=1, params=adding({"a": [[{}]] * 9}))),
    "numbers of all kinds": Exchange(
        "POST", "/mcp", JSON, rpc(id=1)[:-1] + b', "x": [0.1, -0, 1e-7, 9007199254740993]}'
    ),
    "mirrored headers": Exchange("POST", "/mcp", (*JSON, "Mcp-Method: tools/call", "Mcp-Name: add"), rpc(id=1)),
    "mirrored in base64": Exchange("POST", "/mcp", (*JSON, "Mcp-Name: =?base64?YWRk?="), rpc(id=1)),
    "session": Exchange("POST", "/mcp", (*JSON, "Mcp-Session-Id: a1", "MCP-Protocol-Version: 2025-11-25"), rpc(id=1)),
    "charset named": Exchange("POST", "/mcp", ("Content-Type: application/json; charset=UTF-8",), rpc(id=1)),
    "chunked": Exchange("POST", "/mcp", JSON, chunks=(rpc(id=1)[:20], rpc(id=1)[20:])),
    "end of a session": Exchange("DELETE", "/mcp", ("Mcp-Session-Id: a1",)),
}
MCP = {name: replace(exchange, answer=DONE) for name, exchange in _MCP.items()}
METHODS: dict[str, Exchange] = {
    name: Exchange(name, "/open/plain", (), body)
    for name, body in {
        "GET": None,
        "DELETE": None,
        "OPTIONS": None,
        "POST": b"a=1&b=%20",
        "PUT": b"\x00\xff",
        "PATCH": b"[]",
        "PROPFIND": b"<x/>",
        "QUERY": b"select",
        "M-SEARCH": None,
    }.items()
}
PATHS: dict[str, Exchange] = {
    f"path {text}": Exchange(path=text)
    for text in (
        "/open/",
        "/open/x/",
        "/open/~user/a-b_c.d",
        "/open/a:b@c!$&'()*+,=",
        "/open/a;b=1;c",
        "/open/caf%C3%A9/%E6%BC%A2",
        "/open/a%20b",
        "/open/a%3Fb%23c",
        "/open/...",
        "/open/x?",
        "/open/x?a=1&a=2&b",
        "/open/x?next=https://example.org/%2e%2e/",
        "/open/x?q=[1]{2}|3^4`5\\6",
        "/open/" + "deep/" * 100,
        "/open/x?" + "y" * 4000,
    )
}
BODIES: dict[str, Exchange] = {
    "empty POST": Exchange("POST", body=b""),
    "1 MB": Exchange("POST", body=bytes(1 << 20)),
    "every byte": Exchange("POST", body=bytes(range(256))),
    "chunked upload": Exchange("POST", chunks=(b"a", b"b" * 5000, b"c")),
    "empty chunked upload": Exchange("POST", chunks=()),
    "expect 100-continue": Exchange("POST", "/open/plain", ("Expect: 100-continue",), b"patient"),
    "packed upload": Exchange("POST", "/open/plain", ("Content-Encoding: gzip",), PACKED),
    "form with files": Exchange(
        "POST", "/open/plain", ("Content-Type: multipart/form-data; boundary=b",), b"--b\r\n\r\nx\r\n--b--\r\n"
    ),
}
FIELDS: dict[str, Exchange] = {
    "order and spelling": Exchange(fields=("x-B: 1", "X-a: 2", "X-B: 3")),
    "value in Latin-1": Exchange(fields=("X-Name: caf\xe9",)),
    "value with commas and quotes": Exchange(fields=('X-List: a, "b, c", d',)),
    "empty value": Exchange(fields=("X-Empty:",)),
    "long value": Exchange(fields=("X-Long: " + "z" * 16000,)),
    "100 fields": Exchange(fields=tuple(f"X-{i}: {i}" for i in range(100))),
    "credentials for the server": Exchange(fields=("Authorization: Bearer abc.def", "Cookie: a=1; b=2")),
    "conditions": Exchange(fields=('If-None-Match: W/"x"', "Range: bytes=0-3", "Accept-Encoding: gzip, br")),
    "trace": Exchange(fields=("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",)),
}
ANSWERS: dict[str, Exchange] = {
    "201": Exchange(path="/open/created", status=201, answer=b"{}", answered=(("location", "/open/new"),)),
    "204": Exchange(path="/open/nothing", status=204, answer=b""),
    "304": Exchange(path="/open/same", status=304, answer=b"", answered=(("etag", '"a"'),)),
    "302": Exchange(
        path="/open/moved", status=302, answer=b"", answered=(("location", "https://example.org/x?y=1#z"),)
    ),
    "404": Exchange(path="/open/missing", status=404, answer=b"none"),
    "418": Exchange(path="/open/teapot", status=418, answer=b""),
    "500": Exchange(path="/open/broken", status=500, answer=b"bad"),
    "503": Exchange(path="/open/later", status=503, answer=b"", answered=(("retry-after", "7"),)),
    "401": Exchange(path="/open/asks", status=401, answer=b"", answered=(("www-authenticate", 'Basic realm="x"'),)),
    "599": Exchange(path="/open/strange", status=599, answer=b""),
    "no reason phrase": Exchange(path="/open/no-reason", answer=b"ok"),
    "cookies": Exchange(path="/open/cookies", answer=b"c", answered=(("set-cookie", "b=2; Secure; HttpOnly"),)),
    "packed": Exchange(path="/open/packed", answer=PACKED, answered=(("content-encoding", "gzip"),)),
    "text in UTF-8": Exchange(path="/open/html", answer=HTML),
    "field in Latin-1": Exchange(path="/open/latin", answer=b"x", answered=(("x-name", "caf\xe9"),)),
    "long field": Exchange(path="/open/long-field", answer=b"x", answered=(("x-long", "y" * 8000),)),
    "206": Exchange(path="/open/part", status=206, answer=b"0123", answered=(("content-range", "bytes 0-3/10"),)),
    "chunked answer": Exchange(path="/open/pieces", answer=b"one" + b"two" * 1000 + b"three"),
    "chunk extensions": Exchange(path="/open/extended", answer=b"abc"),
    "answer until the end of the connection": Exchange(path="/open/until-closed", answer=b"until the end"),
    "answer of HTTP/1.0": Exchange(path="/open/http10", answer=b"old"),
    "early hints": Exchange(path="/open/hints", answer=b"after hints"),
    "102 three times": Exchange(path="/open/processing", answer=b"after all"),
    "event stream": Exchange(path="/open/events", answer=EVENTS),
    "2 MB": Exchange(path="/open/big", answer=BIG),
    "empty": Exchange(path="/open/empty", answer=b""),
    "empty, chunked": Exchange(path="/open/empty-chunked", answer=b""),
    "head in pieces": Exchange(path="/open/slow-parts", answer=b"abcd"),
    "HEAD": Exchange("HEAD", "/open/big", answer=b""),
}
LEGITIMATE = {**MCP, **METHODS, **PATHS, **BODIES, **FIELDS, **ANSWERS}
