"""Requests that must be refused, of each kind some; longer tables of names, heads and bodies stand beside this one."""

from __future__ import annotations

from end_to_end.attempts import (
    CALL,
    FORBIDDEN,
    Case,
    bytes_after_connect,
    bytes_in_tunnel,
    bytes_to_proxy,
    endless_head,
    mcp,
    other_server_name,
    over_tunnel,
    plaintext_in_tunnel,
    unfinished,
)
from end_to_end.wire import chunked

LONG = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"x" * 70_000 + b'"}}'

REFUSED = {
    "CONNECT to an unknown host": Case(lambda w, p: w.connect("example.org:443"), 403, "not_in_allowlist"),
    "CONNECT to an unlisted target": Case(
        lambda w, p: w.connect(f"localhost:{p.unknown.port}"), 403, "not_in_allowlist"
    ),
    "CONNECT to the monitor itself": Case(
        lambda w, p: w.connect(f"127.0.0.1:{p.monitor.port}"), 403, "not_in_allowlist"
    ),
    "CONNECT to a doubtful name": Case(lambda w, p: w.connect("0x7f.1:443"), 400, "doubtful_name"),
    "CONNECT to a name with a dot at its end": Case(lambda w, p: w.connect("localhost.:443"), 400, "doubtful_name"),
    "path that no pattern allows": Case(over_tunnel("GET", "/closed"), 403, "not_in_allowlist"),
    "body not JSON": Case(mcp(b"tools/call add"), 400, "unparsable_body"),
    "body with a key twice": Case(
        mcp(b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}'), 400, "unparsable_body"
    ),
    "body empty": Case(mcp(b""), 400, "unparsable_body"),
    "tool that is not allowed": Case(mcp(FORBIDDEN), 403, "not_in_allowlist"),
    "batch with one denied member": Case(mcp([CALL, FORBIDDEN]), 403, "not_in_allowlist"),
    "header names another tool": Case(mcp(CALL, "Mcp-Method: tools/call", "Mcp-Name: other"), 400, "header_mismatch"),
    "encoded body": Case(mcp(CALL, "Content-Encoding: gzip"), 400, "encoded_body"),
    "judged body too large, announced": Case(mcp(LONG), 413, "body_too_large"),
    "judged body too large, chunked": Case(
        bytes_in_tunnel(
            b"POST /mcp HTTP/1.1\r\nHost: HERE\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"".join(chunked([LONG]))
        ),
        413,
        "body_too_large",
    ),
    "TLS server name of another host": Case(other_server_name("other.example"), 400, "name_mismatch"),
    "no TLS server name": Case(other_server_name(""), 400, "name_mismatch"),
    "Host of another host": Case(over_tunnel("GET", "/open/x", host="example.org"), 400, "name_mismatch"),
    "Host of another port": Case(over_tunnel("GET", "/open/x", host="localhost:1"), 400, "name_mismatch"),
    "Host twice": Case(over_tunnel("GET", "/open/x", "Host: example.org"), 400, "doubtful_header"),
    "no Host": Case(bytes_in_tunnel(b"GET /open/x HTTP/1.1\r\n\r\n"), 400, "doubtful_name"),
    "absolute-form in a tunnel": Case(
        bytes_in_tunnel(b"GET https://HERE/open/x HTTP/1.1\r\nHost: HERE\r\n\r\n"), 400, "name_mismatch"
    ),
    "absolute-form of another host in a tunnel": Case(
        bytes_in_tunnel(b"GET https://example.org/ HTTP/1.1\r\nHost: HERE\r\n\r\n"), 400, "name_mismatch"
    ),
    "CONNECT in a tunnel": Case(
        bytes_in_tunnel(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"), 400, "name_mismatch"
    ),
    "raw bytes after CONNECT": Case(bytes_after_connect(b"\x00\x01\x02\x03\r\n\r\n"), 400, "unreadable_request"),
    "raw bytes in TLS": Case(bytes_in_tunnel(b"EHLO example.org\r\n\r\n"), 400, "unreadable_request"),
    "raw bytes to the proxy": Case(bytes_to_proxy(b"\x05\x01\x00\r\n\r\n"), 400, "unreadable_request"),
    "protocol in which the server speaks first": Case(unfinished, 0, "unreadable_request"),
    "head without end": Case(endless_head, 431, "head_too_large"),
    "plain HTTP in a tunnel": Case(plaintext_in_tunnel, 403, "not_in_allowlist"),
    "half a WebSocket handshake": Case(
        over_tunnel(
            "GET",
            "/open/x",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
        ),
        403,
        "upgrade_refused",
    ),
    "dot segments": Case(over_tunnel("GET", "/open/../closed"), 400, "doubtful_name"),
    "encoded dot segments": Case(over_tunnel("GET", "/open/%2e%2e/closed"), 400, "doubtful_name"),
    "encoded slash before dot segments": Case(over_tunnel("GET", "/open/..%2fclosed"), 400, "doubtful_name"),
    "backslash": Case(over_tunnel("GET", "/open\\..\\closed"), 400, "doubtful_name"),
    "length and chunked": Case(
        over_tunnel("POST", "/open/x", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, "invalid_request"
    ),
    "two lengths": Case(over_tunnel("POST", "/open/x", "Content-Length: 5", body=b"{}"), 400, "invalid_request"),
    "length not a number": Case(
        bytes_in_tunnel(b"POST /open/x HTTP/1.1\r\nHost: HERE\r\nContent-Length: +2\r\n\r\n{}"), 400, "invalid_request"
    ),
    "unknown transfer coding": Case(
        bytes_in_tunnel(b"POST /open/x HTTP/1.1\r\nHost: HERE\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        400,
        "invalid_request",
    ),
    "space before the colon": Case(
        bytes_in_tunnel(b"GET /open/x HTTP/1.1\r\nHost : HERE\r\n\r\n"), 400, "invalid_request"
    ),
    "folded header": Case(
        bytes_in_tunnel(b"GET /open/x HTTP/1.1\r\nHost: HERE\r\nX-A: b\r\n c\r\n\r\n"), 400, "doubtful_header"
    ),
    "method that is no token": Case(
        bytes_in_tunnel(b"G\xffT /open/x HTTP/1.1\r\nHost: HERE\r\n\r\n"), 400, "bad_method"
    ),
    "evidence that is not ASCII": Case(
        over_tunnel("GET", "/open/x", "Execution-Context: \xff"), 400, "doubtful_header"
    ),
    "path that is not ASCII": Case(over_tunnel("GET", "/open/\xff"), 400, "doubtful_name"),
    "path that is not UTF-8": Case(over_tunnel("GET", "/open/%ff"), 400, "doubtful_name"),
    "Host that is not ASCII": Case(
        bytes_in_tunnel(b"GET /open/x HTTP/1.1\r\nHost: \xff\r\n\r\n"), 400, "doubtful_header"
    ),
    "host that is not ASCII": Case(
        bytes_to_proxy(b"GET http://\xc3\xa9.example/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400, "unreadable_request"
    ),
    "https without CONNECT": Case(
        bytes_to_proxy(b"GET https://HERE/open/x HTTP/1.1\r\nHost: HERE\r\n\r\n"), 400, "unsupported_scheme"
    ),
    "ftp": Case(
        bytes_to_proxy(b"GET ftp://localhost:21/x HTTP/1.1\r\nHost: localhost:21\r\n\r\n"), 400, "unsupported_scheme"
    ),
    "plain HTTP to an unlisted path": Case(
        bytes_to_proxy(b"GET http://PLAIN/closed HTTP/1.1\r\nHost: PLAIN\r\n\r\n"), 403, "not_in_allowlist"
    ),
    "plain HTTP with another Host": Case(
        bytes_to_proxy(b"GET http://PLAIN/data/x HTTP/1.1\r\nHost: example.org\r\n\r\n"), 400, "name_mismatch"
    ),
    "request to the proxy itself": Case(bytes_to_proxy(b"GET / HTTP/1.1\r\n\r\n"), 400, "doubtful_name"),
}
