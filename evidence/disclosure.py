"""Selective disclosure: one entry with the proof that it is in the log, and what else its owner chooses to show.

The file is JSON: `{"lictor":"disclosure/1","proof":<C2SP tlog-proof with entry and keys>,"fields":[<disclosure>, …]}`
and, where a BET is shown too, `"bet":<token>`; the proof is then under the checkpoint that this BET rests on. Of the
other entries it holds nothing but hashes, of the entry's private values those that were named and of the others their
salted digests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..formats import jws, strict_json
from ..formats.canonical import canonical
from ..formats.errors import FormatError, UsageError
from . import bet as bets
from .bet import Bet
from .proof_files import prove_inclusion
from .salted import open_disclosure
from .store import Reader

MAX_FIELDS = 1024
_FORMAT = "disclosure/1"


@dataclass(frozen=True, slots=True)
class Disclosure:
    """The parts of the file; nothing of them is verified."""

    proof: str
    fields: tuple[str, ...]
    bet: str | None

    def text(self) -> str:
        """The JSON document, in canonical form, and a line feed."""
        shown: dict[str, Any] = {"lictor": _FORMAT, "proof": self.proof, "fields": list(self.fields)}
        return canonical(shown if self.bet is None else {**shown, "bet": self.bet}).decode() + "\n"


def disclose(reader: Reader, seq: int, names: Iterable[str] = (), jti: str | None = None) -> Disclosure:
    """Entry `seq` with the kept values of these names, in the window of the BET `jti` if one is named.

    Without a BET the proof is under the newest checkpoint (see `prove_inclusion`). Raises UsageError for an entry, a
    name or a BET that is not there, or a BET whose window does not hold the entry.
    """
    token, at = None, None
    if jti is not None:
        one = _find_bet(reader, jti)
        token, at = one.token, one.ext["checkpoint_size"]
    proof = prove_inclusion(reader, seq, at)
    if jti is not None:
        problem = outside(one, next(strict_json.loads_object(data) for _, data in reader.entries(seq, seq + 1)))
        if problem is not None:
            raise UsageError(f"entry {seq} is not in the window of the BET {jti}: {problem}")
    return Disclosure(proof.text(), tuple(_fields(reader, seq, names)), token)


def outside(one: Bet, entry: dict[str, Any]) -> str | None:
    """Why an entry is not in the window of a BET of its log; None if it is."""
    first, size = one.ext.get("first_seq"), one.ext.get("checkpoint_size")
    seq, timestamp = entry["seq"], entry["timestamp"]
    if entry["agent_id"] != one.subject:
        return f"the entry is of {entry['agent_id']}, the BET of {one.subject}"
    if type(first) is not int or type(size) is not int or not first <= seq < size:
        return f"the entry has seq {seq}, the window lies from {first} to before {size}"
    if not one.start <= timestamp < one.end:
        return f"the entry is of {timestamp:f}, the window from {one.start:f} to before {one.end:f}"
    return None


def covering(reader: Reader, seq: int) -> list[str]:
    """The jti of every BET in whose window entry `seq` is, oldest first; one of each policy, or none yet."""
    found = next(reader.entries(seq, seq + 1), None)
    if found is None:
        return []
    entry = strict_json.loads_object(found[1])
    rows = reader.bets(entry["agent_id"])
    return [row.jti for row in rows if row.first_seq <= seq and row.start <= entry["timestamp"] < row.end]


def _find_bet(reader: Reader, jti: str) -> Bet:
    token = next((row.token for row in reader.bets() if row.jti == jti), None)
    if token is None:
        raise UsageError(f"there is no BET {jti} in this log")
    return bets.parse(jws.parse_compact(token, typ=frozenset({bets.TYP})).claims(), token)


def _fields(reader: Reader, seq: int, names: Iterable[str]) -> list[str]:
    kept = {open_disclosure(text).name: text for text in reader.disclosures(seq)}
    found = []
    for name in names:
        if name not in kept:
            raise UsageError(f"entry {seq} keeps no value {name} (kept: {', '.join(sorted(kept)) or 'none'})")
        found.append(kept[name])
    return found


def parse_disclosure(text: str) -> Disclosure:
    """The parts of a disclosure file. Raises FormatError."""
    value = strict_json.loads_object(text.encode())
    if value.get("lictor") != _FORMAT or not {"lictor", "proof", "fields"} <= value.keys() <= {
        "lictor",
        "proof",
        "fields",
        "bet",
    }:
        raise FormatError(f"not a disclosure of the form {_FORMAT!r}")
    proof, fields, token = value["proof"], value["fields"], value.get("bet")
    if not isinstance(proof, str) or not isinstance(token, str | None):
        raise FormatError("'proof' and 'bet' must be text")
    if not isinstance(fields, list) or len(fields) > MAX_FIELDS or not all(isinstance(one, str) for one in fields):
        raise FormatError(f"'fields' must be a list of at most {MAX_FIELDS} disclosures")
    return Disclosure(proof, tuple(fields), token)
