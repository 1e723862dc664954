"""Which upstream connection a request goes over: one of this client connection's own, to this very authority.

Replacements in mitmproxy's `HttpLayer`, applied by `patches`. mitmproxy keeps every connection that has closed, answers
all later requests with the error of one that failed, and gives each HTTP/2 request an HTTP/1.1 connection of its own.
Connections are never shared between clients: each has its own `HttpLayer`, and so each identity and each tunnel.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpLayer,
    RegisterHttpConnection,
)

Commands = Generator[commands.Command, Any, Any]

FORGOTTEN = "connections that have closed are forgotten"
REUSED = "an HTTP/2 client's requests reuse HTTP/1.1 connections, one at a time; one that failed is tried again"

_handle_event = HttpLayer._handle_event
_get_connection = HttpLayer.get_connection


def handle_event(self: HttpLayer, event: events.Event) -> Commands:
    if not isinstance(event, events.ConnectionEvent):
        yield from _handle_event(self, event)
        return
    connection = event.connection
    handler = self.connections.get(connection)
    if handler is not None:
        yield from self.event_to_child(handler, event)
    elif not isinstance(event, events.ConnectionClosed):
        yield from _handle_event(self, event)
    closed = connection.state is ConnectionState.CLOSED and connection is not self.context.client
    if closed and connection not in self.waiting_for_establishment:
        self.connections.pop(connection, None)


def get_connection(self: HttpLayer, command: GetHttpConnection, *, reuse: bool = True) -> Commands:
    if reuse:
        establishing, only_http1 = None, False
        for connection, handler in self.connections.items():
            if not command.connection_spec_matches(connection):
                continue
            if connection in self.waiting_for_establishment:
                establishing = connection
            elif connection.connected:
                if _is_free(handler):
                    stream = self.command_sources.pop(command)
                    yield from self.event_to_child(stream, GetHttpConnectionCompleted(command, (connection, None)))
                    return
                only_http1 = only_http1 or connection.alpn != b"h2"
        if establishing is not None and not only_http1:
            self.waiting_for_establishment[establishing].append(command)
            return
    yield from _get_connection(self, command, reuse=False)


def register_connection(self: HttpLayer, command: RegisterHttpConnection) -> Commands:
    connection = command.connection
    waiting = self.waiting_for_establishment.pop(connection)
    if command.err:
        self.connections.pop(connection, None)
    shared = command.err or connection.alpn == b"h2"
    reply: Any = (None, command.err) if command.err else (connection, None)
    for number, request in enumerate(waiting):
        if number and not shared:  # one request at a time, and who knows when the one before ends
            yield from self.get_connection(request, reuse=False)
        else:
            stream = self.command_sources.pop(request)
            yield from self.event_to_child(stream, GetHttpConnectionCompleted(request, reply))


def _is_free(handler: layer.Layer) -> bool:
    while (below := getattr(handler, "child_layer", None)) is not None:
        handler = below
    return getattr(handler, "free", True)
