"""Moves bytes between sockets and mitmproxy's layers: one driver for a client connection and its upstream connections.

mitmproxy's layers do no I/O: they take events and yield commands. mitmproxy's own driver (`mitmproxy.proxy.server`)
uses a task per socket, a task per hook and a lock per event. This one is driven by protocol callbacks, runs hooks in
place, waits for a hook's future by a callback, and writes once per connection and event.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.utils import human

from .dialling import is_silent
from .hook_dispatch import Dispatcher, Pending, hook_data
from .http2_windows import Windows
from .patience import Ending, Patience, TimeLimits, Wait, Waits, waits_of
from .peer import Peer
from .protocol_layers import established_tunnel
from .upstream_opening import open_connection

log = logging.getLogger(__name__)

# A peer may send this much while a hook is waited for; then its socket is not read until the hook is done.
HELD_BYTES_MAX = 256 * 1024


class Owner(Protocol):
    """What a driver needs of its engine."""

    dispatcher: Dispatcher
    loop: asyncio.AbstractEventLoop

    def is_own_address(self, host: str, port: int) -> bool: ...
    def forget(self, driver: ConnectionDriver) -> None: ...


class ConnectionDriver:
    """Drives the layers of one client connection. All methods run in the engine's event loop."""

    def __init__(self, owner: Owner, client: Client, top: layer.Layer, peer: Peer, limits: TimeLimits) -> None:
        self.client = client
        self.layer = top
        self.cut_off = False
        self._in_connect = False  # a CONNECT was answered with 200, its tunnel not yet entered
        self._owner = owner
        self._dispatcher = owner.dispatcher
        self._loop = owner.loop
        self._limits = limits
        self._patience = Patience(limits)
        self._waits: Waits | None = None  # as of `_waits_at`: they change with what happens on the connection
        self._waits_at = 0.0
        self._last_activity = owner.loop.time()
        self._queue: collections.deque[events.Event] = collections.deque()
        self._busy = True  # until client_connected has run
        self._ended = False
        self._waiting = 0  # hooks that are waited for
        self._connecting = 0  # streams that wait for their server
        self._held = 0  # bytes that came in meanwhile
        self._wakeups: set[asyncio.TimerHandle] = set()
        peer.driver, peer.connection = self, client
        self.peer = peer
        self.peers: dict[Connection, Peer] = {client: peer}
        self._windows = Windows(self.peers)
        # Layers reach these through their context, which is handed down from layer to layer.
        top.context.__dict__.update(
            dispatch=self.dispatch, send_tls=self.send_tls, connecting=self.connecting, windows=self._windows
        )
        self._dirty: list[Peer] = []

    def start(self) -> None:
        """Ask `client_connected`, then let the layers begin."""
        self._queue.append(events.Start())
        self.hook("client_connected", self.client, self._begin)

    def _begin(self) -> None:
        self._busy = False
        if self.client.error:
            self._queue.clear()
            self.peer.closed_seen = True  # the layers never saw it
            self.cut()
        else:
            self._drain()

    # Events: from sockets and hooks to the layers

    def pump(self, event: events.Event) -> None:
        """Give the layers an event and carry out what they command. Not re-entrant: a nested event is queued."""
        self._queue.append(event)
        if not self._busy:
            self._drain()

    def _drain(self) -> None:
        queue = self._queue
        run = self._run
        self._busy = True
        self._last_activity = self._loop.time()
        try:
            while queue:
                for command in self.layer.handle_event(queue.popleft()):
                    run(command)
        except Exception:
            log.exception("the proxy core failed: connection of %s is cut", human.format_address(self.client.peername))
            self.cut()
        finally:
            self._busy = False
            if self._in_connect and (inner := established_tunnel(self.layer)) is not None:
                self.layer, self._in_connect = inner, False
            if self._windows:
                self._windows.balance()
                self.regulate()
            self._flush()
        if queue:  # what cut() has queued
            self._drain()

    def _flush(self) -> None:
        dirty = self._dirty
        if dirty:
            self._dirty = []
            for peer in dirty:
                peer.flush()

    def received(self, peer: Peer, data: bytes) -> None:
        """Bytes have come in from a peer."""
        if peer.closed_seen:
            return
        if (self._waiting or (self._connecting and peer is self.peer)) and not (peer.windowed or self.peer.windowed):
            self._held += len(data)
            if self._held > HELD_BYTES_MAX:
                self.regulate()
        self.pump(events.DataReceived(peer.connection, data))

    def eof(self, peer: Peer) -> bool:
        """The peer sends no more. True keeps the connection open for what is still to be sent to it."""
        connection = peer.connection
        connection.state &= ~ConnectionState.CAN_READ
        self._tell_closed(peer)
        over_tls = peer.transport is not None and peer.transport.get_extra_info("ssl_object") is not None
        return connection.state is ConnectionState.CAN_WRITE and not over_tls

    def gone(self, peer: Peer) -> None:
        """The connection of a peer is closed, by whichever side."""
        connection = peer.connection
        if self.peers.get(connection) is not peer:
            return
        connection.state = ConnectionState.CLOSED
        connection.timestamp_end = time.time()
        self._tell_closed(peer)
        if self.peers.pop(connection, None) is not peer:  # the layers closed it, on hearing of it
            return
        peer.blocked = False
        self.regulate()
        if self._busy:  # the layers must hear of it before the addons do
            self._loop.call_soon(self._tell_addons, peer)
        else:
            self._tell_addons(peer)

    def _tell_addons(self, peer: Peer) -> None:
        if peer is self.peer:
            self._end()
        elif peer.hook_data is not None:
            self.hook("server_disconnected", peer.hook_data, _nothing)

    def _tell_closed(self, peer: Peer) -> None:
        if not peer.closed_seen:
            peer.closed_seen = True
            self.pump(events.ConnectionClosed(peer.connection))

    def _end(self) -> None:
        self._ended = True
        for timer in self._wakeups:
            timer.cancel()
        self._wakeups.clear()
        self.hook("client_disconnected", self.client, self._close_upstream)

    def _close_upstream(self) -> None:
        for peer in list(self.peers.values()):
            self._close(peer)
        self._owner.forget(self)

    def cut(self) -> None:
        """End this client's connections at once: nothing more is sent in either direction."""
        self.cut_off = True
        for peer in list(self.peers.values()):
            peer.out.clear()
            peer.plain.clear()
            if peer.transport is not None:
                peer.transport.abort()
            self._close(peer)

    def close_servers(self, unwanted: Callable[[Server], bool]) -> None:
        """Close the connections to these servers."""
        for peer in list(self.peers.values()):
            if isinstance(peer.connection, Server) and unwanted(peer.connection):
                self._close(peer)

    # Commands: from the layers to sockets and hooks

    def _run(self, command: Any) -> None:
        if isinstance(command, commands.SendData):
            peer = self.peers.get(command.connection)
            if peer is not None:
                if not peer.out and not peer.plain:
                    self._dirty.append(peer)
                elif peer.plain:
                    peer.flush()
                peer.out.append(command.data)
        elif isinstance(command, commands.StartHook):
            self._wait(
                command.name, hook_data(command), partial(self._hook_completed, command), cast(Any, command).pending
            )
        elif isinstance(command, commands.Log):
            log.log(command.level, command.message, extra={"client": self.client.peername})
        elif isinstance(command, commands.OpenConnection):
            open_connection(self, command)
        elif isinstance(command, commands.RequestWakeup):
            self._wake_later(command)
        elif isinstance(command, commands.ConnectionCommand) and command.connection not in self.peers:
            pass  # already closed
        elif isinstance(command, commands.CloseTcpConnection) and command.half_close:
            self._half_close(self.peers[command.connection])
        elif isinstance(command, commands.CloseConnection):
            self._close(self.peers[command.connection])
        else:
            raise RuntimeError(f"unexpected command: {command}")

    def send_tls(self, connection: Connection, session: Any, data: bytes) -> None:
        """Send `data` through a TLS session on a connection, together with what else this event makes us send."""
        peer = self.peers.get(connection)
        if peer is not None:
            if not peer.out and not peer.plain:
                self._dirty.append(peer)
            peer.tls = session
            peer.plain.append(data)

    def _half_close(self, peer: Peer) -> None:
        transport = peer.transport
        if not peer.connection.state & ConnectionState.CAN_WRITE or transport is None:
            return
        peer.flush()
        peer.connection.state &= ~ConnectionState.CAN_WRITE
        if peer.connection.state is ConnectionState.CLOSED or not transport.can_write_eof():
            self._close(peer)
        else:
            transport.write_eof()

    def _close(self, peer: Peer) -> None:
        if peer.transport is None:  # still connecting: _dial or _connect ends it
            if peer.task is not None:
                peer.task.cancel()
            return
        peer.flush()
        peer.transport.close()
        self.gone(peer)

    def _wake_later(self, command: commands.RequestWakeup) -> None:
        def wake() -> None:
            self._wakeups.discard(timer)
            self.pump(events.Wakeup(command))

        timer = self._loop.call_later(command.delay, wake)
        self._wakeups.add(timer)

    @property
    def ending(self) -> bool:
        """The client connection has ended or was cut off."""
        return self.cut_off or self._ended

    def is_own_address(self, host: str, port: int) -> bool:
        """Whether a connection there would come back to this monitor."""
        return self._owner.is_own_address(host, port)

    # Hooks

    def dispatch(self, command: commands.StartHook) -> Pending | None:
        """Run a layer's hook where it is yielded. What is pending comes with the command, and is waited for here."""
        if command.name == "http_connected":
            self._in_connect = True
        return self._dispatcher.run(command.name, hook_data(command))

    def hook(self, name: str, data: Any, done: Callable[[], None]) -> None:
        pending = self._dispatcher.run(name, data)
        if pending is None:
            done()
        else:
            self._wait(name, data, done, pending)

    def _wait(self, name: str, data: Any, done: Callable[[], None], pending: Pending) -> None:
        def resume(_: object) -> None:
            self._waiting -= 1
            following = self._dispatcher.resume(name, data, pending)
            if following is not None:
                self._wait(name, data, done, following)
                return
            self._let_go()
            done()

        self._waiting += 1
        pending.future.add_done_callback(resume)

    def connecting(self, change: int) -> None:
        """A stream begins (1) or ends (-1) to wait for its server; what the client sends piles up until then."""
        self._connecting += change
        self._let_go()

    def _let_go(self) -> None:
        if self._held:
            self._held = self._held if self._waiting or self._connecting else 0
            self.regulate()

    def _hook_completed(self, command: commands.StartHook) -> None:
        self.pump(events.HookCompleted(command))

    # Flow control and patience

    def regulate(self) -> None:
        """Read from one side only while the other takes what it is sent and not too much has piled up here."""
        piled = self._held > HELD_BYTES_MAX
        upstream = [peer for peer in self.peers.values() if peer is not self.peer]
        client = self.peer
        if client.windowed:
            client.read(not client.blocked)
        else:
            client.read(not piled and not client.choked and not any(peer.blocked for peer in upstream))
        for peer in upstream:  # while a stream waits for its server, that is what it waits to be read
            if peer.windowed:
                peer.read(not peer.blocked)
            else:
                peer.read(not (piled and self._waiting) and not client.blocked and not peer.choked)

    def drained(self) -> None:
        """A send buffer has emptied: read on, and open windows of HTTP/2 (later, as a write may be under way)."""
        self.regulate()
        if self._windows:
            self._loop.call_soon(self._rebalance)

    def _rebalance(self) -> None:
        if not self._busy:
            self._windows.balance()
            self.regulate()
            self._flush()

    def look(self, now: float) -> None:
        """End what has lasted too long at `now`, in the loop's time. The engine asks now and then."""
        if self._busy or self._ended:
            return
        if self._waits is None or self._waits_at != self._last_activity:
            self._waits, self._waits_at = waits_of(self.layer, self.client), self._last_activity
        for wait in self._patience.over(self._waits.found, now):
            self._end_wait(wait)
        limit = self._limits.idle if self._waits.idle else self._limits.stream
        if now - self._last_activity >= limit and not self._waiting:
            log.info("closing idle connection of %s", human.format_address(self.client.peername))
            self._close(self.peer)
        for peer in list(self.peers.values()):
            if peer is not self.peer and is_silent(peer.connection):
                self._close(peer)

    def _end_wait(self, wait: Wait) -> None:
        if wait.http is None:
            log.info("closing a tunnel of %s in which nothing begins", human.format_address(self.client.peername))
            self._close(self.peer)
            return
        waking = commands.RequestWakeup(0)
        wait.http.command_sources[waking] = cast(layer.Layer, Ending(wait, self._limits, self.client))
        self.pump(events.Wakeup(waking))


def _nothing() -> None:
    return None
