"""A small PKI, an upstream that counts what reaches it, and an engine on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lictor.engine.engine import Engine, EngineOptions, Listener

LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
AGENT = "spiffe://test.example/agent/one"


@dataclass(frozen=True)
class Issued:
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.DER)


def issue(name: str, issuer: Issued | None = None, sans: Any = (), usage: Any = None) -> Issued:
    """A certificate; without an issuer a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ca = issuer is None
    signer = issuer.key if issuer else key
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.cert.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(sans)), critical=False)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Issued(builder.sign(signer, hashes.SHA256()), key)


class Pki:
    """All files of one test session, PEM."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca, self.other_ca, self.interception = issue("ca"), issue("other ca"), issue("interception")
        self.issued: dict[str, Issued] = {}
        client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
        self.add("listener", self.ca, LOCAL, server)
        self.add("agent", self.ca, [x509.UniformResourceIdentifier(AGENT)], client)
        self.add("stranger", self.other_ca, [x509.UniformResourceIdentifier(AGENT)], client)
        self.add("upstream", self.ca, LOCAL, server)
        self.add("upstream-of-other-ca", self.other_ca, LOCAL, server)
        self.add("upstream-of-other-name", self.ca, [x509.DNSName("elsewhere.example")], server)
        self.ca_file = self.write("ca.pem", self.ca.pem)
        self.other_ca_file = self.write("other-ca.pem", self.other_ca.pem)
        self.interception_file = self.write("interception.pem", self.interception.pem)
        (path / "confdir").mkdir()
        self.write("confdir/mitmproxy-ca.pem", self.interception.key_pem + self.interception.pem)

    def write(self, name: str, data: bytes) -> Path:
        path = self.path / name
        path.write_bytes(data)
        return path

    def add(self, name: str, ca: Issued, sans: Any, usage: Any) -> None:
        issued = self.issued[name] = issue(name, ca, sans, usage)
        self.write(f"{name}.crt", issued.pem)
        self.write(f"{name}.key", issued.key_pem)

    def files(self, name: str) -> tuple[Path, Path]:
        return self.path / f"{name}.crt", self.path / f"{name}.key"

    def server_context(self, name: str, client_ca: Path | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(name))
        context.set_alpn_protocols(["http/1.1"])
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def proxy_context(self, name: str | None = "agent") -> ssl.SSLContext:
        """What a client speaks to the listener with."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if name:
            context.load_cert_chain(*self.files(name))
        return context

    def target_context(self) -> ssl.SSLContext:
        """What a client speaks through the proxy with: it trusts intercepted certificates only."""
        return ssl.create_default_context(cafile=str(self.interception_file))


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The engine's tests run under both event loops."""
    if item.path.name in ("test_engine.py", "test_connection_driver.py"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@dataclass
class Upstream:
    """An HTTP/1.1 server that remembers every byte. `answer` is called per request with its head and writer."""

    received: bytearray = field(default_factory=bytearray)
    connections: int = 0
    port: int = 0
    tls: bool = False
    peer_certificates: list[bytes | None] = field(default_factory=list)
    answer: Callable[[bytes, bytes, asyncio.StreamWriter], Any] | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # a connection has ended

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        session = writer.get_extra_info("ssl_object")
        self.peer_certificates.append(session.getpeercert(binary_form=True) if session else None)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.received += head
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.received += body
                if self.answer:
                    await self.answer(head, body, writer)
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello")
                await writer.drain()
        writer.close()
        self.idle.set()


@contextlib.asynccontextmanager
async def upstream(context: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    made = Upstream(tls=context is not None)
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@dataclass
class Running:
    engine: Engine
    pki: Pki
    task: asyncio.Task[None]

    @property
    def port(self) -> int:
        return self.engine.addresses[0][1]

    def client(self, certificate: str | None = "agent", scheme: str = "https") -> httpx.AsyncClient:
        proxy = httpx.Proxy(
            f"{scheme}://127.0.0.1:{self.port}",
            ssl_context=self.pki.proxy_context(certificate) if scheme == "https" else None,
        )
        return httpx.AsyncClient(proxy=proxy, verify=self.pki.target_context(), timeout=20)


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Running]]


@pytest.fixture
def serve(pki: Pki) -> Serve:
    """`async with serve(addon, …) as running`: an engine with these addons, one mTLS listener, or `mode=…`."""

    @contextlib.asynccontextmanager
    async def run(*addons: object, mode: str = "regular", **options: Any) -> AsyncIterator[Running]:
        options.setdefault("upstream_ca", pki.ca_file)
        listener = Listener("127.0.0.1", 0, mode, pki.server_context("listener", pki.ca_file))
        engine = Engine([listener], addons, EngineOptions(pki.path / "confdir", **options))
        task = asyncio.create_task(engine.run())
        ready = asyncio.create_task(engine.ready.wait())
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            await task
        try:
            yield Running(engine, pki, task)
        finally:
            engine.shutdown()
            await task

    return run


@pytest.fixture
def start_upstream() -> Callable[..., contextlib.AbstractAsyncContextManager[Upstream]]:
    return upstream


class Seen:
    """Remembers which hooks ran."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in HOOKS:
            raise AttributeError(name)
        return lambda data: self.names.append(name)


HOOKS = {
    "client_connected",
    "http_connect",
    "http_connected",
    "next_layer",
    "tls_clienthello",
    "tls_start_client",
    "tls_established_client",
    "requestheaders",
    "request",
    "server_connect",
    "server_connected",
    "tls_start_server",
    "tls_established_server",
    "responseheaders",
    "response",
    "client_disconnected",
    "server_disconnected",
}


@pytest.fixture
def seen() -> Seen:
    return Seen()
