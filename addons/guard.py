"""The name that is judged is the name that is reached: one strict reading of every name, and one resolution.

CONNECT authority = SNI = Host = the address dialled. Whatever leaves a doubt is refused (field notes, section 1).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable

from mitmproxy import connection, http
from mitmproxy.proxy import server_hooks

from ..bindings.catalog import Catalog
from ..formats.errors import FormatError, LictorError
from ..formats.names import host_text, parse_authority

_BAD_VALUE = re.compile(rb"[\x00\r\n]")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_ASCII_ONLY = frozenset((b"execution-context", b"behavioral-evidence", b"traceparent", b"host"))


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
        named = parse_authority(request.headers.get("host", ""), default)
    except FormatError as e:
        raise NameRefused("doubtful_name", str(e)) from None
    if named != reached:
        raise NameRefused("name_mismatch", f"the Host header names {named[0]}:{named[1]}, the request goes elsewhere")
    if tunnel is not None:
        if reached != tunnel:
            raise NameRefused("name_mismatch", "the request names another authority than its CONNECT")
        if request.authority and not request.is_http2:
            raise NameRefused("name_mismatch", "absolute-form inside a tunnel is refused")
        if request.scheme == "https" and (sni or "").lower() != ("" if _is_address(tunnel[0]) else tunnel[0]):
            raise NameRefused("name_mismatch", f"the TLS server name is {sni!r}, CONNECT named {tunnel[0]}")
    return reached


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def dialable(address: str, named_by_catalog: bool) -> bool:
    """Whether an address may be dialled: global ones; others only where the catalog names the host."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _embedded(ip) or ip
    if ip.is_multicast or ip.is_unspecified or ip.is_link_local:
        return False
    return named_by_catalog or ip.is_global


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address where this one leads to: mapped, compatible (::/96), 6to4 or NAT64 (64:ff9b::/96)."""
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    prefix, last = divmod(int(ip), 1 << 32)
    if prefix == 0x64FF9B << 64 or (prefix == 0 and last > 1):
        return ipaddress.IPv4Address(last)
    return None


def is_of_this_machine(address: str) -> bool:
    """Whether the address is one of this machine's own: only those can be bound to."""
    ip = ipaddress.ip_address(address)
    with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


async def resolve(host: str) -> list[str]:
    """All addresses of `host`, resolved once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Holds the names of open tunnels and pins each upstream connection to an address that was checked."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        own_addresses: frozenset[tuple[str, int]],
        fixed_upstreams: frozenset[tuple[str, int]] = frozenset(),
        resolver: Callable[[str], Awaitable[list[str]]] = resolve,
    ) -> None:
        self._catalog = catalog
        self._own = own_addresses
        self._own_ips = [(host, port) for host, port in own_addresses if _is_address(host)]
        self._fixed = fixed_upstreams
        self._resolve = resolver
        self._tunnels: dict[str, tuple[str, int]] = {}
        self._names: dict[str, tuple[str, int]] = {}

    def open_tunnel(self, client: connection.Client, authority: tuple[str, int]) -> None:
        """CONNECT to `authority` was let through on this connection."""
        self._tunnels[client.id] = authority

    def tunnel(self, client: connection.Client) -> tuple[str, int] | None:
        """Where this connection's tunnel leads, if it is one."""
        return self._tunnels.get(client.id)

    def client_disconnected(self, client: connection.Client) -> None:
        self._tunnels.pop(client.id, None)

    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        server = data.server
        assert server.address is not None
        host, port = server.address[:2]
        if (host, port) in self._fixed:
            return
        addresses = await self._addresses(host)
        if not addresses:
            server.error = f"{host} cannot be resolved"
            return
        named = bool(self._catalog().at(host, port))
        bad = [a for a in addresses if not dialable(a, named) or self._is_ours(a, port)]
        if bad:
            server.error = f"{host} resolves to {bad[0]}, which is not dialled unless a catalog target names {host}"
            return
        if server.tls and server.sni is None:
            server.sni = host
        self._names[server.id] = (host, port)
        server.address = (addresses[0], port)

    def _is_ours(self, address: str, port: int) -> bool:
        """Whether dialling this would come back to one of our own listeners, also one on every address."""
        if (address, port) in self._own:
            return True
        everywhere = any(own == port and ipaddress.ip_address(host).is_unspecified for host, own in self._own_ips)
        return everywhere and is_of_this_machine(address)

    async def _addresses(self, host: str) -> list[str]:
        if _is_address(host):
            return [host]
        try:
            return await self._resolve(host)
        except OSError:
            return []

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        # The name comes back once the address is dialled, or mitmproxy would never reuse the connection.
        name = self._names.pop(data.server.id, None)
        if name is not None:
            data.server.__dict__["address"] = name

    server_connect_error = server_connected
