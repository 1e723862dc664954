"""The entries of several logs about one agent, held against each other: for monitors that watch the same traffic.

Digests of bodies are keyed with a secret of each log, so they cannot be compared, but for those of delegations. What
can be is what was done (action type, target, method), when, and how it ended (status, octets). What one monitor let
out, every other must have seen, within the skew of clocks; a monitor behind another never sees what that one refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import orjson

from ..evidence.claims import SKEW
from ..evidence.export import EntryLine, Header, Record, export_lines, open_lines, read_records
from ..evidence.sqlite_store import SqliteReader
from .log import is_ledger
from .reconciliation import LET_OUT

_ENDED = ("status", "request_bytes", "response_bytes")
_UNKEYED = ("request_digest", "response_digest")
"""Digests that can be compared: of delegations only."""
Key = tuple[str, str, str]
"""What is done: action type, target, method."""


@dataclass(slots=True)
class Act:
    """An action as one log has it, at entry `seq`. `out`: it was let out; `ended`: how, empty if that is not known."""

    seq: int
    timestamp: float
    out: bool
    ended: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """At entry `seq` of `log`, of the time `timestamp`: what `other` does not tell, or tells otherwise, in words."""

    log: str
    seq: int
    timestamp: float
    other: str
    what: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Actions from `start` to `end` (NumericDates) were compared, `acts` of them by log; `start` > `end`: none."""

    agent: str
    start: float
    end: float
    acts: Mapping[str, int]
    differences: tuple[Difference, ...]

    @property
    def empty(self) -> bool:
        """Whether the logs have no time, or no action, in common to tell of."""
        return self.start > self.end or not any(self.acts.values())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class _Log:
    origin: str = ""
    start: float = 0.0
    end: float = 0.0
    acts: defaultdict[Key, list[Act]] = field(default_factory=lambda: defaultdict(list))
    by_seq: dict[int, Act] = field(default_factory=dict)


def compare(paths: list[Path], agent: str, start: float | None = None, end: float | None = None) -> Comparison:
    """Compare what these logs, each verified before, tell of `agent`; by default over the time that all of them cover.

    Memory grows with the agent's actions. Raises UsageError for a file that cannot be read.
    """
    logs = [_read(path, agent) for path in paths]
    first = max(log.start for log in logs) if start is None else start
    last = min(log.end for log in logs) if end is None else end
    found = [
        difference
        for one, other in permutations(logs, 2)
        for difference in _differences(one, other, first, last, first_of_pair=logs.index(one) < logs.index(other))
    ]
    counts = {log.origin: sum(first <= a.timestamp <= last for acts in log.acts.values() for a in acts) for log in logs}
    found.sort(key=lambda one: (one.timestamp, one.log, one.other))
    return Comparison(agent, first, last, counts, tuple(found))


def _differences(one: _Log, other: _Log, first: float, last: float, *, first_of_pair: bool) -> Iterator[Difference]:
    for key, acts in one.acts.items():
        mine = [act for act in acts if act.out and first <= act.timestamp <= last]
        pairs = _paired(mine, other.acts.get(key, []))
        for act, beside in pairs:
            if beside is None:
                yield Difference(one.origin, act.seq, act.timestamp, other.origin, f"{_named(key)}: not seen")
            elif first_of_pair and act.ended and beside.ended and act.ended != beside.ended:
                what = f"{_named(key)}: {act.ended} and {beside.ended} (entry {beside.seq})"
                yield Difference(one.origin, act.seq, act.timestamp, other.origin, what)


def _paired(mine: list[Act], theirs: list[Act]) -> Iterator[tuple[Act, Act | None]]:
    """Each action with the one that is the same there: first those that ended alike, then those that did not."""
    groups: defaultdict[tuple[object, ...], tuple[list[Act], list[Act]]] = defaultdict(lambda: ([], []))
    for side, acts in enumerate((mine, theirs)):
        for act in acts:
            groups[act.ended][side].append(act)
    rest: tuple[list[Act], list[Act]] = ([], [])
    for one, other in groups.values():
        yield from _in_turn(one, other, *rest)
    for acts in rest:
        acts.sort(key=lambda act: act.timestamp)
    left: list[Act] = []
    yield from _in_turn(*rest, left, [])
    yield from ((act, None) for act in left)


def _in_turn(mine: list[Act], theirs: list[Act], left: list[Act], over: list[Act]) -> Iterator[tuple[Act, Act]]:
    """Pairs within the skew, each list in the order of time; what has no partner goes to `left` and `over`."""
    at = 0
    for act in mine:
        while at < len(theirs) and theirs[at].timestamp < act.timestamp - SKEW:
            over.append(theirs[at])
            at += 1
        if at < len(theirs) and theirs[at].timestamp <= act.timestamp + SKEW:
            yield act, theirs[at]
            at += 1
        else:
            left.append(act)
    over.extend(theirs[at:])


def _named(key: Key) -> str:
    return " ".join(part for part in key if part)


def _read(path: Path, agent: str) -> _Log:
    if is_ledger(path):
        with closing(SqliteReader(path)) as reader, closing(export_lines(reader)) as lines:
            return _take((record for _, record in read_records(lines)), agent)
    with open_lines(path) as lines:
        return _take((record for _, record in read_records(lines)), agent)


def _take(records: Iterator[Record], agent: str) -> _Log:
    log = _Log()
    for record in records:
        if isinstance(record, Header):
            log.origin = record.origin
        elif isinstance(record, EntryLine):
            entry = orjson.loads(record.data)
            log.end = float(entry["timestamp"])
            log.start = log.start or log.end
            if entry["agent_id"] == agent:
                _take_entry(log, entry)
    return log


def _take_entry(log: _Log, entry: dict[str, Any]) -> None:
    if "outcome_of" in entry:
        act = log.by_seq.pop(entry["outcome_of"], None)
        if act is not None and entry["outcome"].get("complete"):
            names = (*_ENDED, *_UNKEYED) if entry["action_type"] == "delegation" else _ENDED
            act.ended = tuple(entry["outcome"].get(name) for name in names)
    elif "decision_of" in entry:
        act = log.by_seq.get(entry["decision_of"])
        if act is not None:
            act.out = entry["decision"] in LET_OUT
    else:
        act = Act(entry["seq"], float(entry["timestamp"]), entry["decision"] in LET_OUT)
        method = entry["action_parameters"].get("method", "")
        log.acts[entry["action_type"], entry["action_target"], method].append(act)
        log.by_seq[act.seq] = act
