"""Which certificates are revoked: a CRL file, signed by the identity CA, read again when it changes.

No list, a list that cannot be believed, or one past its date: nobody is known to be good, so every question raises.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from ..formats.errors import VerificationError
from .authority import SKEW

_MEND = "every `lictor agent add` and `revoke` signs a new one"


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


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation list says. `source` names it in messages, `mend` how to come by another."""

    source: str
    mend: str
    number: int
    serials: frozenset[int]
    valid_from: datetime
    valid_until: datetime

    @classmethod
    def of(cls, crl: x509.CertificateRevocationList, source: str, mend: str) -> Revoked:
        """Raises VerificationError if it has no next update or no number."""
        if crl.next_update_utc is None:
            raise VerificationError(f"the revocation list {source} has no next update, expected a date")
        try:
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except (ValueError, x509.ExtensionNotFound) as e:
            raise VerificationError(f"the revocation list {source} has no number: {e}") from None
        serials = frozenset(entry.serial_number for entry in crl)
        return cls(source, mend, number, serials, crl.last_update_utc - SKEW, crl.next_update_utc)

    def is_current(self, now: datetime) -> bool:
        """Whether it may be relied on at `now`."""
        return self.valid_from <= now <= self.valid_until

    def contains(self, serial: int, now: datetime) -> bool:
        """Raises VerificationError when it is not to be believed at `now`."""
        if not self.is_current(now):
            raise VerificationError(
                f"the revocation list {self.source} is valid from {self.valid_from:%Y-%m-%d %H:%M}Z "
                f"to {self.valid_until:%Y-%m-%d %H:%M}Z only: {self.mend}"
            )
        return serial in self.serials


class RevocationList:
    """The CRL of a trust domain. Questions are a set look-up; call `refresh` where a change has to be seen."""

    def __init__(self, crl_path: Path, ca_pem: bytes, clock: Callable[[], datetime] = _utc_now) -> None:
        """Loads the list. Raises VerificationError if it is missing, not of this CA, or out of date."""
        self._path = crl_path
        self.ca = x509.load_pem_x509_certificate(ca_pem)
        """The identity CA, which has signed the list."""
        self.loaded = 0
        """How often the file was read."""
        self._clock = clock
        self._stamp: tuple[int, ...] | None = None
        self._list: Revoked | None = None
        self._broken = ""
        self.refresh()
        self.is_revoked(0)

    def is_revoked(self, serial: int) -> bool:
        """Raises VerificationError when there is no list to believe at this moment."""
        if self._list is None:
            raise VerificationError(self._broken)
        return self._list.contains(serial, self._clock())

    def now(self) -> Revoked:
        """What may be relied on now, with a look at the file. Raises VerificationError like `is_revoked`."""
        self.refresh()
        if self._list is None:
            raise VerificationError(self._broken)
        self._list.contains(0, self._clock())
        return self._list

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
            self._list = None
            crl = load_crl(self._path.read_bytes(), self.ca, str(self._path))
            self._list = Revoked.of(crl, str(self._path), _MEND)
        except OSError as e:
            self._stamp = self._list = None
            self._broken = f"the revocation list {self._path} cannot be read: {e.strerror}"
        except (VerificationError, ValueError) as e:
            self._broken = str(e)
        self.loaded += 1
        return True
