"""Cosignatures of witnesses (c2sp.org/tlog-cosignature), Ed25519 (signature type 0x04): whose, of what, and when."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .errors import UsageError, VerificationError
from .signed_note import Note, NoteSignature, key_id, parse_vkey, vkey_text

_COSIGNATURE = b"\x04"
TIMED = struct.Struct(">Q64s")
"""POSIX seconds and the signature."""


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
        if len(line.signature) != TIMED.size:
            raise VerificationError(f"the cosignature of {self.name} has {len(line.signature)} octets, expected 72")
        seconds, signature = TIMED.unpack(line.signature)
        try:
            self.key.verify(signature, message(seconds, text))
        except InvalidSignature:
            raise VerificationError(f"the cosignature of {self.name} under the checkpoint is wrong") from None
        return int(seconds)

    def __str__(self) -> str:
        return vkey_text(self.name, _COSIGNATURE, self.key)


def message(seconds: int, text: str) -> bytes:
    """What is signed under the checkpoint `text`."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


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

    def times(self, note: Note, until: float) -> list[int]:
        """When (POSIX seconds) each of the witnesses that cosigned it `until` then did so last.

        Wrong cosignatures count for nothing.
        """
        each = ([at for at in _times(witness, note) if at <= until] for witness in self.witnesses)
        return [max(times) for times in each if times]


def _times(witness: Witness, note: Note) -> Iterator[int]:
    for line in note.signatures:
        if witness.signed(line):
            with suppress(VerificationError):
                yield witness.verify(line, note.text)


def cosigners(note: Note, witnesses: Iterable[Witness]) -> tuple[str, ...]:
    """Which of the witnesses cosigned the note, each once. Raises VerificationError for a wrong cosignature of one."""
    found = []
    for witness in witnesses:
        if [witness.verify(line, note.text) for line in note.signatures if witness.signed(line)]:
            found.append(witness.name)
    return tuple(found)
