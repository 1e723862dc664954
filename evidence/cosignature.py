"""Cosignatures of witnesses under checkpoints (c2sp.org/tlog-cosignature), Ed25519 (signature type 0x04).

A cosignature says: as of its time, this is the largest tree of this log that the witness saw, and it continues all that
it saw before. Several of them from witnesses that do not collude rule out a second history.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..formats.errors import FormatError, UsageError, VerificationError
from ..formats.jws import Signer
from .checkpoint import DASH, Note, NoteSignature, Verifier, key_id, parse_vkey, vkey_text

_COSIGNATURE = b"\x04"
_TIMED = struct.Struct(">Q64s")


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness's name and key."""

    name: str
    key: Ed25519PublicKey

    @classmethod
    def parse(cls, vkey: str) -> Witness:
        """From the verifier key `name+id+key` with the type 0x04. Raises FormatError."""
        return cls(*parse_vkey(vkey, _COSIGNATURE))

    def key_id(self) -> bytes:
        return key_id(self.name, _COSIGNATURE, self.key)

    def signed(self, line: NoteSignature) -> bool:
        """Whether the line says that it is this witness's."""
        return (line.name, line.key_id) == (self.name, self.key_id())

    def verify(self, line: NoteSignature, text: str) -> int:
        """When (POSIX seconds) the witness signed the checkpoint `text`. Raises VerificationError if it did not."""
        if len(line.signature) != _TIMED.size:
            raise VerificationError(f"the cosignature of {self.name} has {len(line.signature)} octets, expected 72")
        seconds, signature = _TIMED.unpack(line.signature)
        try:
            self.key.verify(signature, _message(seconds, text))
        except InvalidSignature:
            raise VerificationError(f"the cosignature of {self.name} under the checkpoint is wrong") from None
        return int(seconds)

    def __str__(self) -> str:
        return vkey_text(self.name, _COSIGNATURE, self.key)


def _message(seconds: int, text: str) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


class Cosigner:
    """Makes the cosignatures of one witness. The key must have no other role: what it signs does not name it."""

    def __init__(self, name: str, signer: Signer) -> None:
        """Raises UsageError for a key that is not Ed25519 or a name that a signature line cannot carry."""
        known = Verifier.of(name, signer.public_key())
        self.witness = Witness(known.name, known.key)
        self._signer = signer

    def sign(self, text: str, seconds: int) -> str:
        """The signature line, with its line feed, for the checkpoint `text` at this POSIX time."""
        raw = _TIMED.pack(seconds, self._signer.sign(_message(seconds, text)))
        encoded = base64.b64encode(self.witness.key_id() + raw).decode("ascii")
        return f"{DASH}{self.witness.name} {encoded}\n"


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """A checkpoint counts as witnessed when at least `quorum` of `witnesses` cosigned it."""

    witnesses: tuple[Witness, ...]
    quorum: int

    def __post_init__(self) -> None:
        """Raises UsageError for a key given twice or a quorum that cannot be reached or means nothing."""
        if len({witness.key.public_bytes_raw() for witness in self.witnesses}) != len(self.witnesses):
            raise UsageError("two of the witnesses have the same key: each must count once")
        if not 1 <= self.quorum <= len(self.witnesses):
            raise UsageError(f"a quorum of {self.quorum} cannot be asked of {len(self.witnesses)} witnesses")

    def signers(self, note: Note) -> tuple[str, ...]:
        """Names of the witnesses that cosigned. Raises VerificationError if the cosignature of one of them is wrong."""
        return cosigners(note, self.witnesses)

    def holds(self, note: Note) -> bool:
        """Whether enough of them did. Raises VerificationError like `signers`."""
        return len(self.signers(note)) >= self.quorum


def cosigners(note: Note, witnesses: Iterable[Witness]) -> tuple[str, ...]:
    """Which of the witnesses cosigned the note, each once. Raises VerificationError for a wrong cosignature of one."""
    found = []
    for witness in witnesses:
        if [witness.verify(line, note.text) for line in note.signatures if witness.signed(line)]:
            found.append(witness.name)
    return tuple(found)


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
