"""Heads, and the ends of bodies, that two readers may take for different requests."""

from __future__ import annotations

from end_to_end.attempts import Case, bytes_in_tunnel, bytes_to_proxy, over_tunnel


def raw(data: bytes, reason: str, status: int = 400) -> Case:
    return Case(bytes_in_tunnel(data), status, reason)


def line(text: bytes) -> Case:
    """A request line that is none."""
    return raw(text + b"\r\nHost: HERE\r\n\r\n", "unreadable_request")


def field(data: bytes, reason: str = "invalid_request") -> Case:
    """A header line in a POST that is fine without it."""
    return raw(b"POST /open/x HTTP/1.1\r\nHost: HERE\r\n" + data + b"\r\nContent-Length: 2\r\n\r\n{}", reason)


def framing(data: bytes, body: bytes = b"0\r\n\r\n") -> Case:
    return raw(b"POST /open/x HTTP/1.1\r\nHost: HERE\r\n" + data + b"\r\n\r\n" + body, "invalid_request")


def path(text: str, reason: str = "doubtful_name") -> Case:
    return Case(over_tunnel("GET", text), 400, reason)


LINES = {
    "space in the target": line(b"GET /open/x y HTTP/1.1"),
    "tab in the target": line(b"GET /open/\tx HTTP/1.1"),
    "two spaces": line(b"GET  /open/x HTTP/1.1"),
    "space before the method": line(b" GET /open/x HTTP/1.1"),
    "no version": line(b"GET /open/x"),
    "HTTP/0.9": line(b"GET /open/x HTTP/0.9"),
    "HTTP/1.2": line(b"GET /open/x HTTP/1.2"),
    "HTTP/2.0": line(b"GET /open/x HTTP/2.0"),
    "version in small letters": line(b"GET /open/x http/1.1"),
    "version without a dot": line(b"GET /open/x HTTP/11"),
    "start of an HTTP/2 connection": raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "unreadable_request"),
    "NUL in the method": line(b"G\x00T /open/x HTTP/1.1"),
    "NUL in the target": line(b"GET /open/\x00x HTTP/1.1"),
    "target without a slash": line(b"GET open/x HTTP/1.1"),
    "star as target": raw(b"GET * HTTP/1.1\r\nHost: HERE\r\n\r\n", "doubtful_name"),
    "method of 33 characters": raw(b"M" * 33 + b" /open/x HTTP/1.1\r\nHost: HERE\r\n\r\n", "bad_method"),
    "method with a colon": raw(b"GE:T /open/x HTTP/1.1\r\nHost: HERE\r\n\r\n", "bad_method"),
    "scheme of no web": Case(
        bytes_to_proxy(b"GET gopher://PLAIN/x HTTP/1.1\r\nHost: PLAIN\r\n\r\n"), 400, "unsupported_scheme"
    ),
    "scheme file": Case(
        bytes_to_proxy(b"GET file:///etc/passwd HTTP/1.1\r\nHost: PLAIN\r\n\r\n"), 400, "unreadable_request"
    ),
    "SOCKS 5": Case(bytes_to_proxy(b"\x05\x02\x00\x02\r\n\r\n"), 400, "unreadable_request"),
    "SMTP in a tunnel": raw(b"MAIL FROM:<a@example.org>\r\n\r\n", "unreadable_request"),
    "Redis in a tunnel": raw(b"*1\r\n$4\r\nPING\r\n\r\n", "unreadable_request"),
    "PostgreSQL in a tunnel": raw(b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n", "unreadable_request"),
}
FIELDS = {
    "NUL in a value": field(b"X-A: a\x00b", "doubtful_header"),
    "bare CR in a value": field(b"X-A: a\rb", "doubtful_header"),
    "bare LF in a value": field(b"X-A: a\nb", "unreadable_request"),
    "bare LF as line end": raw(b"GET /open/x HTTP/1.1\nHost: HERE\n\n", "unreadable_request"),
    "line without a colon": field(b"X-A", "unreadable_request"),
    "name that is empty": field(b": x"),
    "name with a space": field(b"X A: b"),
    "name with a tab before the colon": field(b"X-A\t: b"),
    "name with a slash": field(b"X/A: b"),
    "name that is not ASCII": field(b"X-\xc3\xa9: b"),
    "first line folded": raw(b"GET /open/x HTTP/1.1\r\n X-A: b\r\nHost: HERE\r\n\r\n", "unreadable_request"),
    "Host folded": raw(b"GET /open/x HTTP/1.1\r\nHost:\r\n HERE\r\n\r\n", "doubtful_header"),
    "Host twice, the same": field(b"Host: HERE", "doubtful_header"),
    "Host in other letters too": field(b"hOsT: example.org", "doubtful_header"),
    "traceparent that is not ASCII": field(b"traceparent: \xff", "doubtful_header"),
    "Behavioral-Evidence that is not ASCII": field(b"Behavioral-Evidence: \xff", "doubtful_header"),
}
FRAMINGS = {
    "chunked twice": framing(b"Transfer-Encoding: chunked, chunked"),
    "chunked in two lines": framing(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "chunked, then identity": framing(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "gzip, then chunked": framing(b"Transfer-Encoding: gzip, chunked"),
    "coding with a vertical tab": field(b"Transfer-Encoding: \x0bchunked", "unreadable_request"),
    "coding in quotes": framing(b'Transfer-Encoding: "chunked"'),
    "length after chunked": framing(b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
    "chunked in HTTP/1.0": raw(
        b"POST /open/x HTTP/1.0\r\nHost: HERE\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "invalid_request"
    ),
    "length twice in one line": framing(b"Content-Length: 2, 2", b"{}"),
    "length twice, different": framing(b"Content-Length: 2\r\nContent-Length: 3", b"{}"),
    "length below zero": framing(b"Content-Length: -2", b"{}"),
    "length in hexadecimal": framing(b"Content-Length: 0x2", b"{}"),
    "length with an underscore": framing(b"Content-Length: 1_0", b"{}"),
    "length with a fraction": framing(b"Content-Length: 2.0", b"{}"),
    "length that is empty": framing(b"Content-Length: ", b"{}"),
    "length with a space": framing(b"Content-Length: 1 0", b"{}"),
    "length in digits from elsewhere": framing("Content-Length: ٢".encode(), b"{}"),
}
PATHS = {
    "dot segment at the end": path("/open/.."),
    "one dot": path("/open/./x"),
    "dot segments encoded in capitals": path("/open/%2E%2E/closed"),
    "half encoded dot segment": path("/open/.%2e/closed"),
    "dot segment with a parameter": path("/open/..;x/closed"),
    "encoded backslash": path("/open/..%5cclosed"),
    "twice encoded dots": path("/open/%252e%252e/closed"),
    "twice encoded slash": path("/open/..%252fclosed"),
    "overlong UTF-8": path("/open/%c0%ae%c0%ae/closed"),
    "encoded NUL": path("/open/x%00.txt"),
    "encoded line end": path("/open/x%0d%0aX-A:b"),
    "percent without digits": path("/open/%zz"),
    "percent at the end": path("/open/%"),
    "fragment": path("/open/x#/closed"),
    "two slashes first": path("//example.org/x"),
    "path of 9,000 characters": path("/open/" + "x" * 9000),
    "query that is not ASCII": path("/open/x?a=\xff"),
}
HEADS = {**LINES, **FIELDS, **FRAMINGS, **PATHS}
