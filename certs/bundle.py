"""The trust bundle of a trust domain: one file that tells another domain whom to believe about this one.

A SPIFFE bundle (a JWK set; SPIFFE Trust Domain and Bundle, sections 4 and 6 of X509-SVID) with one identity CA, and
what the specification leaves to implementers: `lictor_crl`, the revocation list (DER, base64), and the monitors'
evidence keys, as JWKs with `use` "lictor-evidence", which other readers ignore, `iss` and `x5c`. It is not signed:
whoever takes it in believes it because of the way it came. What it holds leads to its CA, or it is not taken.
"""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ..formats import strict_json
from ..formats.errors import FormatError, UsageError, VerificationError
from ..formats.keys import to_jwk
from .anchors import check_issued, trust_domain_of
from .authority import pem, read_certificate
from .domain import TrustDomain
from .evidence_keys import EvidenceKeys, evidence_jwk
from .revocation import Revoked, load_crl

SVID_USE = "x509-svid"
EVIDENCE_USE = "lictor-evidence"
CRL_MEMBER = "lictor_crl"
REFRESH_S = 86400
"""How often partners should ask for a new one: revocation is as quick as they do."""
MAX_BUNDLE = 8 << 20
"""Octets of the largest bundle that is read."""
MAX_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was verified: its one CA, its revocation list and its evidence keys are of `trust_domain`."""

    trust_domain: str
    ca: x509.Certificate
    revoked: Revoked
    evidence: EvidenceKeys
    sequence: int | None
    refresh_s: int | None

    @property
    def ca_pem(self) -> bytes:
        return pem(self.ca)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the CA's certificate, in hex: what people compare by another way than the bundle came."""
        return self.ca.fingerprint(hashes.SHA256()).hex(":")

    def check_current(self, now: datetime) -> None:
        """Raises VerificationError unless it may be relied on at `now`: neither its list nor its CA is out of date."""
        self.revoked.contains(0, now)
        if not self.ca.not_valid_before_utc <= now <= self.ca.not_valid_after_utc:
            raise VerificationError(f"the identity CA of {self.trust_domain} is out of date")


def make_bundle(domain: TrustDomain) -> dict[str, Any]:
    """The bundle of an opened trust domain, with the certificates that lie there. Holds nothing secret.

    Raises VerificationError or UsageError if a file there cannot be believed.
    """
    ca = read_certificate(domain.identity_ca)
    keys = EvidenceKeys(pem(ca))
    for path in sorted(domain.path.glob("monitors/*/evidence*.pem")):
        try:
            keys.add_jwk(evidence_jwk(path.read_bytes()))
        except (VerificationError, FormatError) as e:
            raise VerificationError(f"{path}: {e}") from None
    crl = load_crl(domain.crl.read_bytes(), ca, str(domain.crl))
    return {
        "keys": [_ca_jwk(ca), *({**jwk, "use": EVIDENCE_USE} for jwk in keys.jwks())],
        "spiffe_sequence": int(time.time()),
        "spiffe_refresh_hint": REFRESH_S,
        CRL_MEMBER: base64.b64encode(crl.public_bytes(Encoding.DER)).decode(),
    }


def _ca_jwk(ca: x509.Certificate) -> dict[str, Any]:
    key = ca.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    jwk = {name: value for name, value in to_jwk(key).items() if name in ("kty", "crv", "x", "y")}
    return {**jwk, "use": SVID_USE, "x5c": [base64.b64encode(ca.public_bytes(Encoding.DER)).decode()]}


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and verify all that is in it, but not whether it is out of date.

    Raises UsageError if the file cannot be read, VerificationError naming what does not hold.
    """
    try:
        with path.open("rb") as f:
            data = f.read(MAX_BUNDLE + 1)
    except OSError as e:
        raise UsageError(f"the trust bundle {path} cannot be read: {e.strerror}") from None
    try:
        if len(data) > MAX_BUNDLE:
            raise FormatError(f"it has more than {MAX_BUNDLE} octets")
        return _read(strict_json.loads_object(data), path)
    except (FormatError, VerificationError, ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise VerificationError(f"the trust bundle {path} cannot be relied on: {e}") from None


def _read(document: dict[str, Any], path: Path) -> Bundle:
    keys = document.get("keys")
    if not isinstance(keys, list) or len(keys) > MAX_KEYS or not all(isinstance(jwk, dict) for jwk in keys):
        raise FormatError(f"'keys' is not an array of at most {MAX_KEYS} JWKs")
    if any("d" in jwk or "k" in jwk for jwk in keys):
        raise FormatError("a key in it is private or symmetric: whoever sent it must exchange that key")
    ca = _ca([jwk for jwk in keys if jwk.get("use") == SVID_USE])
    name = trust_domain_of(ca)
    revoked = _revoked(document.get(CRL_MEMBER), ca, name, path)
    evidence = EvidenceKeys(pem(ca))
    for jwk in keys:
        if jwk.get("use") == EVIDENCE_USE and _certificate(jwk).serial_number not in revoked.serials:
            evidence.add_jwk({**jwk, "use": "sig"})
    numbers = (_natural(document, member) for member in ("spiffe_sequence", "spiffe_refresh_hint"))
    return Bundle(name, ca, revoked, evidence, *numbers)


def _ca(entries: list[dict[str, Any]]) -> x509.Certificate:
    """Its CA; the JWK beside the certificate says nothing that the certificate does not say."""
    if len(entries) != 1:
        raise VerificationError(f"it has {len(entries)} keys of use {SVID_USE}, expected one identity CA")
    ca = _certificate(entries[0])
    check_issued(ca, ca, trust_domain_of(ca))
    return ca


def _certificate(jwk: dict[str, Any]) -> x509.Certificate:
    x5c = jwk.get("x5c")
    if not isinstance(x5c, list) or len(x5c) != 1:
        raise VerificationError("a key has no x5c with exactly one certificate")
    return x509.load_der_x509_certificate(_octets(x5c[0], "x5c"))


def _revoked(value: Any, ca: x509.Certificate, name: str, path: Path) -> Revoked:
    if value is None:
        raise VerificationError(f"it has no revocation list ({CRL_MEMBER})")
    crl = x509.load_der_x509_crl(_octets(value, CRL_MEMBER))
    checked = load_crl(crl.public_bytes(Encoding.PEM), ca, f"in it, {CRL_MEMBER},")
    return Revoked.of(checked, f"of {name} in {path}", f"ask {name} for a new bundle")


def _octets(value: Any, member: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise FormatError(f"{member!r} is not base64") from None


def _natural(document: dict[str, Any], member: str) -> int | None:
    value = document.get(member)
    if value is not None and (type(value) is not int or value < 0):
        raise FormatError(f"{member!r} is not a whole number")
    return value
