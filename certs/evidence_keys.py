"""Evidence keys as JWKs that carry their own certificate, so that CA certificates are the roots of offline trust.

The JWK has `iss` (the monitor's SPIFFE ID) and `x5c` (RFC 7517 section 4.7) with exactly one certificate: of this very
key, with the `iss` as its one URI name, the extended key usage documentSigning and nothing else, signed by the
identity CA of the trust domain that the `iss` is of. A key may therefore travel beside what it signed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ..formats.errors import FormatError, VerificationError
from ..formats.jws import PublicKey
from ..formats.keys import from_jwk, thumbprint, to_jwk
from .anchors import Anchors, check_issued
from .authority import DOCUMENT_SIGNING
from .identity import check_dates, check_leaf, uri_identity


def evidence_jwk(evidence_pem: bytes) -> dict[str, Any]:
    """The public JWK of an evidence certificate (PEM), with `iss` and `x5c`. Raises FormatError if it is none."""
    try:
        cert = x509.load_pem_x509_certificate(evidence_pem)
    except ValueError as e:
        raise FormatError(f"the evidence certificate cannot be read: {e}") from None
    der = cert.public_bytes(serialization.Encoding.DER)
    x5c = [base64.b64encode(der).decode("ascii")]
    return {**to_jwk(_public_key(cert)), "iss": str(uri_identity(cert)), "x5c": x5c}


def _public_key(cert: x509.Certificate) -> PublicKey:
    key = cert.public_key()
    if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
        raise VerificationError("the evidence certificate's key is neither Ed25519 nor EC")
    return key


@dataclass(frozen=True, slots=True)
class _Known:
    key: PublicKey
    iss: str
    cert: x509.Certificate


class EvidenceKeys:
    """Keys that identity CAs vouch for, each for its own trust domain, found by (kid, iss)."""

    def __init__(self, ca_pem: bytes, revoked: Container[int] = frozenset()) -> None:
        """`ca_pem`: the identity CA's certificate, or those of several trust domains.

        `revoked`: serial numbers of certificates whose keys are not resolved.

        Raises VerificationError if one is not an identity CA's.
        """
        self._anchors = Anchors.from_pem(ca_pem)
        self._revoked = revoked
        self._known: dict[tuple[str, str], _Known] = {}

    def add_jwk(self, jwk: Mapping[str, Any]) -> str:
        """Take a key in and return its kid. Raises VerificationError naming what does not hold."""
        try:
            key = from_jwk(jwk)
            cert = _certificate(jwk)
            self._check(cert)
            identity = uri_identity(cert)
            iss = str(identity)
        except (FormatError, ValueError) as e:
            raise VerificationError(f"the evidence key cannot be read: {e}") from None
        check_issued(cert, self._anchors.of(identity.trust_domain), identity.trust_domain)
        if jwk.get("iss") != iss:
            raise VerificationError(f"the evidence key says it is of {jwk.get('iss')!r}, its certificate says {iss!r}")
        if _public_key(cert) != key:
            raise VerificationError("the evidence key is not the key of its certificate")
        kid = thumbprint(key)
        if jwk.get("kid") != kid:
            raise VerificationError(f"the evidence key's kid is {jwk.get('kid')!r}, expected its thumbprint {kid!r}")
        self._known[kid, iss] = _Known(key, iss, cert)
        return kid

    @staticmethod
    def _check(cert: x509.Certificate) -> None:
        check_leaf(cert, DOCUMENT_SIGNING, "documentSigning")
        extended = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if len(list(extended)) != 1:
            raise VerificationError("the evidence certificate has more usages than documentSigning")

    def resolve(self, kid: str, iss: str, at: float | None = None) -> PublicKey:
        """The key `kid` of the monitor `iss`. Raises VerificationError if it is not known.

        `at` (NumericDate): when the signature says that it was made; the certificate must have been valid then.
        """
        known = self._known.get((kid, iss))
        if known is None:
            raise VerificationError(f"no key {kid!r} of {iss!r} is known that the identity CA vouches for")
        if self.is_revoked(kid, iss):
            raise VerificationError(f"the certificate of the key {kid!r} of {iss!r} is revoked")
        if at is not None:
            try:
                moment = datetime.fromtimestamp(at, UTC)
            except (OverflowError, ValueError, OSError):
                raise VerificationError(f"{at!r} is not a time") from None
            check_dates(known.cert, moment)
        return known.key

    def is_revoked(self, kid: str, iss: str) -> bool:
        """Whether this is a key that was taken in, and its certificate is revoked."""
        known = self._known.get((kid, iss))
        return known is not None and known.cert.serial_number in self._revoked

    def jwks(self) -> list[dict[str, Any]]:
        """Every key taken in, as `evidence_jwk` writes it, in the order of arrival."""
        return [evidence_jwk(known.cert.public_bytes(serialization.Encoding.PEM)) for known in self._known.values()]


def _certificate(jwk: Mapping[str, Any]) -> x509.Certificate:
    x5c = jwk.get("x5c")
    if not isinstance(x5c, list) or len(x5c) != 1 or not isinstance(x5c[0], str):
        raise VerificationError("the evidence key has no x5c with exactly one certificate")
    try:
        return x509.load_der_x509_certificate(base64.b64decode(x5c[0], validate=True))
    except (ValueError, binascii.Error) as e:
        raise VerificationError(f"the evidence key's x5c is not a certificate: {e}") from None
