"""What a worker does about other trust domains: whose certificates it believes, on which listener, of which server."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..bindings.target import Target
from ..certs.authority import read_certificate
from ..certs.bundle import Bundle
from ..certs.contexts import trust_partners
from ..certs.files import write_atomically
from ..certs.identities import Identities
from ..certs.partners import Partners
from ..certs.revocation import RevocationList
from ..formats.errors import UsageError, VerificationError
from .config import Config


def check_bundles(config: Config) -> None:
    """Raises UsageError for a trust bundle that cannot be taken; one may be out of date, which is logged."""
    try:
        Partners(read_certificate(config.identity.trust / "identity-ca.pem"), config.federation, strict=True)
    except VerificationError as e:
        raise UsageError(f"federation: {e}") from None


@dataclass(frozen=True, slots=True)
class AgentServer:
    """Accepts, in front of an agent, who its trust domain's own CA vouches for; `monitor`: this one only."""

    identities: Identities
    trust_domain: str
    monitor: str | None

    def __call__(self, der: bytes) -> None:
        """Raises VerificationError for another server."""
        found = self.identities.server(der, datetime.now(UTC))
        if found.trust_domain != self.trust_domain or self.monitor not in (None, found.spiffe_id):
            expected = self.monitor or f"a monitor of the trust domain {self.trust_domain}"
            raise VerificationError(f"the server is {found.spiffe_id}, expected {expected}")


class Federation:
    """`folder` is the worker's own; CAs of partners are written there, for connections to their agents."""

    def __init__(self, config: Config, folder: Path) -> None:
        """Raises VerificationError for the revocation list."""
        trust = config.identity.trust
        self._folder = folder
        self.ca = trust / "identity-ca.pem"
        self.revoked = RevocationList(trust / "crl.pem", self.ca.read_bytes())
        self.partners = Partners(self.revoked.ca, config.federation)
        self._names = [one.trust_domain for one in config.federation]
        self._own = config.monitor.trust_domain
        self._loaded: tuple[object, ...] = ()
        self.identities = Identities(self._own, self.revoked, self.partners)
        self.partners.follow(self._write)

    def _write(self, bundle: Bundle) -> None:
        write_atomically(self._file(bundle.trust_domain), bundle.ca_pem)

    def _file(self, trust_domain: str) -> Path:
        return self._folder / f"partner-{self._names.index(trust_domain)}.pem"

    def welcome(self, context: ssl.SSLContext) -> None:
        """Have a listener complete handshakes with partners too."""
        if self._names:
            trust_partners(context, self.partners)

    def server(self, target: Target) -> tuple[Path | None, AgentServer | None]:
        """The CA with which the server of an agent target is verified, and who it must be."""
        domain = target.trust_domain
        if domain is None or target.ca is not None:
            return target.ca, None
        ca = self.ca if domain == self._own else self._file(domain)
        return ca, AgentServer(self.identities, domain, target.monitor)

    def look(self) -> bool:
        """Look at revocation lists and bundles again; whether a server that was accepted may not be so any more."""
        self.revoked.refresh()
        self.partners.refresh()
        before, self._loaded = self._loaded, (self.revoked.loaded, *map(self.partners.state, self._names))
        return before not in ((), self._loaded)
