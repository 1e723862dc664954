"""Verification of single BETs, offline: where a token and the keys come from, and what is checked of it."""

from __future__ import annotations

import os.path
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..certs.evidence_keys import EvidenceKeys, evidence_jwk
from ..evidence import bet
from ..evidence.bet import Bet
from ..evidence.export import (
    Document,
    EntryLine,
    ErasedLine,
    Record,
    TokenLine,
    Truncated,
    export_lines,
    open_lines,
    read_records,
)
from ..evidence.sqlite_store import SqliteReader
from ..formats import jws, strict_json
from ..formats.errors import FormatError, UsageError, VerificationError
from .log import is_ledger

MAX_INPUT = 16 << 20
_TOKEN = re.compile(r"[A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]*\.[A-Za-z0-9_=-]*", re.ASCII)
_HEADER = re.compile(rf"(?im)^[<>\s]*{bet.HEADER}\s*:(.*)$")


@dataclass(frozen=True, slots=True)
class BetReport:
    """The conclusion about one token: `bet` if it holds, else `problem` says why not."""

    token: str
    bet: Bet | None
    problem: str | None

    @property
    def ok(self) -> bool:
        return self.problem is None

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "problem": self.problem, **(bet_json(self.bet) if self.bet else {"token": self.token})}


def verify_bet(token: str, keys: EvidenceKeys, *, audience: Iterable[str] | None, now: float | None) -> BetReport:
    """Signature, key, claims, audience (None: any) and time (None: not judged by the clock)."""
    try:
        return BetReport(token, bet.verify(token, keys.resolve, now=now, audience=audience), None)
    except (VerificationError, FormatError) as e:
        return BetReport(token, None, str(e))


def parse_bet(token: str) -> Bet:
    """The BET as it says itself, nothing verified. Raises VerificationError, FormatError."""
    return bet.parse(jws.parse_compact(token, typ=frozenset({bet.TYP})).claims(), token)


def bet_json(one: Bet) -> dict[str, Any]:
    """A BET for `--json`."""
    return {
        "jti": one.jti,
        "issuer": one.issuer,
        "agent": one.subject,
        "audience": list(one.audience),
        "policy": one.policy,
        "result": one.result,
        "window": {"start": one.start, "end": one.end},
        "evidence": one.evidence,
        "details": list(one.details),
        "wid": one.wid,
        "parents": list(one.parents),
        "iat": one.iat,
        "exp": one.exp,
        "ext": dict(one.ext),
    }


def find_tokens(source: str) -> list[str]:
    """The tokens of `source`: a token, a `Behavioral-Evidence: …` line, `-` for standard input, or a file.

    A file (or what comes in) is an evidence file, a ledger, or text with tokens: as header lines (curl -i, -v), else
    one a line. Raises UsageError if there is no token in it.
    """
    if _TOKEN.fullmatch(source.strip()):
        return [source.strip()]
    if _HEADER.match(source):
        return _of_text(source, "the header line")
    if source == "-":
        return _of_text(sys.stdin.read(MAX_INPUT), "standard input")
    path = Path(source)
    if not os.path.isfile(path):
        raise UsageError(f"{source[:80]!r} is neither a token, nor a Behavioral-Evidence line, nor a file")
    if holds_evidence(path):
        return [one.token for one in before_entries(path) if isinstance(one, TokenLine) and one.kind == "bet"]
    return _of_text(path.read_text("utf-8", "replace")[:MAX_INPUT], source)


def _of_text(text: str, source: str) -> list[str]:
    found = _HEADER.findall(text)
    lines = found if found else text.splitlines()
    tokens = [token for line in lines for part in line.split(",") if _TOKEN.fullmatch(token := part.strip())]
    if not tokens:
        raise UsageError(f"there is no token in {source}")
    return tokens


def holds_evidence(path: Path) -> bool:
    """Whether `path` is a ledger or an evidence file. Raises UsageError if it cannot be read."""
    if is_ledger(path):
        return True
    with open_lines(path) as lines:
        return b'"lictor":"evidence/' in next(lines, b"")


def before_entries(path: Path) -> Iterator[Record]:
    """The records of an evidence file or a ledger before its entries, of one that was cut off those that are there.

    Raises UsageError, FormatError.
    """
    if is_ledger(path):
        with closing(SqliteReader(path)) as reader, closing(export_lines(reader)) as exported:
            yield from _before_entries(exported)
    else:
        with open_lines(path) as lines:
            yield from _before_entries(lines)


def _before_entries(lines: Iterable[bytes]) -> Iterator[Record]:
    with suppress(Truncated):
        for _, record in read_records(lines):
            if isinstance(record, EntryLine | ErasedLine):
                return
            yield record


def take_keys(keys: EvidenceKeys, path: Path) -> None:
    """Take in the keys of a file: an evidence file or ledger, an evidence certificate (PEM), a JWK or a JWK set.

    Raises UsageError if it is none of them, VerificationError if the CA does not vouch for one.
    """
    try:
        for jwk in _jwks(path):
            keys.add_jwk(jwk)
    except (FormatError, OSError) as e:
        raise UsageError(f"{path} holds no evidence key that can be read: {e}") from None


def _jwks(path: Path) -> list[dict[str, Any]]:
    if holds_evidence(path):
        return [one.value for one in before_entries(path) if isinstance(one, Document) and one.kind == "key"]
    data = path.read_bytes()
    if b"-----BEGIN CERTIFICATE-----" in data:
        return [evidence_jwk(data)]
    value = strict_json.loads_object(data)
    members = value.get("keys", [value])
    if not isinstance(members, list) or not all(isinstance(jwk, dict) for jwk in members):
        raise FormatError("'keys' is not an array of JWKs")
    return members
