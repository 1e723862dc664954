"""Signed notes (c2sp.org/signed-note): their form, and how keys are named. Who signed is verified elsewhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .errors import FormatError

MAX_NOTE = 64 * 1024
MAX_SIGNATURES = 16
DASH = "\u2014 "


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


def key_id(name: str, kind: bytes, key: Ed25519PublicKey) -> bytes:
    """The id of a key whose signatures are of the type `kind` (one octet)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:4]


def vkey_text(name: str, kind: bytes, key: Ed25519PublicKey) -> str:
    """The verifier key `name+id+key` of signed-note."""
    return f"{name}+{key_id(name, kind, key).hex()}+{base64.b64encode(kind + key.public_bytes_raw()).decode('ascii')}"


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
