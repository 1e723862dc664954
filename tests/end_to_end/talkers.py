"""WebSocket servers and clients, a TLS server that is not HTTP, and how a WebSocket client writes its frames."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from typing import Any

from end_to_end.place import RawServer
from end_to_end.wire import Answer, Wire
from end_to_end.world import Outside
from websockets.sync.server import Server, ServerConnection, serve

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def _chat(connection: Any, offered: Any) -> Any:
    return "chat" if "chat" in offered else None


class Talker:
    """A real WebSocket server (`websockets`): echoes what it is sent, and does what some messages ask for.

    `got` are the messages that arrived; `closed` the codes of the closes that did.
    """

    def __init__(self, outside: Outside | None, **options: Any) -> None:
        self.got: list[str | bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.handshakes: list[dict[str, str]] = []
        context = None
        if outside is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(outside.cert, outside.key)
        options = {"select_subprotocol": _chat, "max_size": 64 << 20, "ping_interval": None} | options
        self._server: Server = serve(self._serve, "127.0.0.1", 0, ssl=context, **options)
        self.port = int(self._server.socket.getsockname()[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.handshakes.append(dict(connection.request.headers.raw_items()))
        with contextlib.suppress(Exception):
            for message in connection:
                self.got.append(message)
                if message == "say something secret":
                    connection.send("this is secret")
                elif message == "ping me":
                    connection.ping("carried by a ping").wait(10)
                    connection.send("you are there")
                elif message == "close 4001":
                    connection.close(4001, "as you wish")
                else:
                    connection.send(message)
        frame = connection.protocol.close_rcvd
        self.closed.append((frame.code, frame.reason) if frame else (1006, ""))

    @property
    def open(self) -> int:
        """How many connections have not ended."""
        return len(self.handshakes) - len(self.closed)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


class Hostile(RawServer):
    """A server that answers an upgrade with what `answers` has for the path, and then sends what it has after that.

    On a path that ends in /deaf it reads nothing afterwards.
    """

    def __init__(self, outside: Outside, answers: dict[str, tuple[str, bytes]]) -> None:
        self.after_upgrade = b""
        self._closing = threading.Event()
        self._answers = answers
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(outside.cert, outside.key)
        self._context = context
        super().__init__()

    def take(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as connection:
            connection.settimeout(20)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096)
            head, after = self._answers[request.split()[1].decode()]
            connection.sendall(head.encode().replace(b"\n", b"\r\n") + b"\r\n" + after)
            if request.split()[1].endswith(b"/deaf"):
                self._closing.wait(60)
            while data := connection.recv(4096):
                self.after_upgrade += data

    def close(self) -> None:
        self._closing.set()
        super().close()


def granted(*more: str, accept: str = ACCEPT, upgrade: str = "websocket") -> str:
    """The head of a 101."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        f"Upgrade: {upgrade}",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
        *more,
    ]
    return "\n".join(lines) + "\n"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One frame as a client writes it."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + struct.pack("!H", size)
    else:
        length = bytes([bit | 127]) + struct.pack("!Q", size)
    first = bytes([fin << 7 | rsv << 4 | opcode])
    if not masked:
        return first + length + payload
    mask = os.urandom(4)
    return first + length + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def upgrade(wire: Wire, at: str, path: str, *headers: str) -> Answer:
    """Ask for a WebSocket on a new tunnel."""
    return wire.tunnel(at).request("GET", path, *(headers or HANDSHAKE))


def send_until_blocked(wire: Wire, piece: bytes, at_most: int) -> int:
    """How many bytes are taken before nothing more is for a second; fails beyond `at_most`."""
    sent = 0
    wire.socket.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while sent < at_most:
            wire.send(piece)
            sent += len(piece)
    assert sent < at_most, "it takes all that it is sent"
    return sent


def read_frame(wire: Wire) -> tuple[int, bytes]:
    """The next frame that a server sends: opcode and payload."""
    first, size = wire.read(2)
    if size == 126:
        (size,) = struct.unpack("!H", wire.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", wire.read(8))
    return first & 15, wire.read(size)


def read_close(wire: Wire) -> tuple[int, str]:
    """Code and reason of the next close; what comes before it is left out."""
    while True:
        opcode, payload = read_frame(wire)
        if opcode == CLOSE:
            return struct.unpack("!H", payload[:2])[0] if payload else 1005, payload[2:].decode()
