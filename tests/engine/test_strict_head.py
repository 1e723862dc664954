"""Heads that mitmproxy would take, and another parser would read otherwise."""

from __future__ import annotations

import pytest
from mitmproxy.test import tutils

from lictor.engine.strict_head import check_coding, check_lines


def lines_of(data: bytes) -> list[bytes]:
    """As h11 cuts a head: at LF, a CR before it dropped."""
    return [line.removesuffix(b"\r") for line in data.split(b"\n")][:-2]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"M-S /x?y HTTP/1.0\r\nHost: a\r\nX:\tb \r\n\r\n"])
def test_good(data: bytes) -> None:
    check_lines(lines_of(data), len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b"GET\t/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \x0bb\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: b\x0c\r\n\r\n",
    ],
)
def test_bad(data: bytes) -> None:
    with pytest.raises(ValueError, match="it"):
        check_lines(lines_of(data), len(data))


@pytest.mark.parametrize(
    ("codings", "good"),
    [
        ((), True),
        (("chunked",), True),
        (("Chunked",), True),
        (("gzip, chunked",), False),
        (("chunked", "chunked"), False),
        (("chunked", "identity"), False),
        (("identity",), False),
        (("",), False),
    ],
)
def test_transfer_coding(codings: tuple[str, ...], good: bool) -> None:
    request = tutils.treq(headers=[(b"Transfer-Encoding", c.encode()) for c in codings])
    if good:
        check_coding(request)
    else:
        with pytest.raises(ValueError, match="expected chunked"):
            check_coding(request)
