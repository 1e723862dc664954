"""Which certificates are revoked: a CRL file, signed by the identity CA, read again when it changes.

No list, a list that cannot be believed, or one past its date: nobody is known to be good, so every question raises.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from ..formats.errors import VerificationError
from .authority import SKEW


def _utc_now() -> datetime:
    return datetime.now(UTC)


def load_crl(data: bytes, ca: x509.Certificate, source: str) -> x509.CertificateRevocationList:
    """Parse a PEM CRL and check its signature. Raises VerificationError naming `source`."""
    try:
        crl = x509.load_pem_x509_crl(data)
    except ValueError as e:
        raise VerificationError(f"{source} is not a revocation list in PEM: {e}") from None
    if crl.issuer != ca.subject or not crl.is_signature_valid(ca.public_key()):  # type: ignore[arg-type]
        raise VerificationError(f"the revocation list {source} is not signed by the identity CA")
    return crl


class RevocationList:
    """The CRL of a trust domain. Questions are a set look-up; call `refresh` where a change has to be seen."""

    def __init__(self, crl_path: Path, ca_pem: bytes, clock: Callable[[], datetime] = _utc_now) -> None:
        """Loads the list. Raises VerificationError if it is missing, not of this CA, or out of date."""
        self._path = crl_path
        self._ca = x509.load_pem_x509_certificate(ca_pem)
        self._clock = clock
        self._stamp: tuple[int, ...] | None = None
        self._serials: frozenset[int] = frozenset()
        self._from = self._until = datetime.min.replace(tzinfo=UTC)
        self._broken: str | None = None
        self.refresh()
        self._check()

    def is_revoked(self, serial: int) -> bool:
        """Raises VerificationError when there is no list to believe at this moment."""
        self._check()
        return serial in self._serials

    def refresh(self) -> bool:
        """Read the file again if it changed (time, size or inode); returns whether it did. Never raises.

        A file that has gone or turned bad makes `is_revoked` raise until a good one stands there.
        """
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            self._load(self._path.read_bytes())
            self._broken = None
        except OSError as e:
            self._stamp = None
            self._broken = f"the revocation list {self._path} cannot be read: {e.strerror}"
        except (VerificationError, ValueError) as e:
            self._broken = str(e)
        return True

    def _load(self, data: bytes) -> None:
        crl = load_crl(data, self._ca, str(self._path))
        if crl.next_update_utc is None:
            raise VerificationError(f"the revocation list {self._path} has no next update, expected a date")
        self._serials = frozenset(entry.serial_number for entry in crl)
        self._from, self._until = crl.last_update_utc - SKEW, crl.next_update_utc

    def _check(self) -> None:
        if self._broken is not None:
            raise VerificationError(self._broken)
        if not self._from <= self._clock() <= self._until:
            raise VerificationError(
                f"the revocation list {self._path} is valid from {self._from:%Y-%m-%d %H:%M}Z "
                f"to {self._until:%Y-%m-%d %H:%M}Z only: every `lictor agent add` and `revoke` signs a new one"
            )
