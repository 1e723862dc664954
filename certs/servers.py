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
from .partners import Federated, Partners
from .revocation import RevocationList


class ExpectedServer:
    """`accepted` is a SPIFFE ID, or ends with `/*` and stands for everything below.

    It may be one of another trust domain if there is a bundle of that among `partners`; of these no other counts.
    """

    def __init__(
        self, accepted: str, trust_domain: str, ca: Path, crl: Path, partners: tuple[Federated, ...] = ()
    ) -> None:
        """Raises VerificationError for the revocation list."""
        self.seen = ""
        """The SPIFFE ID of the server that was found to be the one expected last."""
        self._accepted = accepted
        its = tuple(one for one in partners if accepted.startswith(f"spiffe://{one.trust_domain}/"))
        self._trust_domain = its[0].trust_domain if its else trust_domain
        revoked = RevocationList(crl, ca.read_bytes())
        self._partners = Partners(revoked.ca, its) if its else None
        self._identities = Identities(trust_domain, revoked, self._partners)

    def check(self, der: bytes | None) -> str:
        """The SPIFFE ID of the server with this certificate. Raises VerificationError if it is not the one expected."""
        if der is None:
            raise VerificationError("the server has shown no certificate")
        found = self._identities.server(der, datetime.datetime.now(datetime.UTC)).spiffe_id
        if not is_named((self._accepted,), found):
            raise VerificationError(f"the server is {found}, expected {self._accepted}")
        self.seen = found
        return found

    def ca_pem(self) -> bytes:
        """The CA that vouches for it, and for its evidence keys. Raises VerificationError if there is none now."""
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
