"""Who a peer is: the one SPIFFE ID of its certificate (X509-SVID, WIMSE mutual TLS).

OpenSSL has verified the chain when these functions run; they check what it does not: the SPIFFE ID, the trust domain,
and once more what a leaf must be, so that a mistake in one of the two does not let a wrong certificate in.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from ..formats.errors import FormatError, VerificationError
from ..formats.spiffe import SpiffeId
from .authority import CLIENT_AUTH, SERVER_AUTH

LEAVES_KEPT = 256
_USAGE_NAMES = {CLIENT_AUTH: "clientAuth", SERVER_AUTH: "serverAuth"}


def peer_identity(der: bytes, trust_domain: str, now: datetime) -> SpiffeId:
    """The SPIFFE ID of a client certificate (DER). Raises VerificationError naming what is wrong with it."""
    return _identity(der, trust_domain, now, CLIENT_AUTH)


def server_identity(der: bytes, trust_domain: str, now: datetime) -> SpiffeId:
    """The SPIFFE ID of a server certificate (DER). Raises VerificationError naming what is wrong with it."""
    return _identity(der, trust_domain, now, SERVER_AUTH)


def _identity(der: bytes, trust_domain: str, now: datetime, usage: ObjectIdentifier) -> SpiffeId:
    try:
        cert = read_leaf(der)
        check_leaf(cert, usage, _USAGE_NAMES[usage])
        check_dates(cert, now)
        found = uri_identity(cert)
    except ValueError as e:
        raise VerificationError(f"the certificate cannot be read: {e}") from None
    if found.trust_domain != trust_domain:
        raise VerificationError(f"the certificate is of the trust domain {found.trust_domain}, expected {trust_domain}")
    return found


@lru_cache(LEAVES_KEPT)
def read_leaf(der: bytes) -> x509.Certificate:
    """A certificate, read once: few peers call often. Raises ValueError."""
    return x509.load_der_x509_certificate(der)


def uri_identity(cert: x509.Certificate) -> SpiffeId:
    """The SPIFFE ID in the certificate's one URI SAN. Raises VerificationError for none, two, or another URI."""
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if len(uris) != 1:
        raise VerificationError(f"the certificate has {len(uris)} URI names, expected exactly one SPIFFE ID")
    try:
        return SpiffeId.parse(uris[0])
    except FormatError as e:
        raise VerificationError(f"the certificate's URI name is not an identity: {e}") from None


def check_leaf(cert: x509.Certificate, usage: ObjectIdentifier, usage_name: str) -> None:
    """Raises VerificationError unless `cert` is a leaf for signatures with the extended key usage `usage`."""
    extensions = cert.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise VerificationError("the certificate is a CA's, expected a leaf")
    except x509.ExtensionNotFound:
        pass  # absent means: not a CA (RFC 5280 section 4.2.1.9)
    try:
        key_usage = extensions.get_extension_for_class(x509.KeyUsage)
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as e:
        raise VerificationError(f"the certificate has no {e.oid._name}") from None
    if not key_usage.critical or not key_usage.value.digital_signature:
        raise VerificationError("the certificate's keyUsage is not critical with digitalSignature")
    if key_usage.value.key_cert_sign or key_usage.value.crl_sign:
        raise VerificationError("the certificate may sign certificates or revocation lists, which a leaf must not")
    if usage not in extended:
        found = ", ".join(oid._name for oid in extended)
        raise VerificationError(f"the certificate's extended key usage is {found}, expected {usage_name}")


def check_dates(cert: x509.Certificate, now: datetime) -> None:
    """Raises VerificationError unless `now` (with time zone) lies within the certificate's dates."""
    if now < cert.not_valid_before_utc:
        raise VerificationError(f"the certificate is not valid before {cert.not_valid_before_utc:%Y-%m-%d %H:%M:%S}Z")
    if now > cert.not_valid_after_utc:
        raise VerificationError(f"the certificate expired at {cert.not_valid_after_utc:%Y-%m-%d %H:%M:%S}Z")
