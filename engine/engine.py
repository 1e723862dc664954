"""mitmproxy, embedded: the listeners, the options it must run with, and the addons it needs.

The listener itself speaks TLS and demands a client certificate, so plaintext never reaches the proxy core. Unsafe
options are refused, not warned about.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from mitmproxy import certs, connection, master, options
from mitmproxy.addons import core, disable_h2c, proxyserver
from mitmproxy.proxy import context, layer, layers, mode_specs

from ..formats.errors import UsageError
from . import http2_streams, patches, websocket_layer
from .connection_driver import ConnectionDriver
from .hook_dispatch import Dispatcher
from .patience import TimeLimits
from .peer import Peer
from .protocol_layers import ProtocolLayers
from .upstream_tls import UpstreamLookup, UpstreamTls

HANDSHAKE_TIMEOUT = 10.0
MINTED_HOSTS_MAX = 10_000

log = logging.getLogger(__name__)

# Without these the monitor could be passed by. An addon that changes one stops the engine.
REQUIRED_OPTIONS: dict[str, Any] = {
    "allow_hosts": [],
    "client_certs": None,
    "connection_strategy": "lazy",
    "http2": False,  # by itself; `upstream_tls` chooses it for the layers in `http2_streams`
    "http2_ping_keepalive": 0,
    "http3": False,
    "ignore_hosts": [],
    "rawtcp": False,
    "server": False,
    "ssl_insecure": False,
    "tcp_hosts": [],
    "udp_hosts": [],
    "validate_inbound_headers": True,
    "websocket": True,  # its layer is replaced by ours (`websocket_layer`)
}


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening port. `mode`: "regular" (a proxy) or "reverse:http://HOST:PORT" (in front of one server)."""

    host: str
    port: int
    mode: str
    ssl: ssl.SSLContext | None
    reuse_port: bool = True


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`confdir` holds the interception CA as mitmproxy-ca.pem. `upstream_ca`: PEM file in place of the system's roots.

    `upstream` names CA and client certificate per (host, port). `body_limit` and `websocket_message_bytes` (the largest
    message) are in bytes, `times` says how long connections may keep us waiting.
    """

    confdir: Path
    upstream_ca: Path | None = None
    upstream: UpstreamLookup = lambda host, port: None
    body_limit: int | None = None
    websocket_message_bytes: int = 4 * 1024 * 1024
    times: TimeLimits = field(default_factory=TimeLimits)
    keep_host_header: bool = True


class Engine:
    """One engine in one process. `addons` are mitmproxy addons; a hook may return a future or a coroutine."""

    dispatcher: Dispatcher
    loop: asyncio.AbstractEventLoop

    def __init__(self, listeners: Sequence[Listener], addons: Sequence[object], options: EngineOptions) -> None:
        self._listeners = tuple(listeners)
        self._addons = tuple(addons)
        self._options = options
        self._drivers: dict[str, ConnectionDriver] = {}
        self._servers: list[asyncio.Server] = []
        self._stopping: asyncio.Event | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self.ready = asyncio.Event()
        self.addresses: tuple[tuple[str, int], ...] = ()

    async def run(self) -> None:
        """Serve until `shutdown()`. `ready` is set, and `addresses` known, once all ports listen.

        Raises:
            UsageError: unsafe options, no interception CA, or a port in use.
        """
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        patches.apply()
        http2_streams.install()
        websocket_layer.install(self._options.websocket_message_bytes)
        self._master = self._make_master()
        self.dispatcher = Dispatcher(self._master.addons.chain, self.cut)
        servers = self._servers
        try:
            await self._announce("running")
            require_safe(self._master.options)
            # The layers get a copy: quicker to read, and nothing that changes an option later reaches them.
            self._frozen_options = cast(options.Options, SimpleNamespace(**_values(self._master.options)))
            for listener in self._listeners:
                servers.append(await self._listen(listener))
            self.addresses = tuple(server.sockets[0].getsockname()[:2] for server in servers)
            self.ready.set()
            self._sweep()
            await self._stopping.wait()
        finally:
            self.stop_listening()
            if self._sweeping is not None:
                self._sweeping.cancel()
            for driver in list(self._drivers.values()):
                driver.cut()
            await asyncio.sleep(0)
            await self._announce("done")
            self._master._legacy_log_events.uninstall()

    def _sweep(self) -> None:
        """Let every driver look whether something has lasted too long: one timer for all connections."""
        now = self.loop.time()
        for driver in list(self._drivers.values()):
            try:
                driver.look(now)
            except Exception:
                log.exception("a connection could not be looked after: it is cut")
                driver.cut()
        self._sweeping = self.loop.call_later(self._options.times.interval, self._sweep)

    def stop_listening(self) -> None:
        """Take no new connections; those that are open go on. Call it in the engine's loop."""
        for server in self._servers:
            server.close()

    def shutdown(self) -> None:
        """Stop listening, cut all connections and let `run` return. Call it in the engine's loop."""
        if self._stopping is not None:
            self._stopping.set()

    def peer_certificate(self, client: connection.Client) -> bytes | None:
        """The client certificate of the outer TLS, DER. None: no such connection, or a listener without TLS."""
        driver = self._drivers.get(client.id)
        transport = driver and driver.peer.transport
        session = transport and transport.get_extra_info("ssl_object")
        return session.getpeercert(binary_form=True) if session else None

    def cut(self, client: connection.Client) -> None:
        """The kill switch: end a client's connections at once, whatever they are doing."""
        driver = self._drivers.get(client.id)
        if driver is not None:
            driver.cut()

    def look_at_servers(self) -> None:
        """Close the connections to servers that would not be accepted any more. What is under way there fails."""
        for driver in list(self._drivers.values()):
            driver.close_servers(lambda server: not self._upstream_tls.still_accepted(server))

    def is_own_address(self, host: str, port: int) -> bool:
        """Whether a connection to this address would come back to one of our listeners."""
        return any(
            port == own_port and host in ("localhost", "127.0.0.1", "::1", own_host)
            for own_host, own_port in self.addresses
        )

    def forget(self, driver: ConnectionDriver) -> None:
        """A driver has ended."""
        self._drivers.pop(driver.client.id, None)

    def accept(self, peer: Peer, transport: asyncio.Transport, mode: mode_specs.ProxyMode) -> None:
        """A client has connected and, where the listener speaks TLS, has shown its certificate."""
        peername = transport.get_extra_info("peername")
        if peername is None:  # it has gone again
            transport.abort()
            return
        client = connection.Client(
            peername=peername,
            sockname=transport.get_extra_info("sockname"),
            timestamp_start=time.time(),
            proxy_mode=mode,
            state=connection.ConnectionState.OPEN,
        )
        top = _top_layer(context.Context(client, self._frozen_options))
        driver = ConnectionDriver(self, client, top, peer, self._options.times)
        self._drivers[client.id] = driver
        driver.start()

    def _make_master(self) -> master.Master:
        require_interception_ca(self._options.confdir)
        certs.CertStore.STORE_CAP = MINTED_HOSTS_MAX
        self._upstream_tls = UpstreamTls(self._options.upstream_ca, self._options.upstream)
        made = master.Master(options.Options(confdir=str(self._options.confdir)))
        made._legacy_log_events.uninstall()  # it would wake the loop for every log record
        made.addons.add(
            core.Core(),
            *self._addons,
            disable_h2c.DisableH2C(),
            proxyserver.Proxyserver(),
            ProtocolLayers(),
            self._upstream_tls,
        )
        made.options.update(
            **REQUIRED_OPTIONS,
            body_size_limit=str(self._options.body_limit) if self._options.body_limit else None,
            keep_host_header=self._options.keep_host_header,
        )
        return made

    async def _announce(self, name: str) -> None:
        for function in self.dispatcher.functions(name):
            result = cast(Callable[[], Any], function)()
            if asyncio.iscoroutine(result) or asyncio.isfuture(result):
                await result

    async def _listen(self, listener: Listener) -> asyncio.Server:
        mode = parse_mode(listener.mode)
        sock = bound_socket(listener.host, listener.port, listener.reuse_port)
        return await self.loop.create_server(
            lambda: _ClientPeer(self, mode),
            sock=sock,
            ssl=listener.ssl,
            backlog=1024,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT if listener.ssl else None,
        )


class _ClientPeer(Peer):
    def __init__(self, engine: Engine, mode: mode_specs.ProxyMode) -> None:
        super().__init__()
        self._engine, self._mode = engine, mode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        try:
            self._engine.accept(self, self.transport, self._mode)
        except Exception:
            log.exception("a connection could not be taken on: it is closed")
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "driver"):  # not where accept() has failed
            super().connection_lost(exc)


def parse_mode(text: str) -> mode_specs.RegularMode | mode_specs.ReverseMode:
    """A listener's mode.

    Raises:
        UsageError: it is neither of the two that there are.
    """
    try:
        mode = mode_specs.ProxyMode.parse(text)
    except ValueError:
        mode = None
    if isinstance(mode, mode_specs.RegularMode) or (isinstance(mode, mode_specs.ReverseMode) and mode.scheme == "http"):
        return mode
    raise UsageError(f'listener mode: expected "regular" or "reverse:http://HOST:PORT", found "{text}"')


def _top_layer(made: context.Context) -> layer.Layer:
    if isinstance(made.client.proxy_mode, mode_specs.ReverseMode):
        return layers.modes.ReverseProxy(made)
    return layers.modes.HttpProxy(made)


def _values(found: options.Options) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found._options}


def require_safe(found: options.Options) -> None:
    """Refuse options with which the monitor could be passed by.

    Raises:
        UsageError: names the first option that differs and what it must be.
    """
    for name, required in REQUIRED_OPTIONS.items():
        value = getattr(found, name)
        if value != required and not (required == [] and not value):
            raise UsageError(f"option {name}: expected {required!r}, found {value!r}; lictor does not run with it")


def require_interception_ca(confdir: Path) -> None:
    """mitmproxy would make a CA of its own where it finds none.

    Raises:
        UsageError: there is no mitmproxy-ca.pem.
    """
    path = confdir / "mitmproxy-ca.pem"
    if not path.is_file():
        raise UsageError(f"{path}: expected the interception CA (private key and certificates), found no file")


def bound_socket(host: str, port: int, reuse_port: bool) -> socket.socket:
    """A bound TCP socket. With `reuse_port` several workers share the port, and one that is in use so is not noticed.

    Raises:
        UsageError: the address cannot be bound; the text names it.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"{host}:{port}: the port is in use; stop what uses it or configure another") from error
        raise UsageError(f"{host}:{port}: cannot listen there ({error.strerror})") from error
    sock.setblocking(False)
    return sock
