"""Proxy credentials in the first request head of a connection: checked, then taken out. No sockets here.

The head is HTTP/1 (RFC 9112) read strictly: two readers that disagree about a head are how a check is gone round.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass

USER = "lictor"
MAX_HEAD = 64 * 1024
END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e]+ HTTP/1\.[01]")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x09\x20-\x7e\x80-\xff]*?)[ \t]*")
_HINT = (
    "This proxy serves one run of one agent. Use the proxy URL that lictor exec put into HTTPS_PROXY, "
    "with its user name and password."
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that ends the connection. `reason` is the reason phrase: all that many clients show."""

    status: int
    reason: str
    text: str

    def response(self) -> bytes:
        """The whole response, with `Connection: close`."""
        body = self.text.encode("utf-8") + b"\n"
        challenge = 'Proxy-Authenticate: Basic realm="lictor exec"\r\n' if self.status == 407 else ""
        head = (
            f"HTTP/1.1 {self.status} {self.reason}\r\n"
            f"{challenge}"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode("ascii") + body


def _bad(text: str) -> Refusal:
    return Refusal(400, "lictor exec: not a proxy request", text)


def hopeless(start: bytes) -> Refusal | None:
    """What can be said of the first bytes before the head is whole: None to go on reading."""
    if start[:1] == b"\x16":
        return _bad("These are bytes of TLS. The proxy URL starts with http://, also for https:// targets.")
    if not re.fullmatch(rb"[A-Za-z]", start[:1]):
        return _bad("This is not HTTP. The proxy URL starts with http:// (SOCKS is not spoken here).")
    if len(start) > MAX_HEAD and END not in start[:MAX_HEAD]:
        return Refusal(431, "lictor exec: head too large", f"A request head has at most {MAX_HEAD} bytes.")
    return None


def admit(head: bytes, token: str) -> bytes | Refusal:
    """`head` (up to and with the empty line) without its Proxy-Authorization line, or why it is not let through."""
    first, *fields = head.removesuffix(END).split(b"\r\n")
    if not _REQUEST_LINE.fullmatch(first):
        return _bad("The request line is not one of HTTP/1.0 or HTTP/1.1.")
    kept, shown = [first], []
    for line in fields:
        field = _FIELD.fullmatch(line)
        if field is None:
            return _bad("A header line is malformed.")
        if field[1].lower() == b"proxy-authorization":
            shown.append(field[2])
        else:
            kept.append(line)
    if len(shown) > 1:
        return _bad("There is more than one Proxy-Authorization.")
    if not shown:
        return Refusal(407, "lictor exec: proxy credentials missing", _HINT)
    if not _matches(shown[0], token):
        return Refusal(407, "lictor exec: proxy credentials wrong", _HINT)
    return b"\r\n".join(kept) + END


def _matches(value: bytes, token: str) -> bool:
    scheme, _, encoded = value.partition(b" ")
    try:
        decoded = base64.b64decode(encoded.strip(b" "), validate=True)
    except (ValueError, binascii.Error):
        return False
    return scheme.lower() == b"basic" and hmac.compare_digest(decoded, f"{USER}:{token}".encode())
