"""All changes to mitmproxy's own code, each with its reason.

Every patch replaces one attribute by a function of the same behaviour that costs less, or that fails closed. They were
made for one version of mitmproxy; with any other, the source of what is replaced must still be what it was.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from mitmproxy import connection, flow, http, version
from mitmproxy.proxy import commands, context, events, layer, tunnel
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    RegisterHttpConnection,
    SendHttp,
)
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders

from ..formats.errors import UsageError
from . import connection_reuse as reuse
from . import header_fields, tls_records

CHECKED_VERSION = "12.2.3"

Commands = Generator[commands.Command, Any, Any]


@dataclass(frozen=True, slots=True)
class Patch:
    """`owner.name` is replaced. `sha256` is of the source of `replaced`, read when the replacement was written."""

    owner: Any
    name: str
    replacement: Any
    replaced: Callable[..., Any]
    sha256: str
    reason: str

    @property
    def where(self) -> str:
        """What is replaced, for people."""
        return f"{self.replaced.__module__}.{self.replaced.__qualname__}"

    def fits(self) -> bool:
        """Whether mitmproxy's source still is what the replacement was written for."""
        source = inspect.getsource(self.replaced)
        return hashlib.sha256(source.encode()).hexdigest()[:16] == self.sha256


# Layers: hooks run where they are yielded


def layer_handle_event(self: layer.Layer, event: events.Event) -> Commands:
    if self._paused:
        if not isinstance(event, events.CommandCompleted) or event.command is not self._paused.command:
            self._paused_event_queue.append(event)
            return
        generator, send = self._paused.generator, event.reply
        self._paused = None
    else:
        generator, send = self._handle_event(event), None
    while True:
        try:
            command = generator.send(send)
            while True:
                if command.blocking is True:
                    if isinstance(command, commands.StartHook):
                        pending = self.context.dispatch(command)  # type: ignore[attr-defined]
                        if pending is None:
                            command = generator.send(None)
                            continue
                        command.pending = pending  # type: ignore[attr-defined]
                    command.blocking = self
                    self._paused = layer.Paused(command, generator)
                    yield command
                    return
                yield command
                command = next(generator)
        except StopIteration:
            pass
        if self._paused or not self._paused_event_queue:
            return
        generator, send = self._handle_event(self._paused_event_queue.popleft()), None


def http_layer_event_to_child(self: HttpLayer, child: layer.Layer, event: events.Event) -> Commands:
    command: Any
    ended = False
    for command in child.handle_event(event):
        kind = type(command)
        if kind is commands.SendData:
            yield command
        elif kind is ReceiveHttp:
            received = command.event
            if type(received) is RequestHeaders:
                yield from self.make_stream(received.stream_id)
            stream = self.streams.get(received.stream_id)
            if stream is not None:  # else it is finished already
                yield from self.event_to_child(stream, received)
        elif kind is SendHttp:
            end = self.connections.get(command.connection)
            if end is not None:  # else it is closed
                yield from self.event_to_child(end, command.event)
        else:
            if command.blocking or kind is commands.RequestWakeup:
                self.command_sources[command] = child
            if kind is DropStream:
                self.streams.pop(command.stream_id, None)
                ended = True
            elif kind is GetHttpConnection:
                yield from self.get_connection(command)
            elif kind is RegisterHttpConnection:
                yield from self.register_connection(command)
            else:
                if kind is commands.OpenConnection:
                    self.connections[command.connection] = child
                yield command
    if ended and not child._paused:
        _let_go(child)


def tunnel_event_to_child(self: tunnel.TunnelLayer, event: events.Event) -> Commands:
    if self.tunnel_state is tunnel.TunnelState.ESTABLISHING and not self.command_to_reply_to:
        self._event_queue.append(event)
        return
    own = self.conn
    for command in self.child_layer.handle_event(event):
        if not isinstance(command, commands.ConnectionCommand) or command.connection is not own:
            yield command
        elif type(command) is commands.SendData:
            yield from self.send_data(command.data)
        else:
            yield from self._handle_command(command)


_server_tls_event_to_child = tls.ServerTLSLayer.event_to_child


def server_tls_event_to_child(self: tls.ServerTLSLayer, event: events.Event) -> Commands:
    if self.wait_for_clienthello:
        return _server_tls_event_to_child(self, event)
    return tunnel_event_to_child(self, event)


def _let_go(stream: Any) -> None:
    """Of a stream that has ended, undo what leads from it back to it: it is freed at once, with its flow and bodies."""
    stream.client_state = stream.server_state = _ended
    stream.context.layers.clear()


def _ended(event: events.Event) -> Commands:
    yield from ()


# Objects


def no_check(self: http.MessageData) -> None:
    return None


def plain_new(cls: type, *args: object, **kwargs: object) -> Any:
    return object.__new__(cls)


def context_fork(self: context.Context) -> context.Context:
    fork = object.__new__(context.Context)
    fork.__dict__.update(self.__dict__)
    fork.layers = self.layers.copy()
    return fork


_flow_numbers = itertools.count(int.from_bytes(os.urandom(8)) << 64)


def flow_id() -> str:
    """Unique, not secret. Twenty times cheaper than a uuid4, which asks the kernel for randomness."""
    return f"{next(_flow_numbers):032x}"


PATCHES = (
    Patch(
        layer.Layer,
        "handle_event",
        layer_handle_event,
        layer.Layer.handle_event,
        "fd88b0fb09ceddbb",
        "a hook that needs no waiting runs at once, not after a way up and down through all layers",
    ),
    Patch(
        HttpLayer,
        "event_to_child",
        http_layer_event_to_child,
        HttpLayer.event_to_child,
        "1095f6e1581d1780",
        "the frequent commands are looked for first",
    ),
    Patch(HttpLayer, "_handle_event", reuse.handle_event, HttpLayer._handle_event, "6ba31883cc7a06b3", reuse.FORGOTTEN),
    Patch(
        HttpLayer, "get_connection", reuse.get_connection, HttpLayer.get_connection, "1aa1c63e3175766c", reuse.REUSED
    ),
    Patch(
        HttpLayer,
        "register_connection",
        reuse.register_connection,
        HttpLayer.register_connection,
        "deed6282affc431f",
        "goes with get_connection",
    ),
    Patch(
        tls.TLSLayer,
        "receive_data",
        tls_records.receive_data,
        tls.TLSLayer.receive_data,
        "85c0e6b656c324e5",
        "no exception only to learn that there is nothing more to read",
    ),
    Patch(
        tls.TLSLayer,
        "send_data",
        tls_records.send_data,
        tls.TLSLayer.send_data,
        "35a29a1b0b0cb184",
        "what one event sends on a connection becomes one record and one write",
    ),
    Patch(
        tls.TLSLayer,
        "tls_interact",
        tls_records.interact,
        tls.TLSLayer.tls_interact,
        "62d6d57d43dd1a2e",
        "no exception only to learn that there is nothing more to send",
    ),
    Patch(
        connection.Connection,
        "__eq__",
        object.__eq__,
        connection.Connection.__eq__,
        "04776846f3cf761c",
        "connections are the keys of every table; a live one has no double, so identity is enough",
    ),
    Patch(
        connection.Connection,
        "__hash__",
        object.__hash__,
        connection.Connection.__hash__,
        "034412630892678e",
        "goes with __eq__",
    ),
    Patch(
        context.Context,
        "fork",
        context_fork,
        context.Context.fork,
        "cad9374a0689f10a",
        "makes no server connection only to throw it away, and hands down what the driver put in",
    ),
    Patch(
        http.MessageData,
        "__post_init__",
        no_check,
        http.MessageData.__post_init__,
        "f65088e210cd9cc1",
        "no type check of every field of every message at run time",
    ),
    Patch(
        commands.StartHook,
        "__new__",
        plain_new,
        commands.StartHook.__new__,
        "722d742f24074dc2",
        "a hook need not be asked each time whether its class is one",
    ),
    Patch(
        events.CommandCompleted,
        "__new__",
        plain_new,
        events.CommandCompleted.__new__,
        "e0df0ef4b3a4c67e",
        "the same for replies",
    ),
    Patch(
        http.Headers,
        "__init__",
        header_fields.init,
        http.Headers.__init__,
        "4d53696a5f9f6670",
        "no table of fields by name is made where none are given",
    ),
    Patch(
        tunnel.TunnelLayer,
        "event_to_child",
        tunnel_event_to_child,
        tunnel.TunnelLayer.event_to_child,
        "119a33642637d420",
        "commands that are not about the tunnel's own connection are passed on as they are",
    ),
    Patch(
        tls.ServerTLSLayer,
        "event_to_child",
        server_tls_event_to_child,
        tls.ServerTLSLayer.event_to_child,
        "72ccc54bbf633c15",
        "the agent's handshake never waits for a server here, so mostly there is nothing to look for",
    ),
    Patch(
        http.Headers,
        "__getitem__",
        header_fields.getitem,
        http.Headers.__getitem__,
        "482e7414c932e3e8",
        "fields are found by name in a table, not by a walk for each question",
    ),
    Patch(
        http.Headers,
        "get_all",
        header_fields.get_all,
        http.Headers.get_all,
        "367b3317bc2ba45c",
        "goes with __getitem__",
    ),
    Patch(
        http.Headers, "get", header_fields.get, http.Headers.__getitem__, "482e7414c932e3e8", "goes with __getitem__"
    ),
    Patch(
        http.Headers,
        "__contains__",
        header_fields.contains,
        http.Headers.__getitem__,
        "482e7414c932e3e8",
        "goes with __getitem__",
    ),
    Patch(
        flow,
        "uuid",
        types.SimpleNamespace(uuid4=flow_id),
        flow.Flow.__init__,
        "7c7b602cfb75bf18",
        "a flow's id need not be a secret from the kernel",
    ),
)


def apply() -> None:
    """Apply all patches; again is harmless.

    Raises:
        UsageError: this mitmproxy is not the one that the patches were written for, and differs where they touch it.
    """
    if version.VERSION != CHECKED_VERSION:
        for patch in PATCHES:
            if not patch.fits():
                raise UsageError(
                    f"mitmproxy {version.VERSION} changes {patch.where}, which lictor replaces; "
                    f"install mitmproxy {CHECKED_VERSION}"
                )
    for patch in PATCHES:
        setattr(patch.owner, patch.name, patch.replacement)
