"""What verifying a log concludes: a verdict, what was checked, and the first thing that does not hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..evidence.description import Description
from ..formats.errors import VerificationError

Verdict = Literal["intact", "prefix_only", "gap", "bad"]
EXIT_CODES: dict[Verdict, int] = {"intact": 0, "bad": 1, "prefix_only": 3, "gap": 3}


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold, what was expected and found (empty if `what` says it), at which entry if that is known."""

    what: str
    expected: str = ""
    found: str = ""
    seq: int | None = None

    def __str__(self) -> str:
        place = "" if self.seq is None else f" (at seq {self.seq})"
        compared = f": expected {self.expected}, found {self.found}" if self.expected else ""
        return f"{self.what}{compared}{place}"


@dataclass(frozen=True, slots=True)
class ErasedUnder:
    """The last announcement under one rule: entry `seq` of the time `timestamp` says that all before `end` go."""

    rule: str
    end: int
    seq: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class LogReport:
    """The conclusion about one log.

    intact: everything holds and the signed checkpoint covers it. prefix_only: what is there holds, its end is not
    there. gap: something in the middle is not there. bad: something is not what was signed.
    `entries` were read and hold; `declared` is what the file's first line says. `proved` is how many of them a signed
    root covers: the checkpoint's, or in a prefix that of a BET. `uncovered` entries are under no BET of the file (yet).
    `witnessed` entries are under a checkpoint that `witnesses` signed, as many as were asked for.
    Of the first `erased` entries, which are counted in `entries`, only the leaf hashes are left; `erased_under` says by
    what rules, and `bets_erased` BETs over them are signed and in sequence, but cannot be computed again.
    The monitor described itself `descriptions` times in these entries, the last time as `described`.
    """

    verdict: Verdict
    origin: str
    entries: int
    declared: int
    proved: int
    root: str
    bets: int
    bets_beyond: int
    ects: int
    ects_foreign: int
    uncovered: int
    problem: Problem | None
    witnessed: int = 0
    witnesses: tuple[str, ...] = ()
    erased: int = 0
    erased_under: tuple[ErasedUnder, ...] = ()
    bets_erased: int = 0
    descriptions: int = 0
    described: Description | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Found(VerificationError):
    """Ends the verification of a log with a verdict."""

    def __init__(self, verdict: Verdict, problem: Problem) -> None:
        super().__init__(str(problem))
        self.verdict = verdict
        self.problem = problem

    @classmethod
    def bad(cls, what: str, expected: str = "", found: str = "", seq: int | None = None) -> Found:
        return cls("bad", Problem(what, expected, found, seq))

    @classmethod
    def gap(cls, what: str, expected: str, found: str, seq: int | None = None) -> Found:
        return cls("gap", Problem(what, expected, found, seq))

    @classmethod
    def prefix(cls, what: str, expected: int, found: int) -> Found:
        return cls("prefix_only", Problem(what, f"{expected} entries", f"{found} entries", found))
