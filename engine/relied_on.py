"""Functions of mitmproxy that our subclasses of its HTTP layers replace or rely on, and what they looked like then.

The subclasses (permit, request_reader, response_reader) and the layers of WebSockets and tunnels hold only while
mitmproxy does around them what it did then.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from mitmproxy import version
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers.http import _http1

from ..formats.errors import UsageError
from .patches import CHECKED_VERSION

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
    (tls.parse_client_hello, "537b0089913d85d9"),
    (_http1.Http1Server.read_headers, "3fe0945216bcf7bc"),
    (_http1.Http1Server.send, "cc218a1337c0f5cf"),
    (_http1.Http1Client.read_headers, "415454c5fa8b5981"),
)


def changed() -> list[str]:
    """The names of those whose source is another now."""
    return [
        f"{function.__module__}.{function.__qualname__}"
        for function, sha256 in RELIED_ON
        if hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16] != sha256
    ]


def check() -> None:
    """Raises UsageError if this mitmproxy is another and differs where it matters."""
    if version.VERSION != CHECKED_VERSION and (found := changed()):
        raise UsageError(
            f"mitmproxy {version.VERSION} changes {found[0]}, which lictor relies on; "
            f"install mitmproxy {CHECKED_VERSION}"
        )
