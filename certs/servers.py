"""Who a server of the trust domain is: looked at by its callers before they send anything."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509

from ..formats.errors import VerificationError
from .identity import server_identity
from .revocation import RevocationList


class ExpectedServer:
    """`accepted` is a SPIFFE ID, or ends with `/*` and stands for everything below."""

    def __init__(self, accepted: str, trust_domain: str, ca: Path, crl: Path) -> None:
        """Raises VerificationError for the revocation list."""
        self._accepted = accepted
        self._trust_domain = trust_domain
        self._revoked = RevocationList(crl, ca.read_bytes())

    def check(self, der: bytes | None) -> str:
        """The SPIFFE ID of the server with this certificate. Raises VerificationError if it is not the one expected."""
        if der is None:
            raise VerificationError("the server has shown no certificate")
        found = str(server_identity(der, self._trust_domain, datetime.datetime.now(datetime.UTC)))
        if not (found.startswith(self._accepted[:-1]) if self._accepted.endswith("/*") else found == self._accepted):
            raise VerificationError(f"the server is {found}, expected {self._accepted}")
        self._revoked.refresh()
        if self._revoked.is_revoked(x509.load_der_x509_certificate(der).serial_number):
            raise VerificationError(f"the certificate of {found} is revoked")
        return found

    def watch(self, context: ssl.SSLContext) -> None:
        """Every handshake of asyncio with this context ends with `check`, or fails as one with a wrong certificate."""
        check = self.check

        class Watched(ssl.SSLObject):
            def do_handshake(self) -> None:
                super().do_handshake()
                try:
                    check(self.getpeercert(binary_form=True))
                except VerificationError as e:
                    raise ssl.SSLCertVerificationError(1, str(e)) from None

        context.sslobject_class = Watched
