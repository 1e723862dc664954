"""Who is calling: asked of the certificate when a connection comes and at every request; anything else is nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lictor.addons.identify import Identify
from lictor.certs.authority import CLIENT_AUTH, SERVER_AUTH, Issuer, issue, new_key
from lictor.certs.bundle import make_bundle
from lictor.certs.domain import TrustDomain
from lictor.certs.identities import Identities
from lictor.certs.partners import Federated, Partners
from lictor.certs.revocation import RevocationList
from lictor.engine.engine import parse_mode
from lictor.formats.errors import VerificationError


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    made = TrustDomain.create(tmp_path / "trust", "test.internal")
    made.add_agent("a")
    return made


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def client(number: int = 1) -> Any:
    return SimpleNamespace(id=str(number), peername=("127.0.0.1", 1), error=None, proxy_mode=None)


@pytest.fixture
def make(domain: TrustDomain) -> Callable[..., tuple[Identify, Clock]]:
    def made(der: bytes | None = None) -> tuple[Identify, Clock]:
        clock = Clock()
        if der is None:
            pem = (domain.path / "agents/a/cert.pem").read_bytes()
            der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        revoked = RevocationList(domain.crl, domain.identity_ca.read_bytes())
        return Identify(lambda c: der or None, Identities(domain.name, revoked), clock), clock

    return made


def test_good(make: Any) -> None:
    identify, _ = make()
    one = client()
    identify.client_connected(one)
    assert one.error is None
    assert identify.peer(one).spiffe_id == "spiffe://test.internal/agent/a"
    assert identify.no_longer_good() == []


@pytest.mark.parametrize(
    ("what", "names", "usages"),
    [
        ("two names", ("spiffe://test.internal/agent/a", "spiffe://test.internal/agent/b"), (CLIENT_AUTH,)),
        ("no name", (), (CLIENT_AUTH,)),
        ("other trust domain", ("spiffe://other.internal/agent/a",), (CLIENT_AUTH,)),
        ("server's certificate", ("spiffe://test.internal/agent/a",), (SERVER_AUTH,)),
    ],
)
def test_wrong_certificate(make: Any, domain: TrustDomain, what: str, names: Any, usages: Any) -> None:
    ca = Issuer.load(domain.identity_ca, domain.path / "identity-ca.key")
    uris = [x509.UniformResourceIdentifier(name) for name in names]
    cert = issue(ca, new_key().public_key(), subject="a", usages=usages, names=uris, days=1)
    nobody(make(cert.public_bytes(Encoding.DER))[0])


@pytest.mark.parametrize("der", [b"", b"\x30\x03abc"])
def test_no_certificate(make: Any, der: bytes) -> None:
    nobody(make(der)[0])


def nobody(identify: Identify, one: Any = None) -> None:
    """The connection is refused, and no request on it has an identity."""
    one = one or client()
    identify.client_connected(one)
    assert one.error
    with pytest.raises(VerificationError, match="no identity"):
        identify.peer(one)


def test_each_connection_has_its_own_identity(make: Any) -> None:
    identify, _ = make()
    identify.client_connected(client(1))
    with pytest.raises(VerificationError):
        identify.peer(client(2))


def test_forgotten_when_it_leaves(make: Any) -> None:
    identify, _ = make()
    identify.client_connected(client())
    identify.client_disconnected(client())
    with pytest.raises(VerificationError):
        identify.peer(client())


def test_expires_while_connected(make: Any) -> None:
    identify, clock = make()
    one = client()
    identify.client_connected(one)
    clock.now += timedelta(days=400)
    with pytest.raises(VerificationError, match="expired"):
        identify.peer(one)
    assert identify.no_longer_good() == [one]


def test_revoked_while_connected(make: Any, domain: TrustDomain) -> None:
    identify, _ = make()
    one = client()
    identify.client_connected(one)
    domain.revoke_agent("a")
    with pytest.raises(VerificationError, match="revoked"):
        identify.peer(one)
    assert identify.no_longer_good() == [one]
    identify.client_disconnected(one)
    nobody(identify)


def test_no_revocation_list_nobody_is_good(make: Any, domain: TrustDomain) -> None:
    identify, _ = make()
    one = client()
    identify.client_connected(one)
    domain.crl.unlink()
    with pytest.raises(VerificationError, match="revocation list"):
        identify.peer(one)


@pytest.mark.parametrize("mode", ["reverse:http://127.0.0.1:1", "regular"])
def test_partners_call_where_work_comes_in_only(domain: TrustDomain, tmp_path: Path, mode: str) -> None:
    partner = TrustDomain.create(tmp_path / "partner", "partner.internal")
    cert = x509.load_pem_x509_certificate(partner.add_monitor("m").cert.read_bytes())
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps(make_bundle(partner)))
    revoked = RevocationList(domain.crl, domain.identity_ca.read_bytes())
    partners = Partners(revoked.ca, [Federated("partner.internal", bundle)])
    identities = Identities(domain.name, revoked, partners)
    identify = Identify(lambda c: cert.public_bytes(Encoding.DER), identities, Clock())
    one = client()
    one.proxy_mode = parse_mode(mode)
    if mode == "regular":
        nobody(identify, one)
        return
    identify.client_connected(one)
    assert identify.peer(one).spiffe_id == "spiffe://partner.internal/monitor/m"
    partner.revoke_monitor("m")
    bundle.write_text(json.dumps(make_bundle(partner)))
    assert identify.no_longer_good() == [one]
    with pytest.raises(VerificationError, match="revoked"):
        identify.peer(one)
