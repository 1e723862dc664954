"""A server that keeps the very bytes of each request and answers with the very bytes that the table says."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from end_to_end.world import Outside, read_chunks

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
Script = Callable[["Got"], Iterator[bytes]]


@dataclass(frozen=True)
class Got:
    """One request: the head with its empty line as it came, the body without its framing."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        return self.head.partition(b"\r\n")[0].decode("latin-1")

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Header lines in their order and spelling, without Host and framing."""
        lines = [line.partition(":") for line in self.head.decode("latin-1").split("\r\n")[1:-2]]
        framing = ("host", "content-length", "transfer-encoding")
        return [(name, value.strip()) for name, _, value in lines if name.lower() not in framing]


def ok(body: bytes = b"{}", *fields: str) -> bytes:
    """A 200 with these header lines."""
    lines = ["HTTP/1.1 200 OK", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class VerbatimServer:
    """TLS on a free port; one thread a connection. `scripts` maps a path to what is sent, part by part."""

    def __init__(self, outside: Outside | None, scripts: dict[str, Script]) -> None:
        self.got: list[Got] = []
        self._scripts = scripts
        self._context = None
        if outside is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(outside.cert, outside.key)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), client:
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            with client, client.makefile("rb") as file:
                while head := _read_head(file):
                    if b"expect: 100-continue" in head.lower():
                        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    got = Got(head, _read_body(head, file))
                    self.got.append(got)
                    path = got.line.split(" ")[1].partition("?")[0]
                    for part in self._scripts.get(path, _plain)(got):
                        if not part:
                            return
                        client.sendall(part)


def _plain(got: Got) -> Iterator[bytes]:
    yield ok(got.body)


def _read_head(file: object) -> bytes:
    lines = []
    while line := file.readline():  # type: ignore[attr-defined]
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _read_body(head: bytes, file: object) -> bytes:
    if _CHUNKED.search(head):
        return b"".join(read_chunks(file))
    length = _LENGTH.search(head)
    return file.read(int(length[1])) if length else b""  # type: ignore[attr-defined]
