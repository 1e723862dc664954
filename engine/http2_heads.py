"""From the fields of an HTTP/2 header block to a request, a response or trailers, as strictly as RFC 9113 allows.

A request that is malformed still is one that was made: it carries its problem, as one that HTTP/1 could not read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import h2.exceptions
import h2.utilities
from mitmproxy import http

from .http1_messages import kept_trailers
from .problem import Problem
from .request_reader import MAX_HEAD, mark

Fields = Sequence[tuple[bytes, bytes]]

VERSION = b"HTTP/2.0"
_OVERHEAD = 32  # of a field in a header list, RFC 9113 section 6.5.2
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_STATUS = re.compile(rb"[2-9][0-9][0-9]")
_REQUEST = h2.utilities.HeaderValidationFlags(False, False, False, False)
_RESPONSE = h2.utilities.HeaderValidationFlags(True, False, True, False)
_TRAILERS = h2.utilities.HeaderValidationFlags(False, True, False, False)


def read_request(fields: Fields, ended: bool) -> http.Request:
    """The request of a header block. `ended`: no body follows. One that is refused says why (`problem_with`)."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] == b":":
            pseudo.setdefault(name, value)
    problem = _problem(fields, pseudo, ended)
    if problem is not None:
        return unreadable(problem, pseudo.get(b":method", b""))
    regular = [(bytes(name), bytes(value)) for name, value in fields if name[:1] != b":" and name != b"host"]
    host = next((value for name, value in fields if name == b"host"), b"")
    authority = pseudo.get(b":authority", host)
    return _request(pseudo[b":method"], pseudo[b":scheme"], authority, pseudo[b":path"], http.Headers(regular))


def unreadable(problem: Problem, method: bytes = b"") -> http.Request:
    """What stands for a request that could not be read."""
    request = _request(method or b"UNREADABLE", b"https", b"", b"/", http.Headers())
    mark(request, problem)
    return request


def read_response(fields: Fields) -> http.Response:
    """The response of a header block. Raises ValueError."""
    if _size(fields) > MAX_HEAD:
        raise ValueError(f"its head has more than {MAX_HEAD} bytes")
    _validate(fields, _RESPONSE)
    status = next(value for name, value in fields if name == b":status")
    if not _STATUS.fullmatch(status):
        raise ValueError(f"its status is {status[:20]!r}")
    regular = http.Headers([(bytes(name), bytes(value)) for name, value in fields if name[:1] != b":"])
    return http.Response(VERSION, int(status), b"", regular, None, None, time.time(), None)


def read_trailers(fields: Fields) -> http.Headers:
    """The trailers of a header block, without those that must not be there. Raises ValueError."""
    _validate(fields, _TRAILERS)
    if _size(fields) > MAX_HEAD:
        raise ValueError(f"its trailers have more than {MAX_HEAD} bytes")
    return kept_trailers(fields)


def _problem(fields: Fields, pseudo: dict[bytes, bytes], ended: bool) -> Problem | None:
    if _size(fields) > MAX_HEAD:
        return Problem("head_too_large", f"the head of the request has more than {MAX_HEAD} bytes")
    if b":protocol" in pseudo:
        return Problem("upgrade_refused", "extended CONNECT is not judged and therefore not let through")
    if pseudo.get(b":method") == b"CONNECT":
        return Problem("name_mismatch", "CONNECT inside a tunnel is refused")
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1:
        return Problem("doubtful_header", "the request has more than one Host header")
    if not hosts and b":authority" not in pseudo:
        return Problem("doubtful_name", "the request names no host")
    if hosts and pseudo.get(b":authority", hosts[0]) != hosts[0]:
        return Problem("name_mismatch", "Host and :authority name different hosts")
    try:
        _validate(fields, _REQUEST)
    except ValueError as e:
        return Problem("invalid_request", f"this is not an HTTP/2 request: {e}")
    if pseudo[b":scheme"] != b"https":
        return Problem("unsupported_scheme", "the :scheme of a request over TLS is https")
    if ended and any(name == b"content-length" and value != b"0" for name, value in fields):
        return Problem("invalid_request", "this is not an HTTP/2 request: a body is announced and none follows")
    return None


def _validate(fields: Fields, flags: h2.utilities.HeaderValidationFlags) -> None:
    try:
        for name, _ in h2.utilities.validate_headers(fields, flags):
            if name[:1] != b":" and not _NAME.fullmatch(name):
                raise ValueError(f"the field name {name[:40]!r} is no token")
    except h2.exceptions.ProtocolError as e:
        raise ValueError(str(e)[:200]) from None


def _size(fields: Fields) -> int:
    return sum(len(name) + len(value) + _OVERHEAD for name, value in fields)


def _request(method: bytes, scheme: bytes, authority: bytes, path: bytes, headers: http.Headers) -> http.Request:
    now = time.time()
    return http.Request("", 0, method, scheme, authority, path, VERSION, headers, None, None, now, None)
