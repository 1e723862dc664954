"""The name that is judged is the name that is reached: one strict reading of every name.

CONNECT authority = SNI = Host; where it leads is `places`. Whatever leaves a doubt is refused.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from mitmproxy import connection, http

from ..formats.errors import FormatError, LictorError
from ..formats.names import host_text, parse_authority

_BAD_VALUE = re.compile(rb"[\x00\r\n]")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_ASCII_ONLY = frozenset(
    (b"execution-context", b"behavioral-evidence", b"behavioral-evidence-checkpoint", b"traceparent", b"host")
)


class NameRefused(LictorError):
    """A name is doubtful or differs from the one that was judged. `reason` is the entry's."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def check_head(request: http.Request) -> None:
    """The method is a token, no value is folded or broken, there is at most one Host. Raises NameRefused."""
    if not _METHOD.fullmatch(request.data.method):
        raise NameRefused("bad_method", "expected a method of 1 to 32 characters as RFC 9110 writes it")
    hosts = 0
    for name, value in request.headers.fields:
        if _BAD_VALUE.search(value) or not name.isascii():
            raise NameRefused("doubtful_header", "a header holds NUL, a bare line end or a folded line")
        lower = name.lower()
        if lower in _ASCII_ONLY and not value.isascii():
            raise NameRefused("doubtful_header", f"the header {lower.decode()} holds what is not ASCII")
        if lower == b"host":
            hosts += 1
    if hosts > 1:
        raise NameRefused("doubtful_header", "the request has more than one Host header")


def same_name(request: http.Request, tunnel: tuple[str, int] | None, sni: str | None) -> tuple[str, int]:
    """The one (host, port) that every name of this request agrees on. Raises NameRefused."""
    if request.scheme not in ("http", "https") or (request.scheme == "https" and tunnel is None):
        raise NameRefused("unsupported_scheme", f"{request.scheme} is not served here without CONNECT")
    default = 443 if request.scheme == "https" else 80
    try:
        reached = parse_authority(f"{host_text(request.host)}:{request.port}", default)
        named = parse_authority(_named(request), default)
    except FormatError as e:
        raise NameRefused("doubtful_name", str(e)) from None
    if named != reached:
        # An HTTP/2 client may take the connection for another host's too; told so, it makes one to that.
        reason = "misdirected_request" if request.is_http2 else "name_mismatch"
        raise NameRefused(reason, f"the Host header names {named[0]}:{named[1]}, the request goes elsewhere")
    if tunnel is not None:
        if reached != tunnel:
            raise NameRefused("name_mismatch", "the request names another authority than its CONNECT")
        if request.authority and not request.is_http2:
            raise NameRefused("name_mismatch", "absolute-form inside a tunnel is refused")
        if request.scheme == "https" and (sni or "").lower() != ("" if is_address(tunnel[0]) else tunnel[0]):
            raise NameRefused("name_mismatch", f"the TLS server name is {sni!r}, CONNECT named {tunnel[0]}")
    return reached


def _named(request: http.Request) -> str:
    if request.is_http2:  # where Host and :authority are both there they are the same by now
        return request.data.authority.decode("ascii", "replace")
    host: str = request.headers.get("host", "")
    return host


@lru_cache(1024)
def is_address(host: str) -> bool:
    """Whether a host is an IP address (and not a name)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Holds the names of open tunnels."""

    def __init__(self) -> None:
        self._tunnels: dict[str, tuple[str, int]] = {}

    def open_tunnel(self, client: connection.Client, authority: tuple[str, int]) -> None:
        """CONNECT to `authority` was let through on this connection."""
        self._tunnels[client.id] = authority

    def tunnel(self, client: connection.Client) -> tuple[str, int] | None:
        """Where this connection's tunnel leads, if it is one."""
        return self._tunnels.get(client.id)

    def client_disconnected(self, client: connection.Client) -> None:
        self._tunnels.pop(client.id, None)
