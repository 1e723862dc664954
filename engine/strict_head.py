"""What a head of HTTP/1 must be beyond what mitmproxy's parser asks for, so that no other parser reads it otherwise.

mitmproxy takes lines that end in a bare LF, spaces around and between the parts of the request line, control characters
round values, and every list of transfer codings that ends in chunked. RFC 9112 sections 2.2, 3 and 6.1 let a recipient
refuse them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mitmproxy import http

_STRIPPED = re.compile(rb"[\x0b\x0c]")
_REQUEST_LINE = re.compile(rb"[^\x00-\x20\x7f]+ [^\x00-\x20\x7f]+ HTTP/1\.[01]")


def check_lines(lines: Sequence[bytes], octets: int) -> None:
    """Hold the lines of a head, of `octets` with their ends and the empty line, to CRLF and to a plain request line.

    Raises ValueError.
    """
    if sum(map(len, lines)) + 2 * len(lines) + 2 != octets:
        raise ValueError("a line of it does not end in CRLF")
    if any(map(_STRIPPED.search, lines)):
        raise ValueError("a line of it holds a vertical tab or a form feed, which mitmproxy would strip")
    if not _REQUEST_LINE.fullmatch(lines[0]):
        raise ValueError("its request line is not a method, a target and HTTP/1.1 with one space between them")


def check_coding(request: http.Request) -> None:
    """A transfer coding, where there is one, is chunked and nothing else. Raises ValueError."""
    if "transfer-encoding" not in request.headers:
        return
    codings = request.headers.get_all("transfer-encoding")
    if len(codings) > 1 or codings[0].lower() != "chunked":
        raise ValueError(f"its transfer coding is {', '.join(codings)!r}, expected chunked")
