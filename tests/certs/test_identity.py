"""Whom a certificate names, and each way in which it may fail to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from lictor.certs.authority import Issuer, new_key, read_certificate
from lictor.certs.domain import TrustDomain
from lictor.certs.identity import peer_identity, server_identity
from lictor.formats.errors import VerificationError

TRUST_DOMAIN = "acme.example"
AGENT = "spiffe://acme.example/agent/alice"
REASONS = {
    "expired": "expired",
    "not yet valid": "not valid before",
    "two URI names": "2 URI names",
    "no URI name": "0 URI names",
    "serverAuth only": "serverAuth, expected clientAuth",
    "other trust domain": "of the trust domain other.example, expected acme.example",
    "a CA's certificate": "is a CA's",
    "not a SPIFFE ID": "not an identity",
    "no workload path": "not an identity",
    "no extended key usage": "has no extendedKeyUsage",
    "evidence certificate": "expected clientAuth",
}


def now() -> datetime:
    return datetime.now(UTC)


def test_a_good_certificate_names_its_agent(client: Callable[[str], Any]) -> None:
    assert str(peer_identity(client("good").der, TRUST_DOMAIN, now())) == AGENT


@pytest.mark.parametrize("kind", REASONS)
def test_a_bad_certificate_names_nobody(client: Callable[[str], Any], kind: str) -> None:
    with pytest.raises(VerificationError, match=REASONS[kind]):
        peer_identity(client(kind).der, TRUST_DOMAIN, now())


def test_dates_are_of_the_moment_given(client: Callable[[str], Any]) -> None:
    with pytest.raises(VerificationError, match="expired at"):
        peer_identity(client("good").der, TRUST_DOMAIN, now() + timedelta(days=2))


def test_a_monitor_is_a_server_and_a_client_and_an_agent_is_no_server(
    domain: TrustDomain, client: Callable[[str], Any]
) -> None:
    der = read_certificate(domain.monitor("north").cert).public_bytes(serialization.Encoding.DER)
    assert str(server_identity(der, TRUST_DOMAIN, now())) == "spiffe://acme.example/monitor/north"
    assert str(peer_identity(der, TRUST_DOMAIN, now())) == "spiffe://acme.example/monitor/north"
    with pytest.raises(VerificationError, match="clientAuth, expected serverAuth"):
        server_identity(client("good").der, TRUST_DOMAIN, now())


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"not a certificate"])
def test_bytes_that_are_no_certificate(der: bytes) -> None:
    with pytest.raises(VerificationError, match="cannot be read"):
        peer_identity(der, TRUST_DOMAIN, now())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key_cert_sign": True}, "may sign certificates"),
        ({"crl_sign": True}, "may sign certificates or revocation lists"),
        ({"digital_signature": False, "key_agreement": True}, "not critical with digitalSignature"),
    ],
)
def test_key_usage_of_a_leaf(identity_issuer: Issuer, change: dict[str, bool], reason: str) -> None:
    with pytest.raises(VerificationError, match=reason):
        peer_identity(_with_key_usage(identity_issuer, change, critical=True), TRUST_DOMAIN, now())


def test_key_usage_must_be_critical(identity_issuer: Issuer) -> None:
    with pytest.raises(VerificationError, match="not critical"):
        peer_identity(_with_key_usage(identity_issuer, {}, critical=False), TRUST_DOMAIN, now())


def _with_key_usage(issuer: Issuer, change: dict[str, bool], *, critical: bool) -> bytes:
    fields = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usage = x509.KeyUsage(**({"digital_signature": True} | fields | change))
    builder = x509.CertificateBuilder(
        issuer.cert.subject,
        x509.Name([]),
        new_key().public_key(),
        x509.random_serial_number(),
        now() - timedelta(hours=1),
        now() + timedelta(hours=1),
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(AGENT)])
    extended = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(usage, critical).add_extension(names, critical=True).add_extension(extended, False)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
