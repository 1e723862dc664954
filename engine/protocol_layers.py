"""Which protocol comes next on a connection: HTTP/1.1, or TLS with HTTP/1.1 or 2 in it. There is no third answer.

Only a tunnel that the addons let through uninterrupted (`tunnel_layer`) holds what it holds, once it has begun as TLS.
mitmproxy's own addon guesses from the bytes, the port and lists of hosts, and can answer with raw TCP, DNS or QUIC.
What is not HTTP here is given to the HTTP parser, which refuses it.
"""

from __future__ import annotations

from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._http1 import Http1Server

from .permit import PermitStream
from .tunnel_layer import TunnelLayer, is_let_through

HTTP1_TUNNEL_STREAM = 1
TLS_HANDSHAKE = 0x16


class ProtocolLayers:
    """The `next_layer` addon."""

    name = "nextlayer"

    def next_layer(self, asked: layer.NextLayer) -> None:
        """Set the next layer, or leave it open until enough bytes have come."""
        context, below = asked.context, asked.context.layers[-1]
        if isinstance(below, modes.HttpProxy):
            asked.layer = layers.HttpLayer(context, HTTPMode.regular)
        elif isinstance(below, (modes.ReverseProxy, layers.ClientTLSLayer)):
            asked.layer = layers.HttpLayer(context, HTTPMode.transparent)
        else:
            self._in_tunnel(asked)

    def _in_tunnel(self, asked: layer.NextLayer) -> None:
        connect = asked.context.layers[-1]
        if isinstance(connect, PermitStream) and is_let_through(connect.flow):
            asked.layer = TunnelLayer(asked.context, connect.flow, connect.permitted)
            return
        first: bytes = asked.data_client()
        if first[:1] == bytes([TLS_HANDSHAKE]):
            if len(first) < 3:
                return
            if starts_like_tls_record(first):
                # No ServerTLSLayer round it: the HTTP layer opens upstream TLS when a request has been judged.
                asked.context.server.tls = True
                asked.layer = layers.ClientTLSLayer(asked.context)
                return
        asked.layer = layers.HttpLayer(asked.context, HTTPMode.transparent)


def established_tunnel(top: layer.Layer) -> layer.Layer | None:
    """The layer inside an established CONNECT tunnel; from now on it can do without the layers round it. None: not yet.

    All that the layers of the CONNECT still did was to wrap every byte as a body and unwrap it again.
    """
    stack = top.context.layers
    if len(stack) < 2 or not isinstance(http := stack[1], layers.HttpLayer) or http.command_sources or http._paused:
        return None
    server, stream = http.connections.get(top.context.client), http.streams.get(HTTP1_TUNNEL_STREAM)
    if not isinstance(server, Http1Server) or stream is None or stream._paused or server.buf:
        return None
    if server.state != server.passthrough or stream._handle_event != stream.passthrough:
        return None
    return stream.child_layer
