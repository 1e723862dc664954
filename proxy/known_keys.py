"""The evidence keys of other monitors: those of the trust domain, read again when one came since, and partners'."""

from __future__ import annotations

import logging
from pathlib import Path

from ..certs.evidence_keys import EvidenceKeys, evidence_jwk
from ..certs.partners import Partners
from ..formats.errors import LictorError, VerificationError
from ..formats.jws import PublicKey

log = logging.getLogger(__name__)


class KnownKeys:
    """Keys from `monitors/*/evidence.pem` of a trust-domain directory. A new monitor is known without a restart.

    Those of monitors in other trust domains come from their bundles.
    """

    def __init__(self, trust: Path, ca_pem: bytes, partners: Partners | None = None) -> None:
        self._partners = partners
        self._monitors = trust / "monitors"
        self._keys = EvidenceKeys(ca_pem)
        self._stamp: dict[Path, int] = {}
        self._read_if_changed()

    def resolve(self, kid: str, iss: str, at: float | None = None) -> PublicKey:
        """The key `kid` of monitor `iss`, whose certificate was valid `at`. Raises VerificationError."""
        if self._partners is not None and self._partners.speaks_for(iss):
            return self._partners.resolve(kid, iss, at)
        try:
            return self._keys.resolve(kid, iss, at)
        except VerificationError:
            if not self._read_if_changed():
                raise
        return self._keys.resolve(kid, iss, at)

    def _read_if_changed(self) -> bool:
        try:
            stamp = {path: path.stat().st_mtime_ns for path in sorted(self._monitors.glob("*/evidence*.pem"))}
        except OSError:
            return False
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        for path in stamp:
            try:
                self._keys.add_jwk(evidence_jwk(path.read_bytes()))
            except (OSError, LictorError) as e:
                log.warning("the evidence key in %s is not used: %s", path, e)
        return True
