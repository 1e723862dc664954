"""Bytes through the TLS sessions of the layers, which work on memory: OpenSSL's functions, called directly.

pyOpenSSL allocates 64 KiB for every read, says by an exception that there is nothing more, and looks for an error after
each call that went well. Here it is asked only when a call has failed, to say why. What one event sends on a connection
becomes one record and one write. `patches` puts the replacements in the place of mitmproxy's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from typing import Any

from mitmproxy import connection
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import tls
from OpenSSL import SSL

Commands = Generator[commands.Command, Any, Any]

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

_ROOM = 64 * 1024
# One for all sessions: what a call puts there is taken out before the next.
_room = _ffi.new("char[]", _ROOM)
_octets = _ffi.buffer(_room)
_held = _ffi.new("char **")


def receive_data(self: tls.TLSLayer, data: bytes) -> Commands:
    session: Any = self.tls
    if data and _lib.BIO_write(session._into_ssl, data, len(data)) != len(data):
        raise MemoryError("a memory BIO did not take what came in")
    parts = []
    close = False
    while True:
        length = _lib.SSL_read(session._ssl, _room, _ROOM)
        if length > 0:
            parts.append(_octets[:length])
            if not pending(session._into_ssl) and not _lib.SSL_pending(session._ssl):
                break
            continue
        try:
            session._raise_ssl_error(session._ssl, length)
        except SSL.WantReadError:
            break
        except SSL.ZeroReturnError:
            close = True
            break
        except SSL.Error as error:
            yield commands.Log(f"TLS Error: {error}", logging.WARNING)
            # After an alert OpenSSL says that the peer has closed, and mitmproxy would wait for ever to hear it again.
            session.set_shutdown(session.get_shutdown() | SSL.RECEIVED_SHUTDOWN)
            close = True
            break
    if pending(session._from_ssl):
        yield from self.tls_interact()
    if parts:
        received = parts[0] if len(parts) == 1 else b"".join(parts)
        yield from self.event_to_child(events.DataReceived(self.conn, received))
    if close:
        self.conn.state &= ~connection.ConnectionState.CAN_READ
        yield from self.event_to_child(events.ConnectionClosed(self.conn))


def send_data(self: tls.TLSLayer, data: bytes) -> tuple[()]:
    self.context.send_tls(self.conn, self.tls, data)  # type: ignore[attr-defined]
    return ()


def interact(self: tls.TLSLayer) -> Commands:
    if waiting := _to_send(self.tls):
        yield commands.SendData(self.conn, waiting)


def encrypt(session: Any, data: bytes) -> bytes:
    """The TLS records for `data`, with whatever else the session has to send. Nothing, if the session is closed."""
    written = _lib.SSL_write(session._ssl, data, len(data)) if data else 0
    if written < len(data):  # more than fits into one record, or an error
        with contextlib.suppress(SSL.Error):  # the peer has closed; it may still be sending
            session.sendall(data[max(written, 0) :])
    return _to_send(session)


def pending(bio: Any) -> int:
    """How many bytes a memory BIO holds."""
    return _lib.BIO_get_mem_data(bio, _held)  # type: ignore[no-any-return]


def _to_send(session: Any) -> bytes:
    """What a session has to send."""
    waiting = pending(session._from_ssl)
    if not 0 < waiting <= _ROOM:
        return session.bio_read(waiting) if waiting else b""
    return _octets[: _lib.BIO_read(session._from_ssl, _room, waiting)]  # type: ignore[no-any-return]
