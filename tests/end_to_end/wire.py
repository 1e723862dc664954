"""A client that sends exactly the bytes it is told to: TLS to the proxy, CONNECT, TLS inside of the tunnel."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from end_to_end.world import Monitor, read_chunks

TIMEOUT_S = 15


@dataclass(frozen=True)
class Answer:
    """A response. `headers` has lower-case names; of repeated ones the last."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection to a monitor's port."""

    def __init__(self, monitor: Monitor, context: ssl.SSLContext | None = None, port: int | None = None) -> None:
        raw = socket.create_connection(("127.0.0.1", port or monitor.port), timeout=TIMEOUT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = (context or monitor.agent_context()).wrap_socket(raw, server_hostname="127.0.0.1")
        self.monitor = monitor
        self.authority = ""
        self._tls: ssl.SSLObject | None = None
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *args: object) -> None:
        self.socket.close()

    def connect(self, authority: str, *headers: str) -> Answer:
        """CONNECT. A refusal has a body, a tunnel has not."""
        self.authority = authority
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *headers]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        return self.read_answer(head_only=True)

    def tls(self, server_name: str = "localhost", context: ssl.SSLContext | None = None) -> Wire:
        """Start TLS inside of the tunnel."""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or self.monitor.target_context()
        if not server_name:
            context.check_hostname = False
        inner = context.wrap_bio(self._in, self._out, server_hostname=server_name or None)
        while True:
            try:
                inner.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
        self._flush()
        self._tls = inner
        return self

    def tunnel(self, authority: str) -> Wire:
        """CONNECT and TLS, both as they should be."""
        answer = self.connect(authority)
        assert answer.status == 200, answer
        return self.tls(authority.rpartition(":")[0])

    def send(self, data: bytes) -> None:
        if self._tls is None:
            self.socket.sendall(data)
            return
        for start in range(0, len(data), 16384):
            self._tls.write(data[start : start + 16384])
            self._flush()

    def request(self, method: str, path: str, *headers: str, body: bytes | None = None, host: str = "") -> Answer:
        """Send one request and read the answer."""
        self.send(head(method, path, f"Host: {host or self.authority}", *headers, body=body) + (body or b""))
        return self.read_answer(head_only=method == "HEAD")

    def post_json(self, path: str, value: Any, *headers: str) -> Answer:
        return self.request("POST", path, "Content-Type: application/json", *headers, body=json.dumps(value).encode())

    def read_answer(self, head_only: bool = False) -> Answer:
        """Read a response; 1xx ones are skipped. Of a refused CONNECT the body is read too. EOFError if closed."""
        status, phrase, headers = self.read_head()
        while 100 <= status < 200 and status != 101:
            status, phrase, headers = self.read_head()
        body = b"" if status == 101 or (head_only and status == 200) else self._body(headers)
        return Answer(status, phrase, headers, body)

    def read_head(self) -> tuple[int, str, dict[str, str]]:
        _, status, phrase = (self.readline().rstrip("\r\n") + "  ").split(" ", 2)
        headers = {}
        while line := self.readline().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(status), phrase.strip(), headers

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", ""):
            return b"".join(read_chunks(_File(self)))
        if "content-length" in headers:
            return self.read(int(headers["content-length"]))
        return self.read_rest()

    def readline(self) -> str:
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return (line + b"\n").decode("latin-1")

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_some(self) -> bytes:
        """At least one byte, or EOFError."""
        if not self._buffer:
            self._more()
        data, self._buffer = self._buffer, b""
        return data

    def read_rest(self) -> bytes:
        """Everything until the connection is closed."""
        parts = []
        try:
            while True:
                parts.append(self.read_some())
        except (EOFError, OSError):
            return b"".join(parts)

    def duplex(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Send `parts` through the tunnel and read at the same time; yields what comes until the connection ends."""
        assert self._tls is not None
        left, waiting = iter(parts), b""
        self.socket.setblocking(False)
        while True:
            if not waiting and (part := next(left, b"")):
                self._tls.write(part)
                waiting = self._out.read()
            moved = 0
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                moved = self.socket.send(waiting[:16384]) if waiting else 0
                waiting = waiting[moved:]
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                data = self.socket.recv(65536)
                if not data:
                    return
                moved += self._in.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                while plain := self._tls.read(65536):
                    yield plain
            if not moved:
                ready = select.select([self.socket], [self.socket] if waiting else [], [], TIMEOUT_S)
                if not any(ready):
                    raise TimeoutError("neither can be sent nor comes anything")

    def _more(self) -> None:
        if self._tls is None:
            data = self.socket.recv(65536)
        else:
            data = self._read_tls()
        if not data:
            raise EOFError("the connection was closed")
        self._buffer += data

    def _read_tls(self) -> bytes:
        assert self._tls is not None
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._feed()
            except ssl.SSLZeroReturnError:
                return b""

    def _feed(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("the connection was closed")
        self._in.write(data)

    def _flush(self) -> None:
        if data := self._out.read():
            self.socket.sendall(data)


class _File:
    def __init__(self, wire: Wire) -> None:
        self.read = wire.read
        self._wire = wire

    def readline(self) -> bytes:
        return self._wire.readline().encode("latin-1")


def head(method: str, path: str, *headers: str, body: bytes | None = None) -> bytes:
    """A request's head, with the Content-Length of `body`."""
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def chunked(parts: Iterable[bytes]) -> Iterator[bytes]:
    """A chunked body."""
    for part in parts:
        yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"
