"""Signed checkpoints of the log: C2SP signed notes (c2sp.org/signed-note) in the form of c2sp.org/tlog-checkpoint.

The key's name is the log's origin. Only Ed25519 (signature type 0x01) signs and verifies here; lines of other keys and
types are ignored, as the specification demands.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..formats.errors import FormatError, UsageError, VerificationError
from ..formats.jws import PublicKey, Signer
from ..formats.signed_note import (
    DASH,
    Note,
    is_key_name,
    key_id,
    one_base64,
    parse_note,
    parse_vkey,
    vkey_text,
)

_ED25519 = b"\x01"
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log `origin` had `size` entries and this Merkle root (32 octets)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A known key under the name that its notes carry."""

    name: str
    key: Ed25519PublicKey

    @classmethod
    def of(cls, name: str, key: PublicKey) -> Verifier:
        """Raises UsageError for a key that is not Ed25519 or a name that a note cannot carry."""
        if not isinstance(key, Ed25519PublicKey):
            raise UsageError("checkpoints are signed with Ed25519; the evidence key is of another kind")
        if not is_key_name(name):
            raise UsageError(f"the origin {name!r} cannot name a key: it must have no space and no plus sign")
        return cls(name, key)

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """From the text `name+id+key` of signed-note. Raises FormatError."""
        return cls(*parse_vkey(vkey, _ED25519))

    def key_id(self) -> bytes:
        """SHA-256(name || LF || type || key), first four octets."""
        return key_id(self.name, _ED25519, self.key)

    def __str__(self) -> str:
        return vkey_text(self.name, _ED25519, self.key)


class CheckpointSigner:
    """Signs the checkpoints of one log, while a key is being exchanged with the `former` one too."""

    def __init__(self, origin: str, signer: Signer, former: Signer | None = None) -> None:
        """Raises UsageError (see `Verifier.of`)."""
        self.verifier = Verifier.of(origin, signer.public_key())
        self._signers = [
            (Verifier.of(origin, one.public_key()).key_id(), one) for one in (signer, former) if one is not None
        ]

    def sign(self, size: int, root: bytes) -> str:
        """The signed note of a checkpoint."""
        text = Checkpoint(self.verifier.name, size, root).text()
        signatures = [base64.b64encode(id_ + signer.sign(text.encode())) for id_, signer in self._signers]
        lines = [f"{DASH}{self.verifier.name} {signature.decode('ascii')}\n" for signature in signatures]
        return f"{text}\n{''.join(lines)}"


def verify_note(note: str, known: Iterable[Verifier]) -> Note:
    """The note, signed by at least one known key and wrongly by none. Raises FormatError and VerificationError."""
    parsed = parse_note(note)
    keys = {(verifier.name, verifier.key_id()): verifier for verifier in known}
    good = False
    for line in parsed.signatures:
        verifier = keys.get((line.name, line.key_id))
        if verifier is None:
            continue
        try:
            verifier.key.verify(line.signature, parsed.text.encode())
        except InvalidSignature:
            raise VerificationError(f"the signature of {line.name} under the note is wrong") from None
        good = True
    if not good:
        names = ", ".join(f"{line.name} ({line.key_id.hex()})" for line in parsed.signatures)
        raise VerificationError(f"no known key signed the note; it is signed by {names}")
    return parsed


def parse_checkpoint(note: Note) -> Checkpoint:
    """The checkpoint in a note's text; lines beyond the third are ignored. Raises FormatError."""
    lines = note.text[:-1].split("\n")
    if len(lines) < 3 or not all(lines[:3]):
        raise FormatError("a checkpoint has three lines: origin, size, root")
    origin, size, encoded = lines[:3]
    if not _SIZE.fullmatch(size):
        raise FormatError(f"the checkpoint's size is {size[:20]!r}, expected a decimal number without leading zeros")
    root = one_base64(encoded)
    if len(root) != 32:
        raise FormatError(f"the checkpoint's root has {len(root)} octets, expected 32")
    return Checkpoint(origin, int(size), root)


def verify_checkpoint(note: str, origin: str, known: Iterable[Verifier]) -> Checkpoint:
    """The checkpoint of `origin`, signed by a known key. Raises FormatError and VerificationError."""
    checkpoint = parse_checkpoint(verify_note(note, known))
    if checkpoint.origin != origin:
        raise VerificationError(f"the checkpoint is of the log {checkpoint.origin!r}, expected {origin!r}")
    return checkpoint
