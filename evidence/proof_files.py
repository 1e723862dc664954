"""Proofs as files: inclusion as a c2sp.org/tlog-proof, consistency as JSON. Each is checked before it is given out.

The `extra` line of an inclusion proof is the base64 of `{"entry":<canonical bytes verbatim>,"keys":[<JWK>, …]}`: what a
verifier needs besides the CA's certificate. Nothing of it is believed as such: the entry must have the leaf hash that
the proof proves, and each key carries a certificate of the CA.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..formats import strict_json
from ..formats.canonical import canonical
from ..formats.errors import FormatError, LedgerError, UsageError
from ..formats.signed_note import one_base64, parse_note
from .checkpoint import Checkpoint, parse_checkpoint
from .merkle import leaf_hash, verify_consistency, verify_inclusion
from .proofs import consistency_proof, inclusion_proof, tree_root
from .store import Reader

MAX_PROOF_FILE = 8 << 20
MAX_HASHES = 63
"""Of a path: a log has less than 2**53 entries."""
_MAGIC = "c2sp.org/tlog-proof@v1"
_CONSISTENCY = "consistency/1"
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Entry `index` is in the tree of the signed checkpoint `note`. `extra` is for the verifier's convenience only."""

    index: int
    path: tuple[bytes, ...]
    note: str
    extra: bytes | None

    def text(self) -> str:
        """The tlog-proof."""
        extra = [] if self.extra is None else [f"extra {_encode(self.extra)}"]
        lines = [_MAGIC, *extra, f"index {self.index}", *map(_encode, self.path)]
        return "\n".join(lines) + f"\n\n{self.note}"


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """The log at `old_size` with `old_root` is a prefix of that of the signed checkpoint `note`.

    `old_note` is the checkpoint of that size, if the log kept one.
    """

    old_size: int
    old_root: bytes
    old_note: str | None
    path: tuple[bytes, ...]
    note: str
    keys: tuple[dict[str, Any], ...]

    def text(self) -> str:
        """The JSON document, in canonical form, and a line feed."""
        old = {"size": self.old_size, "root": _encode(self.old_root)}
        value = {
            "lictor": _CONSISTENCY,
            "from": old if self.old_note is None else {**old, "checkpoint": self.old_note},
            "to": {"checkpoint": self.note},
            "proof": [_encode(part) for part in self.path],
            "keys": list(self.keys),
        }
        return canonical(value).decode() + "\n"


def prove_inclusion(reader: Reader, seq: int, at: int | None = None) -> InclusionProof:
    """Proof of entry `seq` under the signed checkpoint of size `at`.

    None: under the newest one that witnesses signed and that covers the entry, or else that of the log's end. Raises
    UsageError for an entry or a checkpoint that is not there, LedgerError if the ledger does not agree with itself.
    """
    note, checkpoint = _checkpoint(reader, at if at is not None else _newest(reader, seq))
    found = next(reader.entries(seq, seq + 1), None)
    if seq < reader.erased():
        raise UsageError(f"entry {seq} was erased: of the first {reader.erased()} entries only hashes are left")
    if found is None or seq >= checkpoint.size:
        raise UsageError(f"entry {seq} is not among the {checkpoint.size} entries under that checkpoint")
    path = inclusion_proof(reader, seq, checkpoint.size)
    if not verify_inclusion(leaf_hash(found[1]), seq, checkpoint.size, path, checkpoint.root):
        raise LedgerError(f"the ledger does not agree with its checkpoint of {checkpoint.size} entries at entry {seq}")
    extra = canonical({"entry": strict_json.loads_object(found[1]), "keys": _keys(reader)})
    return InclusionProof(seq, tuple(path), note, extra)


def prove_consistency(reader: Reader, old_size: int, size: int | None = None) -> ConsistencyProof:
    """Proof that the log only grew from `old_size` to the signed checkpoint of `size` (None: the log's end).

    Raises UsageError and LedgerError like `prove_inclusion`.
    """
    note, checkpoint = _checkpoint(reader, size if size is not None else _newest(reader, None))
    if not 0 < old_size <= checkpoint.size:
        raise UsageError(f"the earlier size must be from 1 to {checkpoint.size}, found {old_size}")
    old_root = tree_root(reader, old_size)
    path = consistency_proof(reader, old_size, checkpoint.size)
    kept = reader.checkpoint(old_size)
    if not verify_consistency(old_size, checkpoint.size, path, old_root, checkpoint.root) or (
        kept is not None and parse_checkpoint(parse_note(kept.note)).root != old_root
    ):
        raise LedgerError(f"the ledger does not agree with its checkpoints of {old_size} and {checkpoint.size} entries")
    old_note = kept.note if kept is not None else None
    return ConsistencyProof(old_size, old_root, old_note, tuple(path), note, tuple(_keys(reader)))


def _newest(reader: Reader, seq: int | None) -> int:
    cosigned = next(reader.cosigned(), None)
    if seq is not None and cosigned is not None and seq < cosigned.size:
        return cosigned.size
    head = reader.head()
    return head.size if head is not None else 0


def _checkpoint(reader: Reader, size: int) -> tuple[str, Checkpoint]:
    head, kept = reader.head(), reader.checkpoint(size)
    if kept is not None:
        note = kept.note
    elif head is not None and head.size == size:
        note = head.checkpoint
    else:
        end = head.size if head is not None else 0
        raise UsageError(
            f"no signed checkpoint of {size} entries was kept: name a size that a BET rests on or witnesses signed, "
            f"or that of the whole log ({end})"
        )
    return note, parse_checkpoint(parse_note(note))


def _keys(reader: Reader) -> list[dict[str, Any]]:
    return [strict_json.loads_object(document.data) for document in reader.documents("key")]


def parse_inclusion(text: str) -> InclusionProof:
    """A tlog-proof; of the note only that there is one was checked. Raises FormatError."""
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or lines.pop(0) != _MAGIC or not lines:
        raise FormatError(f"not a proof: the first line of a tlog-proof is {_MAGIC}, a checkpoint stands at its end")
    extra = one_base64(lines.pop(0).removeprefix("extra ")) if lines[0].startswith("extra ") else None
    name, _, index = (lines.pop(0) if lines else "").partition(" ")
    if name != "index" or not _DECIMAL.fullmatch(index):
        raise FormatError("the proof has no line 'index N'")
    return InclusionProof(int(index), _hashes(lines), note, extra)


def parse_consistency(text: str) -> ConsistencyProof:
    """A consistency proof in JSON; nothing of it is verified. Raises FormatError."""
    value = strict_json.loads_object(text.encode())
    if value.get("lictor") != _CONSISTENCY or value.keys() != {"lictor", "from", "to", "proof", "keys"}:
        raise FormatError(f"not a consistency proof of the form {_CONSISTENCY!r}")
    old, new, path, keys = value["from"], value["to"], value["proof"], value["keys"]
    if not isinstance(old, dict) or not {"size", "root"} <= old.keys() <= {"size", "root", "checkpoint"}:
        raise FormatError("'from' must hold size, root and perhaps checkpoint")
    if type(old["size"]) is not int or not 0 < old["size"] < 2**53:
        raise FormatError(f"'from.size' is {old['size']!r}, expected a size of 1 or more")
    if not isinstance(new, dict) or new.keys() != {"checkpoint"} or not isinstance(path, list):
        raise FormatError("'to' must hold a checkpoint and 'proof' a list")
    old_note = old.get("checkpoint")
    if not all(isinstance(note, str) for note in (new["checkpoint"], "" if old_note is None else old_note)):
        raise FormatError("a checkpoint must be text")
    root = _hashes([old["root"]])[0]
    return ConsistencyProof(old["size"], root, old_note, _hashes(path), new["checkpoint"], parse_keys(keys))


def parse_extra(extra: bytes) -> tuple[bytes, tuple[dict[str, Any], ...]]:
    """The canonical bytes of the entry, and the keys, of an `extra` line. Raises FormatError."""
    value = strict_json.loads_object(extra)
    if value.keys() != {"entry", "keys"} or not isinstance(value["entry"], dict):
        raise FormatError("the extra line holds something else than an entry and keys")
    return canonical(value["entry"]), parse_keys(value["keys"])


def parse_keys(value: Any) -> tuple[dict[str, Any], ...]:
    """A list of JWKs, nothing of them verified. Raises FormatError."""
    if not isinstance(value, list) or not all(isinstance(key, dict) for key in value):
        raise FormatError("'keys' must be a list of JWKs")
    return tuple(value)


def _hashes(lines: Iterable[Any]) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for line in lines:
        if not isinstance(line, str) or len(raw := one_base64(line)) != 32 or len(found) == MAX_HASHES:
            raise FormatError(f"not a list of at most {MAX_HASHES} hashes of 32 octets in base64")
        found.append(raw)
    return tuple(found)


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
