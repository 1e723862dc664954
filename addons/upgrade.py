"""The upgrade to WebSocket (RFC 6455 section 4): who asks for it must ask rightly, who grants it must have been asked.

An upgrade to anything else is not offered on. No extension is: what is judged is what stands on the wire.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from mitmproxy import http

from .guard import NameRefused

_ACCEPTED_FOR = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_MAX_PROTOCOLS = 32


@dataclass(slots=True)
class Upgrade:
    """What was asked for, and, once it was granted, what has passed since. Out: from the side that has asked."""

    key: str
    protocols: tuple[str, ...]
    refused: str = ""
    """Why the monitor itself closed the connection."""
    messages_out: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    bytes_in: int = 0

    def count(self, outgoing: bool, size: int) -> None:
        """One message was passed on."""
        if outgoing:
            self.messages_out += 1
            self.bytes_out += size
        else:
            self.messages_in += 1
            self.bytes_in += size

    def offer(self, headers: http.Headers) -> None:
        """Offer it to the server, without extensions."""
        headers["connection"], headers["upgrade"] = "Upgrade", "websocket"
        headers.pop("sec-websocket-extensions", None)


def read_upgrade(request: http.Request) -> Upgrade | None:
    """The upgrade that a request asks for; None if it asks for none. Raises NameRefused."""
    headers = request.headers
    upgrade = headers.get("upgrade", "")
    if "websocket" not in upgrade.lower():
        return None
    if upgrade.lower() != "websocket" or "upgrade" not in _tokens(headers.get("connection", "")):
        raise _refused("expected Connection: Upgrade and Upgrade: websocket, and nothing besides")
    if request.method != "GET" or request.http_version != "HTTP/1.1":
        raise _refused("expected a GET of HTTP/1.1")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise _refused("expected no body")
    if headers.get_all("sec-websocket-version") != ["13"]:
        raise _refused("expected Sec-WebSocket-Version: 13")
    keys = headers.get_all("sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise _refused("expected one Sec-WebSocket-Key of 16 bytes in base64")
    return Upgrade(keys[0], _protocols(headers))


def problem_with_grant(upgrade: Upgrade | None, response: http.Response) -> str:
    """Why this 101 grants nothing that was asked for; empty if it does."""
    headers = response.headers
    if upgrade is None:
        return "nobody asked to switch protocols"
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in _tokens(headers.get("connection", "")):
        return "it is not WebSocket that the server switches to"
    accepted = base64.b64encode(hashlib.sha1(upgrade.key.encode() + _ACCEPTED_FOR, usedforsecurity=False).digest())
    if headers.get_all("sec-websocket-accept") != [accepted.decode()]:
        return "Sec-WebSocket-Accept is not that of the key"
    if "sec-websocket-extensions" in headers:
        return "the server uses an extension that was not offered"
    if any(name not in upgrade.protocols for name in headers.get_all("sec-websocket-protocol")):
        return "the server chose a subprotocol that was not offered"
    if len(headers.get_all("sec-websocket-protocol")) > 1:
        return "the server chose more than one subprotocol"
    if "content-length" in headers or "transfer-encoding" in headers:
        return "the response says that it has a body"
    return ""


def _refused(text: str) -> NameRefused:
    return NameRefused("upgrade_refused", f"this is no WebSocket handshake: {text}")


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _protocols(headers: http.Headers) -> tuple[str, ...]:
    offered = [name.strip() for line in headers.get_all("sec-websocket-protocol") for name in line.split(",")]
    if len(offered) > _MAX_PROTOCOLS or len(set(offered)) < len(offered):
        raise _refused(f"expected at most {_MAX_PROTOCOLS} subprotocols, each once")
    if not all(_TOKEN.fullmatch(name) for name in offered):
        raise _refused("expected subprotocols that are tokens of at most 256 characters")
    return tuple(offered)
