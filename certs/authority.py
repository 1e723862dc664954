"""Certificate authorities and what they sign: roots, the interception intermediate, leaves, revocation lists.

Everything is X.509 v3 that OpenSSL accepts under its strict flag (RFC 5280): critical basicConstraints and keyUsage,
key identifiers on both sides, an extended key usage on each certificate that is not a root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ..formats.errors import UsageError
from ..formats.jws import PublicKey
from ..formats.keys import PrivateKey, read_private

SKEW = timedelta(minutes=5)
"""How far a certificate's start lies in the past, for peers whose clocks run behind."""
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")
"""RFC 9336. The only usage of an evidence certificate, so that it can never open a TLS connection."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA certificate with its key."""

    cert: x509.Certificate
    key: PrivateKey

    @classmethod
    def load(cls, cert: Path, key: Path) -> Issuer:
        """Raises UsageError if a file is missing, unreadable, open to others, or if the two do not belong together."""
        loaded = cls(read_certificate(cert), read_private(key))
        if loaded.cert.public_key() != loaded.key.public_key():
            raise UsageError(f"the key {key} does not belong to the certificate {cert}")
        return loaded


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises UsageError if there is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as e:
        raise UsageError(f"the certificate {path} cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise UsageError(f"{path} is not a certificate in PEM: {e}") from None


def pem(cert: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return cert.public_bytes(serialization.Encoding.PEM)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key, as all TLS certificates here have."""
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: str, public_key: PublicKey, days: float, *, path_length: int | None, ca: bool, now: datetime | None
) -> x509.CertificateBuilder:
    now = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm)


def create_root(
    subject: str, *, days: float, path_length: int, uri: str | None = None, now: datetime | None = None
) -> Issuer:
    """A self-signed P-256 CA. `uri` is the SPIFFE ID of the trust domain that it signs for (X509-SVID section 4.1)."""
    key = new_key()
    builder = _builder(subject, key.public_key(), days, path_length=path_length, ca=True, now=now)
    builder = builder.issuer_name(_name(subject)).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    if uri is not None:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
    return Issuer(_signed(builder, key), key)


def create_intermediate(issuer: Issuer, subject: str, *, days: float, now: datetime | None = None) -> Issuer:
    """A CA that signs server certificates only (pathlen 0, EKU serverAuth)."""
    key = new_key()
    builder = _builder(subject, key.public_key(), days, path_length=0, ca=True, now=now)
    return Issuer(_issued(issuer, builder, [SERVER_AUTH]), key)


def issue(
    issuer: Issuer,
    public_key: PublicKey,
    *,
    subject: str,
    usages: Sequence[ObjectIdentifier],
    names: Sequence[x509.GeneralName],
    days: float,
    now: datetime | None = None,
) -> x509.Certificate:
    """A leaf for `public_key`: CA false, digitalSignature only, EKU `usages`, subject alternative names `names`."""
    builder = _builder(subject, public_key, days, path_length=None, ca=False, now=now)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    return _issued(issuer, builder, usages)


def _issued(issuer: Issuer, builder: x509.CertificateBuilder, usages: Sequence[ObjectIdentifier]) -> x509.Certificate:
    identifier = issuer.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        builder.issuer_name(issuer.cert.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    )
    return _signed(builder, issuer.key)


def sign_crl(
    issuer: Issuer,
    revoked: Sequence[x509.RevokedCertificate],
    *,
    number: int,
    days: float,
    now: datetime | None = None,
) -> bytes:
    """A revocation list (RFC 5280 section 5) as PEM, valid for `days`."""
    now = now or datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.cert.subject)
        .last_update(now - SKEW)
        .next_update(now + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(entry)
    algorithm = None if isinstance(issuer.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer.key, algorithm).public_bytes(serialization.Encoding.PEM)


def revoked_entry(serial: int, *, now: datetime | None = None) -> x509.RevokedCertificate:
    """One line of a revocation list."""
    builder = x509.RevokedCertificateBuilder().serial_number(serial)
    return builder.revocation_date(now or datetime.now(UTC)).build()
