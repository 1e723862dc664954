"""Evidence keys: one CA certificate vouches for keys that travel with the evidence."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.certs.authority import CLIENT_AUTH, DOCUMENT_SIGNING, Issuer, create_root, issue, pem
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.formats.errors import VerificationError
from lictor.formats.keys import read_private, to_jwk

MONITOR = "spiffe://acme.example/monitor/north"


@pytest.fixture
def jwk(domain: TrustDomain) -> dict[str, Any]:
    return evidence_jwk(domain.monitor("north").evidence_cert.read_bytes())


@pytest.fixture
def keys(domain: TrustDomain) -> EvidenceKeys:
    return EvidenceKeys(domain.identity_ca.read_bytes())


def certified(issuer: Issuer, *, usages: list[Any] | None = None, uris: tuple[str, ...] = (MONITOR,)) -> dict[str, Any]:
    """The JWK of a new key with a certificate, as an evil or careless issuer may make it."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    cert = issue(issuer, key, subject="x", usages=usages or [DOCUMENT_SIGNING], names=names, days=1)
    der = cert.public_bytes(serialization.Encoding.DER)
    return {**to_jwk(key), "iss": MONITOR, "x5c": [base64.b64encode(der).decode()]}


def test_the_key_of_a_monitor_resolves(domain: TrustDomain, keys: EvidenceKeys, jwk: dict[str, Any]) -> None:
    assert jwk["iss"] == MONITOR
    kid = keys.add_jwk(jwk)
    private = read_private(domain.monitor("north").evidence_key)
    assert keys.resolve(kid, MONITOR) == private.public_key()
    assert keys.jwks() == [jwk]


def test_an_unknown_key(keys: EvidenceKeys, jwk: dict[str, Any]) -> None:
    with pytest.raises(VerificationError, match="no key"):
        keys.resolve(jwk["kid"], MONITOR)


def test_a_key_is_known_for_its_own_monitor_only(keys: EvidenceKeys, jwk: dict[str, Any]) -> None:
    kid = keys.add_jwk(jwk)
    with pytest.raises(VerificationError, match="no key"):
        keys.resolve(kid, "spiffe://acme.example/monitor/south")


def test_the_certificate_must_hold_when_the_signature_was_made(keys: EvidenceKeys, jwk: dict[str, Any]) -> None:
    kid, now = keys.add_jwk(jwk), datetime.now(UTC)
    keys.resolve(kid, MONITOR, at=now.timestamp())
    with pytest.raises(VerificationError, match="expired at"):
        keys.resolve(kid, MONITOR, at=(now + timedelta(days=91)).timestamp())
    with pytest.raises(VerificationError, match="not valid before"):
        keys.resolve(kid, MONITOR, at=(now - timedelta(days=1)).timestamp())
    with pytest.raises(VerificationError, match="not a time"):
        keys.resolve(kid, MONITOR, at=1e300)


Change = Callable[[dict[str, Any], Issuer], dict[str, Any]]
REFUSED: dict[str, tuple[Change, str]] = {
    "another iss": (lambda jwk, _: {**jwk, "iss": "spiffe://acme.example/monitor/south"}, "its certificate says"),
    "no iss": (lambda jwk, _: {k: v for k, v in jwk.items() if k != "iss"}, "its certificate says"),
    "another kid": (lambda jwk, _: {**jwk, "kid": "x"}, "expected its thumbprint"),
    "another key": (lambda jwk, ca: {**jwk, "x": certified(ca)["x"]}, "not the key of its certificate"),
    "no x5c": (lambda jwk, _: {k: v for k, v in jwk.items() if k != "x5c"}, "no x5c"),
    "two certificates": (lambda jwk, _: {**jwk, "x5c": jwk["x5c"] * 2}, "exactly one certificate"),
    "garbage in x5c": (lambda jwk, _: {**jwk, "x5c": ["AAAA"]}, "not a certificate"),
    "x5c not base64": (lambda jwk, _: {**jwk, "x5c": ["é"]}, "not a certificate"),
    "another CA of the same name": (
        lambda _, ca: certified(create_root("identities of acme.example", days=1, path_length=0)),
        "not signed by the identity CA",
    ),
    "clientAuth": (lambda _, ca: certified(ca, usages=[CLIENT_AUTH]), "expected documentSigning"),
    "more than documentSigning": (
        lambda _, ca: certified(ca, usages=[CLIENT_AUTH, DOCUMENT_SIGNING]),
        "more usages than documentSigning",
    ),
    "two URI names": (lambda _, ca: certified(ca, uris=(MONITOR, MONITOR + "2")), "2 URI names"),
    "no URI name": (lambda _, ca: certified(ca, uris=()), "0 URI names"),
    "meant for encryption": (lambda jwk, _: {**jwk, "use": "enc"}, "cannot be read"),
    "a private key": (lambda jwk, _: {**jwk, "d": "AAAA"}, "cannot be read"),
    "no key at all": (lambda jwk, _: {"x5c": jwk["x5c"], "iss": MONITOR}, "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_key_is_refused(keys: EvidenceKeys, jwk: dict[str, Any], identity_issuer: Issuer, case: str) -> None:
    change, reason = REFUSED[case]
    with pytest.raises(VerificationError, match=reason):
        keys.add_jwk(change(jwk, identity_issuer))
    assert keys.jwks() == []


def test_a_leaf_is_no_root_of_trust(domain: TrustDomain) -> None:
    with pytest.raises(VerificationError, match="not a CA's"):
        EvidenceKeys(domain.monitor("north").cert.read_bytes())
    with pytest.raises(VerificationError, match="cannot be used"):
        EvidenceKeys(b"nothing")


def test_the_interception_root_vouches_for_nobody(domain: TrustDomain) -> None:
    with pytest.raises(VerificationError, match="0 URI names, expected its trust domain's"):
        EvidenceKeys(domain.interception_root.read_bytes())


def test_pem_of_a_certificate_reads_back(identity_issuer: Issuer) -> None:
    assert x509.load_pem_x509_certificate(pem(identity_issuer.cert)) == identity_issuer.cert
