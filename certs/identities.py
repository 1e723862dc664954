"""Whose certificates are believed: those of this trust domain and of its partners, each CA's for its own domain.

OpenSSL has verified a chain to one of the roots when these functions run; that it is the right one is looked at here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from ..formats.errors import VerificationError
from .anchors import check_issued
from .identity import peer_identity, read_leaf, server_identity, uri_identity
from .partners import Partners
from .revocation import RevocationList


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate is of, until when (NumericDate), and the CA that vouched for it."""

    spiffe_id: str
    trust_domain: str
    serial: int
    expires: float
    ca: x509.Certificate


class Identities:
    """Over the revocation list of `trust_domain`, which has its CA, and the bundles of partners, if there are any."""

    def __init__(self, trust_domain: str, revoked: RevocationList, partners: Partners | None = None) -> None:
        self._trust_domain = trust_domain
        self._revoked = revoked
        self._partners = partners

    def client(self, der: bytes, now: datetime, *, own: bool = False) -> Identity:
        """Who calls with this certificate; `own`: partners are nobody here. Raises VerificationError."""
        name = self._claimed(der, own)
        spiffe_id = peer_identity(der, name, now)
        return self._vouched(der, name, str(spiffe_id), now)

    def server(self, der: bytes, now: datetime) -> Identity:
        """Who answers with this certificate. Raises VerificationError."""
        name = self._claimed(der, False)
        spiffe_id = server_identity(der, name, now)
        return self._vouched(der, name, str(spiffe_id), now)

    def _claimed(self, der: bytes, own: bool) -> str:
        """The trust domain that a certificate names, if it is one whose CA is known; else the one that is expected."""
        try:
            name = uri_identity(read_leaf(der)).trust_domain
        except ValueError as e:
            raise VerificationError(f"the certificate cannot be read: {e}") from None
        return name if not own and self._partners is not None and name in self._partners else self._trust_domain

    def _vouched(self, der: bytes, name: str, spiffe_id: str, now: datetime) -> Identity:
        cert = read_leaf(der)
        self.refresh(name)
        ca = self.ca(name)
        check_issued(cert, ca, name)
        found = Identity(spiffe_id, name, cert.serial_number, cert.not_valid_after_utc.timestamp(), ca)
        self.check(found, now)
        return found

    def ca(self, trust_domain: str) -> x509.Certificate:
        """The CA of this trust domain or a partner's. Raises VerificationError if it may not be relied on."""
        if trust_domain == self._trust_domain or self._partners is None:
            return self._revoked.ca
        return self._partners.bundle(trust_domain).ca

    def refresh(self, trust_domain: str) -> None:
        """Look whether the revocation list of a trust domain has changed. Never raises."""
        if trust_domain == self._trust_domain:
            self._revoked.refresh()
        elif self._partners is not None:
            self._partners.refresh()

    def check(self, identity: Identity, now: datetime) -> None:
        """Raises VerificationError if who was identified before is not good any more."""
        if identity.trust_domain == self._trust_domain:
            revoked = self._revoked.is_revoked(identity.serial)
        else:
            revoked = self._revoked_by_partner(identity, now)
        if revoked:
            raise VerificationError(f"the certificate of {identity.spiffe_id} is revoked")
        if now.timestamp() >= identity.expires:
            raise VerificationError(f"the certificate of {identity.spiffe_id} has expired")

    def _revoked_by_partner(self, identity: Identity, now: datetime) -> bool:
        assert self._partners is not None
        bundle = self._partners.bundle(identity.trust_domain)
        if bundle.ca != identity.ca:
            raise VerificationError(f"the CA that vouched for {identity.spiffe_id} was exchanged")
        return bundle.revoked.contains(identity.serial, now)
