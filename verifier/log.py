"""Verification of a whole log, from an evidence file or from the ledger itself, with one CA certificate as its root.

What is checked: each line and each entry is in its one canonical form; `seq` has no gap and time only rises; the keys
lead to the CA; the Merkle root is the signed checkpoint's; every BET is signed, follows the one before it, and says of
its window what the entries say. A line is read at a time; of the entries nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from ..certs.evidence_keys import EvidenceKeys
from ..evidence import ect
from ..evidence.checkpoint import Checkpoint, Verifier, verify_checkpoint
from ..evidence.entry import DESCRIPTION, RETENTION
from ..evidence.export import (
    CosignedLine,
    Document,
    End,
    EntryLine,
    ErasedLine,
    Header,
    Record,
    TokenLine,
    Truncated,
    export_lines,
    open_lines,
    read_records,
)
from ..evidence.merkle import CompactTree, leaf_hash
from ..evidence.sqlite_store import SqliteReader
from ..formats import base64url, jws
from ..formats.canonical import canonical
from ..formats.cosignature import CheckpointPolicy
from ..formats.errors import FormatError, VerificationError
from .described import DescribedCheck
from .report import ErasedUnder, Found, LogReport, Problem, Verdict
from .window_check import WindowCheck
from .witnessed import WitnessCheck

_SQLITE = b"SQLite format 3\x00"
_OF_ITSELF = (RETENTION, DESCRIPTION)
TOLD_EVERY = 4096
"""Lines after which `progress` is told how far the verification is."""
Progress = Callable[[int, int], object]
"""Is told how many entries were verified, of how many that the file says it holds."""


def verify_log(
    path: Path, ca_pem: bytes, policy: CheckpointPolicy | None = None, progress: Progress | None = None
) -> LogReport:
    """Verify an evidence file or a ledger, which may be in use. Raises UsageError if it cannot be read at all.

    With a `policy` every entry must be under a checkpoint that satisfies it, or the log is a prefix only. `progress` is
    told now and then.
    """
    if is_ledger(path):
        with closing(SqliteReader(path)) as reader, closing(export_lines(reader)) as exported:
            return verify_lines(exported, ca_pem, policy, progress)
    with open_lines(path) as lines:
        return verify_lines(lines, ca_pem, policy, progress)


def is_ledger(path: Path) -> bool:
    """Whether `path` is an SQLite file. Raises UsageError if it cannot be read."""
    with open_lines(path) as lines:
        return next(lines, b"").startswith(_SQLITE)


def verify_lines(
    lines: Iterable[bytes],
    ca_pem: bytes,
    policy: CheckpointPolicy | None = None,
    progress: Progress | None = None,
) -> LogReport:
    """Verify the lines of an evidence file. The report is never an exception, except for a CA that is none."""
    check = _LogCheck(EvidenceKeys(ca_pem), policy)
    try:
        for line, record in read_records(lines):
            try:
                check.take(record)
                if progress is not None and not line % TOLD_EVERY:
                    progress(check.tree.size, check.declared)
            except FormatError as e:
                raise Found.bad(f"line {line}: {e}") from None
            except VerificationError as e:
                raise e if isinstance(e, Found) else Found.bad(f"line {line}: {e}") from None
    except Truncated as e:
        return check.prefix(str(e))
    except Found as e:
        return check.report(e.verdict, e.problem)
    except FormatError as e:
        return check.report("bad", Problem(str(e), seq=check.tree.size if check.in_entries else None))
    return check.report("intact", None)


class _LogCheck:
    def __init__(self, keys: EvidenceKeys, policy: CheckpointPolicy | None) -> None:
        self.tree = CompactTree()
        self.in_entries = False
        self._keys = keys
        self._verifiers: list[Verifier] = []
        self._header = Header("", "", 0, 0)
        self._checkpoint: Checkpoint | None = None
        self._windows = WindowCheck("", self._keys.resolve)
        self._witnesses = WitnessCheck(policy)
        self._described = DescribedCheck()
        self._time = 0.0
        self._rules: dict[str, ErasedUnder] = {}
        self._proved = self._ects = self._foreign = self._beyond = 0

    @property
    def declared(self) -> int:
        """How many entries the file says it holds."""
        return self._header.count

    def take(self, record: Record) -> None:
        """The next record. Raises Found, FormatError and VerificationError."""
        if type(record) is EntryLine:
            self._entry(record.data, record.leaf)
            return
        match record:
            case ErasedLine():
                self._erased(record)
            case CosignedLine(note):
                self._witnesses.add(note, self._header.origin, self._verifiers, self._header.count)
            case TokenLine("bet", token):
                self._windows.add_bet(token, self._header.count)
            case TokenLine(_, token):
                self._ect(token)
            case Document("key", value):
                self._key(value)
            case Document(_, value):
                self._windows.add_binding(value)
            case Header():
                self._header = record
                self._windows = WindowCheck(record.origin, self._keys.resolve)
            case End():
                self._end(record)

    def _key(self, jwk: dict[str, Any]) -> None:
        kid = self._keys.add_jwk(jwk)
        iss = str(jwk["iss"])
        if iss.removeprefix("spiffe://") != self._header.origin or jwk["crv"] != "Ed25519":
            raise Found.bad("a key is not of the monitor of this log", f"Ed25519 of {self._header.origin}", iss)
        self._verifiers.append(Verifier.of(self._header.origin, self._keys.resolve(kid, iss)))

    def _ect(self, token: str) -> None:
        """Nodes that this log's monitor minted must be signed; those it received are for the chain's verifier."""
        claims = jws.parse_compact(token, typ=ect.ACCEPTED_TYP).claims()
        if str(claims.get("iss")).removeprefix("spiffe://") == self._header.origin:
            ect.verify(token, self._keys.resolve)
            self._ects += 1
        else:
            self._foreign += 1

    def _signed_checkpoint(self) -> Checkpoint:
        """The header's checkpoint, once all keys were read."""
        if self._checkpoint is None:
            header = self._header
            try:
                self._checkpoint = verify_checkpoint(header.checkpoint, header.origin, self._verifiers)
            except (FormatError, VerificationError) as e:
                raise Found.bad(f"the signed checkpoint cannot be relied on: {e}") from None
            if self._checkpoint.size != header.count:
                raise Found.prefix("the file does not hold what was signed", self._checkpoint.size, header.count)
        return self._checkpoint

    def _entry(self, data: bytes, said: bytes) -> None:
        """The next entry, of which the file says that `said` is its leaf hash."""
        if not self.in_entries:
            self._signed_checkpoint()
            self.in_entries = True
        expected = self.tree.size
        leaf = leaf_hash(data)
        if leaf != said:
            encoded = base64url.encode(said), base64url.encode(leaf)
            raise Found.bad("an entry was altered: its hash is not its leaf hash", *encoded, seq=expected)
        entry = _parse(data, expected)
        self._check_order(entry, expected)
        try:
            self._windows.entry(expected, entry["timestamp"], data, entry)
            if entry.get("action_type") in _OF_ITSELF and entry["agent_id"] == f"spiffe://{self._header.origin}":
                self._announced(entry) if entry["action_type"] == RETENTION else self._described.entry(entry)
        except (KeyError, TypeError, AttributeError) as e:
            raise Found.bad("an entry lacks what entries have", "agent_id, behaviors, …", repr(e), expected) from None
        self._append(leaf)

    def _append(self, leaf: bytes) -> None:
        tree, windows = self.tree, self._windows
        tree.append(leaf)
        self._witnesses.reached(tree)
        if windows.wants_root(tree.size):
            self._described.bets(windows.resting_on(tree.size))
            windows.root(tree.size, tree.root(), self._proved)
            self._proved = tree.size

    def _erased(self, record: ErasedLine) -> None:
        """Nothing can be said of the entry itself, but the tree is the one that was signed, or is not."""
        self._signed_checkpoint()
        self.in_entries = True
        if record.seq != self.tree.size:
            raise Found.bad("an erased entry stands where another belongs", f"seq {self.tree.size}", f"{record.seq}")
        self._described.erased = True
        self._append(record.leaf)
        self._windows.erased = self.tree.size

    def _announced(self, entry: dict[str, Any]) -> None:
        said = entry["action_parameters"]
        end, rule = said.get("erased_before_seq"), said.get("rule")
        if type(end) is not int or not 0 < end <= entry["seq"] or not isinstance(rule, str):
            raise Found.bad("an announcement of an erasure cannot be read", "a seq and a rule", str(said), entry["seq"])
        self._rules[rule] = ErasedUnder(rule, end, entry["seq"], entry["timestamp"])

    def _check_erased(self) -> None:
        """Whoever erases says so in the log before."""
        erased = self._windows.erased
        if erased and not any(one.end >= erased for one in self._rules.values()):
            what, found = "entries are erased and no entry announces that", f"entries 0 to {erased - 1} erased"
            raise Found.gap(what, "an announcement by the monitor", found, 0)

    def _check_order(self, entry: dict[str, Any], expected: int) -> None:
        seq, timestamp = entry.get("seq"), entry.get("timestamp")
        if type(seq) is not int or type(timestamp) not in (int, float) or timestamp is None:
            raise Found.bad("an entry has no seq or no timestamp", "numbers", f"{seq!r}, {timestamp!r}", expected)
        if seq > expected:
            missing = f"entry {expected} is" if seq == expected + 1 else f"entries {expected} to {seq - 1} are"
            raise Found.gap(f"{missing} missing", f"seq {expected}", f"seq {seq}", expected)
        if seq < expected:
            raise Found.bad("an entry stands where another belongs", f"seq {expected}", f"seq {seq}", expected)
        if timestamp <= self._time:
            what = "an entry is not later than the one before it"
            raise Found.bad(what, f"a timestamp after {self._time}", str(timestamp), expected)
        self._time = timestamp

    def _end(self, record: End) -> None:
        signed, size = self._signed_checkpoint(), self.tree.size
        if (record.count, record.checkpoint) != (self._header.count, self._header.checkpoint):
            expected, found = f"{self._header.count} entries", f"{record.count} entries"
            raise Found.bad("the end line is not of the same checkpoint as the first line", expected, found)
        if size < signed.size:
            raise Found.prefix("entries are missing at the end", signed.size, size)
        if size > signed.size:
            expected, found = f"{signed.size} entries", f"{size} entries"
            raise Found.bad("entries were added after the signed checkpoint", expected, found, signed.size)
        self._windows.finish(size)
        self._check_erased()
        if signed.root != self.tree.root():
            what = f"one of the entries {self._proved} to {size - 1} is not what the signed checkpoint covers"
            raise Found.bad(what, f"root {signed.root.hex()}", self.tree.root().hex(), self._proved)
        self._proved = size
        self._witnesses.finish(size)

    def prefix(self, how: str) -> LogReport:
        """The file was cut off: what is there is checked as far as it goes."""
        try:
            self._beyond = self._windows.finish(self.tree.size)
        except Found as e:
            return self.report(e.verdict, e.problem)
        size = self.tree.size
        held = f"entries 0 to {size - 1} of {self._header.count}" if size else f"no entry of {self._header.count}"
        return self.report("prefix_only", Problem(how, f"{self._header.count} entries and an end line", held, size))

    def report(self, verdict: Verdict, problem: Problem | None) -> LogReport:
        return LogReport(
            verdict=verdict,
            origin=self._header.origin,
            entries=self.tree.size,
            declared=self.declared,
            proved=self._proved,
            root=self.tree.root().hex(),
            bets=self._windows.checked,
            bets_beyond=self._beyond,
            ects=self._ects,
            ects_foreign=self._foreign,
            uncovered=self._windows.uncovered,
            problem=problem,
            witnessed=self._witnesses.witnessed,
            witnesses=self._witnesses.witnesses,
            erased=self._windows.erased,
            erased_under=tuple(self._rules.values()) if self._windows.erased else (),
            bets_erased=self._windows.unknowable,
            descriptions=self._described.count,
            described=self._described.newest,
        )


def _parse(data: bytes, seq: int) -> dict[str, Any]:
    """The entry, if its bytes are the canonical form of what they say; then no second reading of them is possible."""
    try:
        entry = orjson.loads(data)
        same = canonical(entry) == data
    except (orjson.JSONDecodeError, FormatError) as e:
        raise Found.bad("an entry cannot be read", "canonical JSON", str(e), seq) from None
    if not same or not isinstance(entry, dict):
        raise Found.bad("an entry is not in canonical form", "a JSON object by RFC 8785", repr(data[:60]), seq)
    return entry
