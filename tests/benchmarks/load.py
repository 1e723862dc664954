"""The load generator: raw sockets and memory BIOs, no threads, so that it costs far less than what it measures.

`python -m tests.benchmarks.load` reads a `Load` as JSON from standard input and writes a `Result` as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass

REQUEST_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Load:
    """`mode`: "keepalive" or "new" (a new client connection for each request). Files are PEM paths."""

    mode: str
    connections: int
    seconds: float
    target_host: str
    target_port: int
    target_ca: str | None  # None: plain http
    proxy_host: str | None = None
    proxy_port: int = 0
    proxy_ca: str | None = None  # None: the proxy itself is spoken to in plaintext
    client_cert: str | None = None
    client_key: str | None = None
    warm_up: float = 0.3


@dataclass(frozen=True, slots=True)
class Result:
    """`latencies` are seconds, one per request."""

    requests: int
    errors: int
    seconds: float
    cpu_seconds: float
    latencies: list[float]


class Tls:
    """TLS over memory BIOs, so that it can run inside another TLS."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def handshake(self, link: Link) -> None:
        while True:
            try:
                self.session.do_handshake()
                break
            except ssl.SSLWantReadError:
                link.send(self.outgoing.read())
                self.incoming.write(link.receive())
        if self.outgoing.pending:
            link.send(self.outgoing.read())


class Link:
    """A socket under zero, one or two layers of TLS. Blocking while it is set up, polled afterwards."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), timeout=REQUEST_TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.layers: list[Tls] = []

    def send(self, data: bytes) -> None:
        for tls in reversed(self.layers):
            tls.session.write(data)
            data = tls.outgoing.read()
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """At least one byte, unless the layers need more from the socket than one read brings (then b"")."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("closed by the proxy")
        for tls in self.layers:
            tls.incoming.write(data)
            parts = []
            try:
                while True:
                    part = tls.session.read(65536)
                    if not part:
                        raise ConnectionError("closed by the proxy (TLS)")
                    parts.append(part)
            except ssl.SSLWantReadError:
                pass
            data = b"".join(parts)
            if not data:
                return b""
        return data

    def add_tls(self, context: ssl.SSLContext, name: str) -> None:
        tls = Tls(context, name)
        tls.handshake(self)
        self.layers.append(tls)


class Generator:
    """Opens links as a `Load` says and keeps every one busy."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.proxy_context = _context(load.proxy_ca, load.client_cert, load.client_key)
        self.target_context = _context(load.target_ca, None, None)
        authority = f"{load.target_host}:{load.target_port}"
        prefix = f"http://{authority}" if load.proxy_host and not load.target_ca else ""
        self.connect = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
        self.request = (
            f"GET {prefix}/item HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: lictor-bench\r\n"
            "Accept: application/json\r\n\r\n"
        ).encode()

    def open(self) -> Link:
        load = self.load
        if load.proxy_host is None:
            link = Link(load.target_host, load.target_port)
        else:
            link = Link(load.proxy_host, load.proxy_port)
            if self.proxy_context:
                link.add_tls(self.proxy_context, load.proxy_host)
            if load.target_ca:
                link.send(self.connect)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += link.receive()
                if b" 200" not in answer.split(b"\r\n")[0]:
                    raise ConnectionError(f"CONNECT was answered with {answer[:80]!r}")
        if self.target_context:
            link.add_tls(self.target_context, load.target_host)
        return link

    def once(self) -> None:
        link = self.open()
        try:
            link.send(self.request)
            answer = b""
            while not complete(answer):
                answer += link.receive()
        finally:
            link.sock.close()

    def run(self) -> Result:
        return self.run_new() if self.load.mode == "new" else self.run_keepalive()

    def run_keepalive(self) -> Result:
        links = [self.open() for _ in range(self.load.connections)]
        poll = select.epoll()
        by_fd = {link.sock.fileno(): link for link in links}
        answers = dict.fromkeys(by_fd, b"")
        sent = {}
        for fd, link in by_fd.items():
            poll.register(fd, select.EPOLLIN)
            sent[fd] = time.perf_counter()
            link.send(self.request)
        begin = time.perf_counter() + self.load.warm_up
        end = begin + self.load.seconds
        latencies: list[float] = []
        cpu = time.process_time()
        now = time.perf_counter()
        while now < end:
            for fd, _ in poll.poll(1.0):
                link = by_fd[fd]
                answer = answers[fd] + link.receive()
                if not complete(answer):
                    answers[fd] = answer
                    continue
                answers[fd] = b""
                now = time.perf_counter()
                if now > begin:
                    latencies.append(now - sent[fd])
                sent[fd] = now
                link.send(self.request)
            now = time.perf_counter()
        cpu = time.process_time() - cpu
        for link in links:
            link.sock.close()
        return Result(len(latencies), 0, now - begin, cpu, latencies)

    def run_new(self) -> Result:
        """One link after the other; several at a time are several processes."""
        latencies: list[float] = []
        errors = 0
        self.once()
        cpu = time.process_time()
        begin = now = time.perf_counter()
        while now < begin + self.load.seconds:
            try:
                self.once()
            except (OSError, ssl.SSLError):
                errors += 1
            later = time.perf_counter()
            latencies.append(later - now)
            now = later
        return Result(len(latencies) - errors, errors, now - begin, time.process_time() - cpu, latencies)


def complete(answer: bytes) -> bool:
    """Whether a whole response with Content-Length has come. Anything but a 200 is an error."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"expected 200, got {answer[:300]!r}")
    lowered = head.lower()
    at = lowered.index(b"content-length:") + 15
    return len(body) >= int(lowered[at:].split(b"\r\n", 1)[0])


def _context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    if ca is None:
        return None
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # squid's certificates name no authority key
    context.set_alpn_protocols(["http/1.1"])
    if cert:
        context.load_cert_chain(cert, key)
    return context


def main() -> None:
    load = Load(**json.load(sys.stdin))
    json.dump(asdict(Generator(load).run()), sys.stdout)


if __name__ == "__main__":
    main()
