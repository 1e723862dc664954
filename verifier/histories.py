"""Whether all that was handed over of one log is of one history: evidence files, and BETs that rest on its trees.

A log that shows two people two histories contradicts itself nowhere in what each of them has. Together they have two
signed trees of which neither is the beginning of the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from ..evidence.bet import Bet
from ..evidence.export import EntryLine, ErasedLine, export_lines, open_lines, read_records
from ..evidence.merkle import CompactTree
from ..evidence.sqlite_store import SqliteReader
from ..formats import base64url
from ..formats.errors import FormatError
from .log import is_ledger
from .report import LogReport, Problem, Verdict


@dataclass(slots=True)
class _File:
    """What a file has of a log: `proved` entries under a signed root, and roots by the number of entries below."""

    name: str
    path: Path
    proved: int
    roots: dict[int, bytes] = field(default_factory=dict)


def check_histories(
    files: Mapping[str, tuple[Path, LogReport]], bets: Iterable[Bet] = ()
) -> list[tuple[Verdict, Problem]]:
    """What contradicts what, of files that were verified (by name) and of verified BETs about any log.

    Of a file only what a signed root covers counts. A BET that rests on more than the files of its log have is a
    prefix. Raises UsageError and LedgerError if a file cannot be read any more.
    """
    logs: defaultdict[str, list[_File]] = defaultdict(list)
    for name, (path, report) in files.items():
        if report.proved:
            logs[report.origin].append(_File(name, path, report.proved))
    resting: defaultdict[str, list[Bet]] = defaultdict(list)
    for one in bets:
        resting[one.issuer.removeprefix("spiffe://")].append(one)
    return [found for origin, of in logs.items() for found in _check(origin, of, resting[origin])]


def _check(origin: str, files: list[_File], bets: list[Bet]) -> Iterator[tuple[Verdict, Problem]]:
    if len(files) + len(bets) < 2:
        return
    sizes = {*(one.proved for one in files), *(_size(one) for one in bets)}
    for file in files:
        file.roots = _roots(file.path, {size for size in sizes if 0 < size <= file.proved})
    for one, other in combinations(files, 2):
        size = min(one.proved, other.proved)
        if one.roots.get(size) != other.roots.get(size):
            what = (
                f"the log {origin} has two histories: {one.name} and {other.name} differ in their first {size} entries"
            )
            yield "bad", Problem(what, _hex(one.roots.get(size)), _hex(other.roots.get(size)))
    for bet in bets:
        yield from _rests(bet, files)


def _rests(one: Bet, files: list[_File]) -> Iterator[tuple[Verdict, Problem]]:
    size, root = _size(one), str(one.ext.get("checkpoint_root"))
    if not size:
        return
    for file in files:
        if size in file.roots and base64url.encode(file.roots[size]) != root:
            what = f"BET {one.jti} rests on {size} other entries than {file.name} has"
            yield "bad", Problem(what, f"root {root}", base64url.encode(file.roots[size]))
    most = max(file.proved for file in files)
    if most < size:
        what = f"BET {one.jti} rests on entries that are not in {', '.join(file.name for file in files)}"
        yield "prefix_only", Problem(what, f"{size} entries", f"{most} entries", most)


def _size(one: Bet) -> int:
    """0 where the BET does not say what it rests on."""
    size = one.ext.get("checkpoint_size")
    return size if type(size) is int and isinstance(one.ext.get("checkpoint_root"), str) else 0


def _hex(root: bytes | None) -> str:
    return f"root {root.hex()}" if root is not None else "no such tree"


def _roots(path: Path, sizes: set[int]) -> dict[int, bytes]:
    """The roots over so many of the first entries, as far as the file goes."""
    if is_ledger(path):
        with closing(SqliteReader(path)) as reader, closing(export_lines(reader)) as exported:
            return _roots_of(exported, sizes)
    with open_lines(path) as lines:
        return _roots_of(lines, sizes)


def _roots_of(lines: Iterable[bytes], sizes: set[int]) -> dict[int, bytes]:
    tree, roots, last = CompactTree(), dict[int, bytes](), max(sizes, default=0)
    try:
        for _, record in read_records(lines):
            if tree.size >= last:
                break
            if isinstance(record, EntryLine | ErasedLine):
                tree.append(record.leaf)
                if tree.size in sizes:
                    roots[tree.size] = tree.root()
    except FormatError:
        pass  # what verifying the log itself reports
    return roots
