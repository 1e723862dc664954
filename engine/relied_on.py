"""Functions of mitmproxy and hyper-h2 that our subclasses replace or rely on, and what they looked like then.

The subclasses (permit, request_reader, response_reader, http1_messages, http2_connection, http2_streams) and the layers
of WebSockets and tunnels hold only while there is done around them what was done then.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import h2
import h2.connection
import h2.frame_buffer
import h2.stream
import h2.utilities
from mitmproxy import version
from mitmproxy.addons import tlsconfig
from mitmproxy.net import tls as net_tls
from mitmproxy.net.http import http1
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers.http import _http1, _http2, _http_h2

from ..formats.errors import UsageError
from .patches import CHECKED_VERSION

CHECKED_H2 = "4.3.0"

RELIED_ON: tuple[tuple[Callable[..., Any], str], ...] = (
    (layer.HttpStream.state_wait_for_request_headers, "3706d5d5ce01dcd4"),
    (layer.HttpStream.start_request_stream, "46f03368a2a54362"),
    (layer.HttpStream.state_consume_request_body, "45459c1bbd8bdb1a"),
    (layer.HttpStream.state_wait_for_response_headers, "10e32e91b2948164"),
    (layer.HttpStream.start_response_stream, "b0de9e9a5ee27276"),
    (layer.HttpStream.state_consume_response_body, "5323db61dfc7e2e1"),
    (layer.HttpStream.make_server_connection, "ddc7bc72f4d2fbc7"),
    (layer.HttpStream.check_killed, "368cad352d1e82b6"),
    (layer.HttpStream.check_invalid, "ef0a126eef45d903"),
    (layer.HttpStream.check_body_size, "236ca0a7b9fd4f69"),
    (layer.HttpStream.handle_protocol_error, "59fc3b2eeeabf63a"),
    (layer.HttpStream.handle_connect, "58ac37c8d346a2bf"),
    (layer.HttpStream.handle_connect_regular, "ae920a52067801dc"),
    (layer.HttpStream.handle_connect_finish, "eb3a0054cb5b716e"),
    (layer.HttpStream.send_response, "d581bc106152e369"),
    (layer.HttpStream.flow_done, "ad9969744785c572"),
    (layer.HttpStream.passthrough, "a6df32aba1ae251a"),
    (_http1.Http1Connection.make_pipe, "a3af8fb481541632"),
    (_http1.Http1Connection.passthrough, "aa59bc78ffbdcf54"),
    (_http1.should_make_pipe, "a6c0dc00208d5e49"),
    (tlsconfig.TlsConfig.tls_start_client, "05334c27c22a10ed"),
    (net_tls.create_client_proxy_context, "8a3bd5b54ef3d093"),
    (tls.parse_client_hello, "537b0089913d85d9"),
    (_http1.Http1Server.read_headers, "3fe0945216bcf7bc"),
    (_http1.Http1Server.send, "cc218a1337c0f5cf"),
    (_http1.Http1Client.read_headers, "415454c5fa8b5981"),
    (_http1.Http1Connection.read_body, "aece271029af36e4"),
    (_http1.Http1Connection.mark_done, "dc5ed395ce4f0763"),
    (_http1.Http1Server.mark_done, "94fd7ea388c88671"),
    (_http1.Http1Client.send, "35d961e20d481204"),
    (http1.connection_close, "d53e499096578d6b"),
    (http1.expected_http_body_size, "bf258f07286cf770"),
    (layer.HttpStream.state_stream_request_body, "c98f7f715cef7cfa"),
    (layer.HttpStream.state_stream_response_body, "3fb6320300d3ddd5"),
    (layer.HttpClient._handle_event, "bc1cae775a49a4fe"),
    (_http2.Http2Connection.__init__, "1614b5711609de26"),
    (_http2.Http2Connection.is_closed, "26e8192aca68a486"),
    (_http2.Http2Connection.is_open_for_us, "ada9ae25ced6deaf"),
    (_http2.Http2Connection._handle_event, "a7f4a7a71d31074b"),
    (_http2.Http2Connection.handle_h2_event, "f6b6a52b12548102"),
    (_http2.Http2Connection.protocol_error, "461f5e7de9c9b687"),
    (_http2.Http2Connection.close_connection, "44b76ed198e7916a"),
    (_http2.Http2Server._handle_event, "7282fa18e70a3eaa"),
    (_http2.Http2Server.handle_h2_event, "d24a023c678de6ce"),
    (_http2.Http2Client.__init__, "e4b5d0162e44ceaa"),
    (_http2.Http2Client._handle_event, "02de05a5b89f087b"),
    (_http2.Http2Client._handle_event2, "a3b722b18c3f46fa"),
    (_http2.Http2Client.handle_h2_event, "ff6f4bd9271693b8"),
    (_http2.format_h2_request_headers, "0bbc986d90823fbe"),
    (_http2.format_h2_response_headers, "c61b5fbe92c70646"),
    (_http_h2.BufferedH2Connection, "f983b7220f47b60a"),
    (h2.connection.H2Connection.receive_data, "23c10edc87abe72d"),
    (h2.connection.H2Connection._receive_frame, "39b2e16b4fd74ed0"),
    (h2.connection.H2Connection._receive_headers_frame, "4a014e7d795a15a5"),
    (h2.connection.H2Connection._receive_data_frame, "09803eef3f564140"),
    (h2.connection.H2Connection.acknowledge_received_data, "a4280c825a0c3987"),
    (h2.frame_buffer.FrameBuffer, "22fe5e16e85fce46"),
    (h2.stream.H2Stream._track_content_length, "a4580a2f3c858963"),
    (h2.utilities.validate_headers, "f2e9c263b028d430"),
)


def changed() -> list[str]:
    """The names of those whose source is another now."""
    return [
        f"{function.__module__}.{function.__qualname__}"
        for function, sha256 in RELIED_ON
        if hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16] != sha256
    ]


def check() -> None:
    """Raises UsageError if this mitmproxy, or this hyper-h2, is another and differs where it matters."""
    same = (version.VERSION, h2.__version__) == (CHECKED_VERSION, CHECKED_H2)
    if not same and (found := changed()):
        other = f"h2 {h2.__version__}" if found[0].startswith("h2.") else f"mitmproxy {version.VERSION}"
        raise UsageError(
            f"{other} changes {found[0]}, which lictor relies on; "
            f"install mitmproxy {CHECKED_VERSION} with h2 {CHECKED_H2}"
        )
