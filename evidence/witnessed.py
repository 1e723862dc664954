"""The line that goes along with a BET to show who witnessed the log that it rests on: `Behavioral-Evidence-Checkpoint`.

No witness can have seen the tree of a BET that was issued just now. What can be shown is an earlier checkpoint of the
same log with the cosignatures under it, and a consistency proof (RFC 9162 section 2.1.4) from its tree to that of the
BET. One line, a structured field (RFC 9651) in its one spelling: `:<note>:;size=<size of the BET's tree>;proof=:<hashes
one after the other>:`, each between the colons in base64.

Whose cosignatures they are is judged where it is known which are asked for; here the line is held to the log and the
BETs that it came with.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..formats import base64url, jws
from ..formats.errors import FormatError, UsageError, VerificationError
from ..formats.signed_note import one_base64
from . import bet
from .bet import Bet
from .checkpoint import Verifier, verify_checkpoint
from .claims import KeyResolver
from .merkle import verify_consistency

HEADER = "Behavioral-Evidence-Checkpoint"
MAX_LINE = 7168
"""Octets: fifteen cosignatures and a proof for a log of any size; servers commonly take lines of 8 KiB."""
_LINE = re.compile(r":([A-Za-z0-9+/=]+):;size=([1-9][0-9]{0,15});proof=:([A-Za-z0-9+/=]*):", re.ASCII)


@dataclass(frozen=True, slots=True)
class WitnessedLine:
    """A cosigned note, and the proof from its tree to the one of `size` entries. Nothing of it is verified."""

    note: str
    size: int
    proof: tuple[bytes, ...]

    def text(self) -> str:
        """As it is sent."""
        note, proof = (base64.b64encode(part).decode("ascii") for part in (self.note.encode(), b"".join(self.proof)))
        return f":{note}:;size={self.size};proof=:{proof}:"

    @classmethod
    def parse(cls, line: str) -> WitnessedLine:
        """Raises FormatError unless it is the one way to write it."""
        if len(line) > MAX_LINE:
            raise FormatError(f"the line has {len(line)} characters, more than {MAX_LINE}")
        found = _LINE.fullmatch(line)
        if found is None:
            raise FormatError("the line is not :NOTE:;size=SIZE;proof=:HASHES:")
        note, hashes = one_base64(found[1]), one_base64(found[3])
        if len(hashes) % 32:
            raise FormatError(f"the proof has {len(hashes)} octets, expected hashes of 32")
        try:
            text = note.decode()
        except UnicodeDecodeError:
            raise FormatError("the note is not UTF-8") from None
        return cls(text, int(found[2]), tuple(hashes[i : i + 32] for i in range(0, len(hashes), 32)))


def verify_line(line: str, bets: Iterable[Bet], peer_id: str, resolve: KeyResolver) -> str:
    """The note, once it holds that its tree is the beginning of the tree of each of the peer's verified `bets`.

    It must be signed by a key that one of them is signed with. Raises FormatError and VerificationError.
    """
    shown, bets = WitnessedLine.parse(line), tuple(bets)
    origin = peer_id.removeprefix("spiffe://")
    checkpoint = verify_checkpoint(shown.note, origin, _keys(bets, origin, resolve))
    for one in bets:
        size, root = one.ext.get("checkpoint_size"), one.ext.get("checkpoint_root")
        if type(size) is not int or not isinstance(root, str):
            raise VerificationError(f"the BET {one.jti} does not say what tree it rests on")
        if size != shown.size:
            raise VerificationError(f"the proof leads to {shown.size} entries, the BET {one.jti} rests on {size}")
        if not verify_consistency(checkpoint.size, size, shown.proof, checkpoint.root, base64url.decode(root)):
            what = f"the tree of {checkpoint.size} entries is the beginning of that of the BET {one.jti}"
            raise VerificationError(f"the proof does not show that {what}")
    return shown.note


def _keys(bets: Iterable[Bet], origin: str, resolve: KeyResolver) -> list[Verifier]:
    kids = {jws.parse_compact(one.token, typ=frozenset({bet.TYP})).kid: one for one in bets}
    try:
        return [Verifier.of(origin, resolve(kid, one.issuer, one.iat)) for kid, one in kids.items()]
    except UsageError as e:
        raise VerificationError(str(e)) from None
