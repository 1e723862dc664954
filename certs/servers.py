"""Who a server of the trust domain is: looked at by its callers before they send anything."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from ..formats.errors import VerificationError
from .contexts import trust_partners
from .identities import Identities
from .partners import Federated, Partners
from .revocation import RevocationList


class ExpectedServer:
    """`accepted` is a SPIFFE ID, or ends with `/*` and stands for everything below.

    It may be one of another trust domain if there is a bundle of that among `partners`.
    """

    def __init__(
        self, accepted: str, trust_domain: str, ca: Path, crl: Path, partners: tuple[Federated, ...] = ()
    ) -> None:
        """Raises VerificationError for the revocation list."""
        self.seen = ""
        """The SPIFFE ID of the server that was found to be the one expected last."""
        self._accepted = accepted
        revoked = RevocationList(crl, ca.read_bytes())
        self._partners = Partners(revoked.ca, partners) if partners else None
        self._identities = Identities(trust_domain, revoked, self._partners)

    def check(self, der: bytes | None) -> str:
        """The SPIFFE ID of the server with this certificate. Raises VerificationError if it is not the one expected."""
        if der is None:
            raise VerificationError("the server has shown no certificate")
        found = self._identities.server(der, datetime.datetime.now(datetime.UTC)).spiffe_id
        if not (found.startswith(self._accepted[:-1]) if self._accepted.endswith("/*") else found == self._accepted):
            raise VerificationError(f"the server is {found}, expected {self._accepted}")
        self.seen = found
        return found

    def watch(self, context: ssl.SSLContext) -> None:
        """Every handshake of asyncio with this context ends with `check`, or fails as one with a wrong certificate."""
        check, partners = self.check, self._partners
        if partners is not None:
            trust_partners(context, partners)

        class Watched(ssl.SSLObject):
            def do_handshake(self) -> None:
                if partners is not None:
                    partners.refresh()
                super().do_handshake()
                try:
                    check(self.getpeercert(binary_form=True))
                except VerificationError as e:
                    raise ssl.SSLCertVerificationError(1, str(e)) from None

        context.sslobject_class = Watched
