"""A trust domain, made once, and a TLS handshake without sockets."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lictor.certs.authority import CLIENT_AUTH, Issuer, create_root, issue, new_key, pem
from lictor.certs.domain import TrustDomain
from lictor.formats.keys import PrivateKey, write_private

TRUST_DOMAIN = "acme.example"
AGENT = f"spiffe://{TRUST_DOMAIN}/agent/alice"


@dataclass(frozen=True)
class Credentials:
    cert: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = field(default=())

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.DER)

    def write(self, directory: Path) -> tuple[Path, Path]:
        cert, key = directory / "client.pem", directory / "client.key"
        cert.write_bytes(b"".join(pem(one) for one in (self.cert, *self.chain)))
        write_private(key, self.key)
        return cert, key


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("certs") / "trust", TRUST_DOMAIN)
    made.add_agent("alice")
    made.add_monitor("north", ("monitor.acme.example",))
    return made


@pytest.fixture(scope="session")
def identity_issuer(domain: TrustDomain) -> Issuer:
    return Issuer.load(domain.identity_ca, domain.path / "identity-ca.key")


@pytest.fixture(scope="session")
def client(identity_issuer: Issuer) -> Callable[[str], Credentials]:
    """Makes a client's certificate: "good" or one of BAD_CLIENTS."""

    def make(kind: str) -> Credentials:
        key = new_key()
        issuer, usages, uris, extra = identity_issuer, [CLIENT_AUTH], [AGENT], {}
        now = datetime.now(UTC)
        match kind:
            case "expired":
                extra = {"now": now - timedelta(days=2)}
            case "not yet valid":
                extra = {"now": now + timedelta(days=1)}
            case "other CA":
                issuer = create_root("identities of acme.example", days=2, path_length=0)
            case "two URI names":
                uris = [AGENT, f"spiffe://{TRUST_DOMAIN}/agent/bob"]
            case "no URI name":
                uris = []
            case "serverAuth only":
                usages = [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
            case "other trust domain":
                uris = ["spiffe://other.example/agent/alice"]
            case "a CA's certificate":
                return Credentials(identity_issuer.cert, identity_issuer.key)
            case "not a SPIFFE ID":
                uris = ["https://acme.example/agent/alice"]
            case "no workload path":
                uris = [f"spiffe://{TRUST_DOMAIN}"]
            case "evidence certificate":
                usages = [x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")]
            case "no extended key usage":
                return Credentials(_without_usage(identity_issuer, key), key)
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        cert = issue(issuer, key.public_key(), subject="alice", usages=usages, names=names, days=1, **extra)
        return Credentials(cert, key)

    return make


def _without_usage(issuer: Issuer, key: Any) -> x509.Certificate:
    full = issue(issuer, key.public_key(), subject="alice", usages=[CLIENT_AUTH], names=[], days=1)
    builder = x509.CertificateBuilder(
        issuer.cert.subject,
        full.subject,
        key.public_key(),
        full.serial_number,
        full.not_valid_before_utc,
        full.not_valid_after_utc,
    ).add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(AGENT)]), critical=False)
    for extension in full.extensions:
        if not isinstance(extension.value, x509.ExtendedKeyUsage):
            builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(issuer.key, full.signature_hash_algorithm)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def handshake() -> Callable[..., tuple[ssl.SSLObject, ssl.SSLObject]]:
    """Runs a TLS handshake in memory, both ends to their end; raises the ssl error of whichever end refuses."""

    def run(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        one = client.wrap_bio(down, up, server_hostname=name)
        two = server.wrap_bio(up, down, server_side=True)
        waiting = [one, two]
        for _ in range(8):
            for end in tuple(waiting):
                try:
                    end.do_handshake()
                    waiting.remove(end)
                except ssl.SSLWantReadError:
                    pass
        assert not waiting
        return one, two

    return run
