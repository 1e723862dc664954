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
DASH = "\u2014 "
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

    def text(self) -> str:
        """The line, with its line feed."""
        return f"{DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode('ascii')}\n"


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


def key_id(name: str, kind: bytes, key: Ed25519PublicKey) -> bytes:
    """The id of a key whose signatures are of the type `kind` (one octet)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + _raw(key)).digest()[:4]


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def vkey_text(name: str, kind: bytes, key: Ed25519PublicKey) -> str:
    """The verifier key `name+id+key` of signed-note."""
    return f"{name}+{key_id(name, kind, key).hex()}+{base64.b64encode(kind + _raw(key)).decode('ascii')}"


def parse_vkey(vkey: str, kind: bytes) -> tuple[str, Ed25519PublicKey]:
    """Name and key of a verifier key for signatures of the type `kind`. Raises FormatError."""
    name, _, rest = vkey.partition("+")
    found, _, encoded = rest.partition("+")
    raw = one_base64(encoded)
    if not is_key_name(name) or raw[:1] != kind or len(raw) != 33:
        raise FormatError(f"not a verifier key name+id+base64 of an Ed25519 key of the type {kind.hex()}")
    key = Ed25519PublicKey.from_public_bytes(raw[1:])
    if key_id(name, kind, key).hex() != found:
        raise FormatError(f"the verifier key's id is {found!r}, expected {key_id(name, kind, key).hex()}")
    return name, key


def is_key_name(name: str) -> bool:
    """Whether a signature line can carry this name."""
    return bool(name) and "+" not in name and not any(c.isspace() or ord(c) < 0x20 or ord(c) == 0x7F for c in name)


def one_base64(text: str) -> bytes:
    """Base64 in the standard alphabet, padded, in the one spelling that encoding gives. Raises FormatError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{text[:60]!r} is not base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise FormatError(f"{text[:60]!r} is not base64 in its one spelling")
    return raw


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
    return Note(body + "\n", tuple(parse_signature(line) for line in lines))


def parse_signature(line: str) -> NoteSignature:
    """One signature line, without its line feed. Raises FormatError."""
    name, separator, encoded = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not separator or not is_key_name(name):
        raise FormatError(f"not a signature line of a signed note: {line[:60]!r}")
    raw = one_base64(encoded)
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
