"""Who a server of the trust domain is: looked at by its callers before they send anything."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from ..formats.errors import VerificationError
from ..formats.spiffe import is_named
from .authority import pem
from .contexts import trust_partners
from .identities import Identities
from .partners import Federated, Partners, partners_among
from .revocation import RevocationList

_UNKNOWN_CA = {18, 19, 20}
"""X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, …_SELF_SIGNED_CERT_IN_CHAIN, …_UNABLE_TO_GET_ISSUER_CERT_LOCALLY."""


def why_not(error: BaseException) -> str:
    """Why a server was not reached, in words, with the mend where no CA is known that vouches for it."""
    if isinstance(error, ssl.SSLCertVerificationError) and getattr(error, "verify_code", 0) in _UNKNOWN_CA:
        return "its certificate is of no CA that is known; of another trust domain its bundle is needed (--bundle)"
    return str(error)


class ExpectedServer:
    """`accepted` are SPIFFE IDs; one that ends with `/*` stands for everything below.

    They may be of other trust domains if there are bundles of these among `partners`; no other bundle counts.
    """

    def __init__(
        self,
        accepted: str | tuple[str, ...],
        trust_domain: str,
        ca: Path,
        crl: Path,
        partners: tuple[Federated, ...] = (),
    ) -> None:
        """Raises VerificationError for the revocation list."""
        self.seen = ""
        """The SPIFFE ID of the server that was found to be the one expected last."""
        self._accepted = (accepted,) if isinstance(accepted, str) else accepted
        its = partners_among(partners, self._accepted)
        self._trust_domain = its[0].trust_domain if its else trust_domain
        revoked = RevocationList(crl, ca.read_bytes())
        self._partners = Partners(revoked.ca, its) if its else None
        self._identities = Identities(trust_domain, revoked, self._partners)

    def check(self, der: bytes | None) -> str:
        """The SPIFFE ID of the server with this certificate. Raises VerificationError if it is not the one expected."""
        if der is None:
            raise VerificationError("the server has shown no certificate")
        found = self._identities.server(der, datetime.datetime.now(datetime.UTC))
        if not is_named(self._accepted, found.spiffe_id):
            raise VerificationError(f"the server is {found.spiffe_id}, expected {' or '.join(self._accepted)}")
        self.seen, self._trust_domain = found.spiffe_id, found.trust_domain
        return self.seen

    def ca_pem(self) -> bytes:
        """The CA that vouches for the server seen, and for its evidence keys. Raises VerificationError without one."""
        self._identities.refresh(self._trust_domain)
        return pem(self._identities.ca(self._trust_domain))

    def trust(self, context: ssl.SSLContext) -> None:
        """Let handshakes with it be completed. Without `watch`, `refresh` before and `check` after each of them."""
        if self._partners is not None:
            trust_partners(context, self._partners)

    def refresh(self) -> None:
        """Take a bundle that changed, if it is a partner's. Never raises."""
        if self._partners is not None:
            self._partners.refresh()

    def watch(self, context: ssl.SSLContext) -> None:
        """Every handshake of asyncio with this context ends with `check`, or fails as one with a wrong certificate."""
        check, refresh = self.check, self.refresh
        self.trust(context)

        class Watched(ssl.SSLObject):
            def do_handshake(self) -> None:
                refresh()
                super().do_handshake()
                try:
                    check(self.getpeercert(binary_form=True))
                except VerificationError as e:
                    raise ssl.SSLCertVerificationError(1, str(e)) from None

        context.sslobject_class = Watched
