"""The evidence key of the running monitor: from its file or its signing agent, and exchanged without a restart.

`lictor monitor rotate-evidence` replaces `evidence.key` and `evidence.pem` in the monitor's folder. The monitor
notices, enters a `key_rotation` into the log and signs tokens with the new key from then on; checkpoints bear the
signatures of both keys for as long as the former one lies there (`evidence.previous.key`), so that whoever knows only
one of them can go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..certs.evidence_keys import evidence_jwk
from ..certs.signing_agent import SocketSigner
from ..evidence.entry import KEY_ROTATION, own_fields
from ..evidence.ledger import Ledger
from ..evidence.store import Reader
from ..formats.errors import LictorError, UsageError
from ..formats.jws import PublicKey, Signer
from ..formats.keys import KeySigner
from ..formats.watched import Watched
from .config import Config


class EvidenceKey:
    """A `Signer` that is always the key in force."""

    def __init__(self, config: Config) -> None:
        """Raises UsageError if the key cannot be used or is not that of its certificate."""
        self._config = config
        self._folder = config.monitor_dir
        self._watched = Watched("the evidence key", self._files, self._load)

    @property
    def _signer(self) -> Signer:
        return self._watched.current

    @property
    def kid(self) -> str:
        return self._signer.kid

    @property
    def alg(self) -> str:
        return self._signer.alg

    def sign(self, data: bytes) -> bytes:
        return self._signer.sign(data)

    def public_key(self) -> PublicKey:
        return self._signer.public_key()

    def x5c(self) -> list[str]:
        """The certificate of the key (RFC 7515 section 4.1.6). Raises UsageError."""
        certificates: list[str] = self._jwk()["x5c"]
        return certificates

    def enter(self, ledger: Ledger, stored: Reader, monitor_id: str) -> None:
        """Put the key into the log, and if another was there before, say that it was exchanged. Call at start."""
        known = [row.id for row in stored.documents("key")]
        self._enter(ledger, known[-1] if known else None, monitor_id, known)

    async def poll(self, ledger: Ledger, monitor_id: str) -> bool:
        """Look again; True if another key is in force now. What cannot be used is logged, once, and changes nothing."""
        before = self._signer
        if not self._watched.poll():
            return False
        self._enter(ledger, before.kid, monitor_id, [before.kid])
        await ledger.commit()
        return self.kid != before.kid

    def _enter(self, ledger: Ledger, before: str | None, monitor_id: str, known: list[str]) -> None:
        ledger.put_document("key", self.kid, self._jwk())
        if before is not None and self.kid not in known:
            ledger.add(own_fields(monitor_id, KEY_ROTATION, {"kid": self.kid, "previous_kid": before}))
        ledger.sign_with(self._signer, self._previous())

    def _load(self) -> Signer:
        signer: Signer
        if self._config.evidence.signer is not None:
            signer = SocketSigner(self._config.evidence.signer)
        else:
            signer = KeySigner.from_file(self._folder / "evidence.key")
        cert = self._jwk()
        if cert["kid"] != signer.kid:
            raise UsageError(
                f"the evidence key {signer.kid} is not that of {self._folder / 'evidence.pem'} ({cert['kid']}): "
                f"run lictor monitor rotate-evidence {self._config.monitor.name}"
            )
        return signer

    def _previous(self) -> Signer | None:
        """The former key, while it lies there."""
        path = self._folder / "evidence.previous.key"
        return KeySigner.from_file(path) if path.exists() else None

    def _jwk(self) -> dict[str, Any]:
        path = self._folder / "evidence.pem"
        try:
            return evidence_jwk(path.read_bytes())
        except (OSError, LictorError) as e:
            raise UsageError(f"the evidence certificate {path} cannot be read: {e}") from None

    def _files(self) -> list[Path]:
        """What rotation replaces."""
        return [self._folder / name for name in ("evidence.pem", "evidence.key", "evidence.previous.key")]
