"""Identity CAs as roots of trust: each vouches for one trust domain only, the one that its own certificate names.

OpenSSL, given several roots, lets each of them vouch for every name. What is checked here is what it cannot know.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from ..formats.errors import FormatError, VerificationError
from ..formats.spiffe import parse_trust_domain


def trust_domain_of(ca: x509.Certificate) -> str:
    """The trust domain that an identity CA's certificate names. Raises VerificationError if it is not such a CA's."""
    try:
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound) as e:
        raise VerificationError(f"the identity CA's certificate cannot be used: {e}") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise VerificationError("the certificate given as the identity CA's is not a CA's")
    try:
        names = ca.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound):
        uris = []
    if len(uris) != 1:
        raise VerificationError(f"the identity CA's certificate has {len(uris)} URI names, expected its trust domain's")
    try:
        return parse_trust_domain(uris[0])
    except FormatError as e:
        raise VerificationError(f"the identity CA's certificate names no trust domain: {e}") from None


def check_issued(cert: x509.Certificate, ca: x509.Certificate, trust_domain: str) -> None:
    """Raises VerificationError unless `ca`, the CA of `trust_domain`, has signed `cert` itself."""
    if not _is_issued(cert, ca):
        raise VerificationError(f"the certificate is not signed by the identity CA of {trust_domain}")


@lru_cache(1024)
def _is_issued(cert: x509.Certificate, ca: x509.Certificate) -> bool:
    """The answer never changes, and who calls often calls with the same certificate."""
    try:
        cert.verify_directly_issued_by(ca)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


class Anchors:
    """The identity CAs of some trust domains."""

    def __init__(self, cas: Iterable[x509.Certificate]) -> None:
        """Raises VerificationError for what is no identity CA, for two of one domain, or one that poses as two."""
        self._cas: dict[str, x509.Certificate] = {}
        for ca in cas:
            name = trust_domain_of(ca)
            if self._cas.get(name, ca) != ca:
                raise VerificationError(f"two CAs are given for the trust domain {name}, expected one")
            check_apart(name, ca, self._cas)
            self._cas[name] = ca

    @classmethod
    def from_pem(cls, pem: bytes) -> Anchors:
        """Of one PEM certificate or more."""
        try:
            return cls(x509.load_pem_x509_certificates(pem))
        except ValueError as e:
            raise VerificationError(f"the identity CA's certificate cannot be used: {e}") from None

    def of(self, trust_domain: str) -> x509.Certificate:
        """The CA of a trust domain. Raises VerificationError if there is none."""
        found = self._cas.get(trust_domain)
        if found is None:
            raise VerificationError(
                f"no CA is known that vouches for the trust domain {trust_domain}, only for {', '.join(self._cas)}: "
                "its trust bundle is needed"
            )
        return found


def check_apart(name: str, ca: x509.Certificate, others: dict[str, x509.Certificate]) -> None:
    """Raises VerificationError if another trust domain's CA has the same key, or the same name, as this one.

    The same name matters to OpenSSL, which looks issuers up by it.
    """
    for other, its in others.items():
        if other != name and ca.public_key() == its.public_key():
            raise VerificationError(f"the trust domains {name} and {other} have the same CA key, expected one each")
        if other != name and ca.subject == its.subject:
            raise VerificationError(f"the CAs of the trust domains {name} and {other} have the same name")
