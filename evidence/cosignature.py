"""Cosignatures of witnesses under checkpoints (c2sp.org/tlog-cosignature), Ed25519 (signature type 0x04).

A cosignature says: as of its time, this is the largest tree of this log that the witness saw, and it continues all that
it saw before. Several of them from witnesses that do not collude rule out a second history.
"""

from __future__ import annotations

import base64
from pathlib import Path

from ..formats.cosignature import TIMED, Witness, message
from ..formats.errors import FormatError, UsageError
from ..formats.jws import Signer
from ..formats.signed_note import DASH
from .checkpoint import Verifier


class Cosigner:
    """Makes the cosignatures of one witness. The key must have no other role: what it signs does not name it."""

    def __init__(self, name: str, signer: Signer) -> None:
        """Raises UsageError for a key that is not Ed25519 or a name that a signature line cannot carry."""
        known = Verifier.of(name, signer.public_key())
        self.witness = Witness(known.name, known.key)
        self._signer = signer

    def sign(self, text: str, seconds: int) -> str:
        """The signature line, with its line feed, for the checkpoint `text` at this POSIX time."""
        raw = TIMED.pack(seconds, self._signer.sign(message(seconds, text)))
        encoded = base64.b64encode(self.witness.key_id() + raw).decode("ascii")
        return f"{DASH}{self.witness.name} {encoded}\n"


def read_witnesses(path: Path) -> tuple[Witness, ...]:
    """The verifier keys in a file, one a line; empty lines and those that begin with # are passed over.

    Raises UsageError naming the line that is none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"the witness keys in {path} cannot be read: {e}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            found.append(Witness.parse(line.strip()))
        except FormatError as e:
            raise UsageError(f"{path}, line {number}: {e} (a witness's key has the type 04)") from None
    if not found:
        raise UsageError(f"{path} holds no verifier key of a witness")
    return tuple(found)
