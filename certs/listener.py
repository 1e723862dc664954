"""What a listener over mutual TLS shows, and whom it lets in. Apart from the one that serves: workers only read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .partners import Federated, Partners
from .revocation import RevocationList


@dataclass(frozen=True, slots=True)
class Listener:
    """What a listener shows and whom it lets in: PEM files, and the trust domain of callers. `name` is for messages.

    Callers of the trust domains of `partners` are let in too, if there is no `named`, or it names them (SPIFFE IDs,
    or patterns with `/*` at the end).
    """

    name: str
    cert: Path
    key: Path
    ca: Path
    crl: Path
    trust_domain: str
    partners: tuple[Federated, ...] = ()
    named: tuple[str, ...] | None = None

    def partners_of(self, revoked: RevocationList) -> Partners | None:
        """Their bundles, if there are any."""
        return Partners(revoked.ca, self.partners) if self.partners else None
