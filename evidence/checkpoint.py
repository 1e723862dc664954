"""Signed checkpoints of the log: C2SP signed notes (c2sp.org/signed-note) in the form of c2sp.org/tlog-checkpoint.

The key's name is the log's origin. Only Ed25519 (signature type 0x01) signs and verifies here; lines of other keys and
types are ignored, as the specification demands.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..formats.errors import FormatError, UsageError, VerificationError
from ..formats.jws import PublicKey, Signer

MAX_NOTE = 64 * 1024
MAX_SIGNATURES = 16
_ED25519 = b"\x01"
_DASH = "\u2014 "
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
class NoteSignature:
    """One signature line: the key's name, its id (4 octets), the signature."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note whose form was checked and whose signatures were not. `text` ends with its line feed."""

    text: str
    signatures: tuple[NoteSignature, ...]


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
        if not _is_key_name(name):
            raise UsageError(f"the origin {name!r} cannot name a key: it must have no space and no plus sign")
        return cls(name, key)

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """From the text `name+id+key` of signed-note. Raises FormatError."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = _base64(encoded)
        if not _is_key_name(name) or raw[:1] != _ED25519 or len(raw) != 33:
            raise FormatError("not a verifier key name+id+base64 of an Ed25519 key")
        verifier = cls(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
        if verifier.key_id().hex() != key_id:
            raise FormatError(f"the verifier key's id is {key_id!r}, expected {verifier.key_id().hex()}")
        return verifier

    def _typed_key(self) -> bytes:
        return _ED25519 + self.key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def key_id(self) -> bytes:
        """SHA-256(name || LF || type || key), first four octets."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed_key()).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id().hex()}+{base64.b64encode(self._typed_key()).decode('ascii')}"


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() or ord(c) < 0x20 or ord(c) == 0x7F for c in name)


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{text[:60]!r} is not base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise FormatError(f"{text[:60]!r} is not base64 in its one spelling")
    return raw


class CheckpointSigner:
    """Signs the checkpoints of one log."""

    def __init__(self, origin: str, signer: Signer) -> None:
        """Raises UsageError (see `Verifier.of`)."""
        self.verifier = Verifier.of(origin, signer.public_key())
        self._key_id = self.verifier.key_id()
        self._signer = signer

    def sign(self, size: int, root: bytes) -> str:
        """The signed note of a checkpoint."""
        text = Checkpoint(self.verifier.name, size, root).text()
        line = base64.b64encode(self._key_id + self._signer.sign(text.encode())).decode("ascii")
        return f"{text}\n{_DASH}{self.verifier.name} {line}\n"


def parse_note(note: str) -> Note:
    """Check the form of a signed note. Raises FormatError."""
    if len(note) > MAX_NOTE:
        raise FormatError(f"the signed note has {len(note)} characters, more than {MAX_NOTE}")
    if any((ord(c) < 0x20 and c != "\n") or ord(c) == 0x7F for c in note):
        raise FormatError("the signed note holds a control character")
    body, separator, tail = note.rpartition("\n\n")
    if not separator or not body or not tail.endswith("\n"):
        raise FormatError("not a signed note: text, an empty line and signature lines, each ending with a line feed")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise FormatError(f"the signed note has {len(lines)} signatures, more than {MAX_SIGNATURES}")
    return Note(body + "\n", tuple(_parse_signature(line) for line in lines))


def _parse_signature(line: str) -> NoteSignature:
    name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not separator or not _is_key_name(name):
        raise FormatError(f"not a signature line of a signed note: {line[:60]!r}")
    raw = _base64(encoded)
    if len(raw) < 5:
        raise FormatError(f"the signature line of {name} holds no signature")
    return NoteSignature(name, raw[:4], raw[4:])


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
    root = _base64(encoded)
    if len(root) != 32:
        raise FormatError(f"the checkpoint's root has {len(root)} octets, expected 32")
    return Checkpoint(origin, int(size), root)


def verify_checkpoint(note: str, origin: str, known: Iterable[Verifier]) -> Checkpoint:
    """The checkpoint of `origin`, signed by a known key. Raises FormatError and VerificationError."""
    checkpoint = parse_checkpoint(verify_note(note, known))
    if checkpoint.origin != origin:
        raise VerificationError(f"the checkpoint is of the log {checkpoint.origin!r}, expected {origin!r}")
    return checkpoint
