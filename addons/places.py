"""Where a name leads: resolved once for a client connection, before the entry that lets a request go there is written.

Every address must be one that may be dialled; what was checked is what is dialled, as long as the connection lives. A
name that no policy lets through is never resolved: a DNS query carries what its name says to whoever answers for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mitmproxy import connection
from mitmproxy.proxy import server_hooks

from ..bindings.catalog import Catalog
from ..bindings.facts import Classified
from ..bindings.model import Decision, Verdict
from ..engine.dialling import dial_at
from .guard import NameRefused, is_address

Authority = tuple[str, int]
Lookup = Callable[[str], Awaitable[list[str]]]

PLACES_MAX = 256
"""How many authorities one client connection remembers; the oldest is resolved anew."""
LOOKUPS = 32
LOOKUPS_PER_AGENT = 8
"""Names looked up at once: by one worker, and for one agent, whose slow names must not hold up those of others."""


class AddressRefused(NameRefused):
    """A name leads to an address that is not dialled. The agent is not told which."""

    def __init__(self, text: str, address: str) -> None:
        super().__init__("address_refused", text)
        self.address = address


def unreachable(actions: Sequence[Classified], why: NameRefused) -> list[tuple[Classified, Decision]]:
    """The actions that were on the way to where `find` found nothing to dial, denied. The log is told the address."""
    more = {"address": why.address} if isinstance(why, AddressRefused) else {}
    decision = Decision(Verdict.DENY, why.reason, (), str(why))
    return [(replace(action, parameters={**action.parameters, **more}), decision) for action in actions]


class Resolver:
    """The system's resolver, in threads of its own. Raises OSError."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, "resolve")

    async def __call__(self, host: str) -> list[str]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host)


def own_addresses(listeners: Iterable[Authority]) -> frozenset[Authority]:
    """The addresses of our own listeners, which may be configured by name. Raises OSError."""
    found = (([host] if is_address(host) else _addresses(host), port) for host, port in listeners)
    return frozenset((address, port) for addresses, port in found for address in addresses)


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Places:
    """The checked addresses of each client connection's authorities. A name is waited for `timeout` seconds."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        own_addresses: frozenset[Authority],
        lookup: Lookup,
        timeout: float,
        fixed_upstreams: frozenset[Authority] = frozenset(),
    ) -> None:
        self._catalog = catalog
        self._own = own_addresses
        self._own_ips = [(host, port) for host, port in own_addresses if is_address(host)]
        self._fixed = fixed_upstreams
        self._lookup = lookup
        self._timeout = timeout
        self._known: dict[str, dict[Authority, tuple[str, ...]]] = {}
        self._looking_up: dict[str, asyncio.Task[list[str]]] = {}
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOOKUPS_PER_AGENT))

    def client_connected(self, client: connection.Client) -> None:
        self._known[client.id] = {}

    def client_disconnected(self, client: connection.Client) -> None:
        self._known.pop(client.id, None)

    def known(self, client: connection.Client, authority: Authority) -> bool:
        """Whether `find` has found where this authority leads, on this connection."""
        return authority in self._known.get(client.id, ())

    async def find(self, client: connection.Client, agent_id: str, authority: Authority) -> None:
        """Resolve and check an authority that the policy lets through. Raises NameRefused: it is not dialled."""
        host, port = authority
        addresses = [host] if is_address(host) else await self._resolve(agent_id, host)
        named = bool(self._catalog().at(host, port))
        for address in addresses:
            if not dialable(address, named) or self._is_ours(address, port):
                raise AddressRefused(
                    f"{host} leads to an address that is not dialled (this monitor, this machine, a private network or "
                    "the like); the operator can name the host in the catalog",
                    address,
                )
        known = self._known.get(client.id)
        if known is None:
            raise NameRefused("request_aborted", "the agent left while the name was resolved")
        while len(known) >= PLACES_MAX:
            del known[next(iter(known))]
        known[authority] = tuple(addresses)

    async def _resolve(self, agent_id: str, host: str) -> list[str]:
        """Who asks for what is being looked up already waits for the same answer."""
        looking = self._looking_up.get(host)
        if looking is None:
            looking = self._looking_up[host] = asyncio.ensure_future(self._look_up(agent_id, host))
            looking.add_done_callback(lambda _: self._looking_up.pop(host))
        try:
            async with asyncio.timeout(self._timeout):
                addresses = await asyncio.shield(looking)
        except TimeoutError:
            addresses = []
        if not addresses:
            raise NameRefused("name_not_resolved", f"{host} cannot be resolved")
        return addresses

    async def _look_up(self, agent_id: str, host: str) -> list[str]:
        """A turn, once had, is over when the lookup is, not when nobody waits any more: until then it has a thread."""
        turn = self._turns[agent_id]
        try:
            async with asyncio.timeout(self._timeout):
                await turn.acquire()
        except TimeoutError:
            return []
        try:
            return await self._lookup(host)
        except (OSError, UnicodeError):
            return []
        finally:
            turn.release()

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        server = data.server
        assert server.address is not None
        authority = (server.address[0], server.address[1])
        if authority in self._fixed:
            return
        addresses = self._known.get(data.client.id, {}).get(authority)
        if addresses is None:
            server.error = f"{authority[0]} was not resolved before it was judged"
            return
        if server.tls and server.sni is None:
            server.sni = authority[0]
        dial_at(server, addresses)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """What has answered is asked first the next time."""
        server, known = data.server, self._known.get(data.client.id, {})
        if server.address is None or server.peername is None:
            return
        authority, first = (server.address[0], server.address[1]), server.peername[0]
        addresses = known.get(authority, ())
        if first in addresses[1:]:
            known[authority] = (first, *(a for a in addresses if a != first))

    def _is_ours(self, address: str, port: int) -> bool:
        """Whether dialling this would come back to one of our own listeners, also one on every address."""
        address = str(_meant(address))
        if (address, port) in self._own:
            return True
        everywhere = any(own == port and ipaddress.ip_address(host).is_unspecified for host, own in self._own_ips)
        return everywhere and is_of_this_machine(address)


def dialable(address: str, named_by_catalog: bool) -> bool:
    """Whether an address may be dialled: global ones; others only where the catalog names the host."""
    ip = _meant(address)
    if ip.is_multicast or ip.is_unspecified or ip.is_link_local:
        return False
    return named_by_catalog or ip.is_global


def _meant(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without a zone, and as IPv4 where it leads there."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (_embedded(ip) or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


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
