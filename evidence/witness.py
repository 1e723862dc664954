"""A witness for the logs of others (c2sp.org/tlog-witness): signs a checkpoint only if it continues the last.

The looking and the storing are one transaction, and what is stored is on disk before the answer is given, so two
requests at once, or a crash, cannot make it sign two histories. It knows logs by their keys and trusts the first
checkpoint that it sees of each.
"""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..formats.errors import FormatError, LedgerError, UsageError, VerificationError
from ..formats.signed_note import Note, one_base64, parse_note
from .checkpoint import Checkpoint, Verifier, parse_checkpoint, verify_note
from .cosignature import Cosigner
from .merkle import EMPTY_ROOT, verify_consistency

MAX_REQUEST = 128 * 1024
MAX_PROOF = 63
MAX_KEPT = 1000
"""Refused checkpoints that are kept of each log, the first ones: each is signed by the log and proves what it did."""
SIZE_TYPE = "text/x.tlog.size"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,15})", re.ASCII)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS logs (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refused (
    origin TEXT NOT NULL, note TEXT NOT NULL, held_size INTEGER NOT NULL, held_note TEXT NOT NULL, why TEXT NOT NULL,
    time INTEGER NOT NULL, PRIMARY KEY (origin, note));
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: str
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The body of `add-checkpoint`."""

    old_size: int
    proof: tuple[bytes, ...]
    note: str

    def text(self) -> str:
        """As it is sent."""
        lines = [f"old {self.old_size}", *(base64.b64encode(part).decode("ascii") for part in self.proof)]
        return "\n".join(lines) + f"\n\n{self.note}"

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Raises FormatError."""
        try:
            head, separator, note = body.decode().partition("\n\n")
        except UnicodeDecodeError:
            raise FormatError("the request is not UTF-8") from None
        first, *lines = head.split("\n")
        old = _OLD.fullmatch(first)
        if not separator or old is None:
            raise FormatError("the request is not `old SIZE`, hashes, an empty line and a checkpoint")
        proof = tuple(one_base64(line) for line in lines)
        if len(proof) > MAX_PROOF or any(len(part) != 32 for part in proof):
            raise FormatError(f"the proof is not a list of at most {MAX_PROOF} hashes of 32 octets")
        return cls(int(old[1]), proof, note)


class WitnessState:
    """The last checkpoint that was signed of each log, in an SQLite file."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if the file cannot be used."""
        self.path = path
        try:
            path.touch(0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as e:
            raise UsageError(f"the witness's state {path} cannot be used: {e}") from None

    def change(self, origin: str, judge: Callable[[int, bytes, str], Checkpoint], note: str) -> None:
        """Ask `judge` with what is held (size, root, note) and store what it returns, in one transaction, durably.

        What `judge` raises ends the transaction without a change. Raises LedgerError if the file cannot be written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                row = self._db.execute("SELECT size, root, note FROM logs WHERE origin = ?", (origin,)).fetchone()
                found = judge(*(row or (0, EMPTY_ROOT, "")))
                new = (origin, found.size, found.root, note)
                self._db.execute("INSERT OR REPLACE INTO logs VALUES (?, ?, ?, ?)", new)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            raise LedgerError(f"the witness's state {self.path} cannot be written: {e}") from None

    def keep_refused(self, origin: str, note: str, held: tuple[int, str], why: str, seconds: int) -> None:
        """Keep a signed checkpoint that contradicts what is held. Raises LedgerError."""
        try:
            count = self._db.execute("SELECT count(*) FROM refused WHERE origin = ?", (origin,)).fetchone()[0]
            if count < MAX_KEPT:
                row = (origin, note, *held, why, seconds)
                self._db.execute("INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as e:
            raise LedgerError(f"the witness's state {self.path} cannot be written: {e}") from None

    def refused(self, origin: str) -> list[tuple[str, str, str]]:
        """(note, the note that was held, why) of the checkpoints refused of a log."""
        return self._db.execute(
            "SELECT note, held_note, why FROM refused WHERE origin = ? ORDER BY time", (origin,)
        ).fetchall()

    def close(self) -> None:
        self._db.close()


class _Refusal(Exception):
    def __init__(self, answer: Answer, held: tuple[int, str] | None = None) -> None:
        super().__init__(answer.body)
        self.answer = answer
        self.held = held


class WitnessDesk:
    """Answers `add-checkpoint`, sans-socket."""

    def __init__(
        self,
        cosigner: Cosigner,
        logs: Mapping[str, tuple[Verifier, ...]],
        state: WitnessState,
        now: Callable[[], float],
    ) -> None:
        """`logs`: the keys of each log by its origin. `now`: POSIX seconds."""
        self._cosigner = cosigner
        self._logs = logs
        self._state = state
        self._now = now

    def add_checkpoint(self, body: bytes) -> Answer:
        """The answer to a request. Raises LedgerError if the state cannot be written; then nothing was signed."""
        try:
            request = AddCheckpoint.parse(body)
            origin = parse_checkpoint(parse_note(request.note)).origin
            if origin not in self._logs:
                return Answer(404, f"the log {origin!r} is not known here\n")
            note = verify_note(request.note, self._logs[origin])
            checkpoint = parse_checkpoint(note)
        except FormatError as e:
            return Answer(400, f"{e}\n")
        except VerificationError as e:
            return Answer(403, f"{e}\n")
        if request.old_size > checkpoint.size:
            return Answer(400, f"the old size {request.old_size} is larger than the checkpoint's, {checkpoint.size}\n")
        return self._answer(request, note, checkpoint)

    def _answer(self, request: AddCheckpoint, note: Note, checkpoint: Checkpoint) -> Answer:
        def judge(size: int, root: bytes, held: str) -> Checkpoint:
            _judge(request, checkpoint, size, root, held)
            return checkpoint

        try:
            self._state.change(checkpoint.origin, judge, request.note)
        except _Refusal as e:
            if e.held is not None:
                self._state.keep_refused(checkpoint.origin, request.note, e.held, str(e).strip(), int(self._now()))
            return e.answer
        return Answer(200, self._cosigner.sign(note.text, int(self._now())))


def _judge(request: AddCheckpoint, new: Checkpoint, size: int, root: bytes, held: str) -> None:
    """Raises _Refusal unless `new` continues what is held."""
    if request.old_size != size:
        raise _Refusal(Answer(409, f"{size}\n", SIZE_TYPE))
    kept = (size, held)
    if new.size == size:
        if new.root != root:
            said = f"another tree of {size} entries of {new.origin} was signed here before\n"
            raise _Refusal(Answer(422, said), kept)
        good = not request.proof
    elif size == 0:
        good = not request.proof
    else:
        good = verify_consistency(size, new.size, request.proof, root, new.root)
    if not good:
        text = f"the proof does not show that the tree of {new.size} entries of {new.origin} continues that of {size}\n"
        raise _Refusal(Answer(422, text), kept)
