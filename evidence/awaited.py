"""Actions that wait for their outcome, and which of a log still do when a process ends before it could say.

What is kept in the store lets a start be quick however long the log is: now and then all that wait (`seqs`) and the
size of the log at that time (`from`). Whatever waits at the end is among those or begins later. `source` is whoever
will say the outcome (a worker): when it is gone the outcomes are not coming.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import orjson

from .entry import OUTCOME_REPEATS, OutcomeDraft, awaits_outcome
from .ledger import Ledger
from .store import Reader, read_meta

MAX_AWAITED = 1 << 16
"""Actions that wait for their outcome; beyond, the oldest is taken for one whose outcome will never come."""
ANCHOR = 4096
"""How many entries at most a start reads to find what waits, besides those that waited before."""
_META = "awaited"

MONITOR_ENDED = "the monitor ended before the outcome was known"
WORKER_ENDED = "the worker ended before the outcome was known"
TOO_MANY = f"more than {MAX_AWAITED} actions waited for their outcome"


def unknown(seq: int, why: str) -> OutcomeDraft:
    """The outcome of an action that nobody can tell any more."""
    return OutcomeDraft(seq, {"status": 0, "complete": False, "error": f"unknown: {why}"})


@dataclass(frozen=True, slots=True)
class _Alike:
    """What outcomes repeat of actions that were recorded together at the time `since`, and who will say them.

    `of`: the delegations that they are work of (`lineage.Place`).
    """

    common: Mapping[str, Any]
    source: object
    of: tuple[str, ...]
    since: float


class Awaited:
    """The actions of a running monitor whose outcome is still to come, oldest first."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._actions: dict[int, tuple[_Alike, str]] = {}
        self._anchor = 0

    def add(
        self, seq: int, fields: Mapping[str, Any], source: object, of: tuple[str, ...] = (), since: float = 0.0
    ) -> None:
        """An action was recorded."""
        alike = _Alike({name: fields[name] for name in OUTCOME_REPEATS}, source, of, since)
        self._actions[seq] = alike, fields["action_target"]

    def add_run(
        self,
        first: int,
        targets: Iterable[str],
        common: Mapping[str, Any],
        source: object,
        of: tuple[str, ...] = (),
        since: float = 0.0,
    ) -> None:
        """Actions were recorded, from seq `first` on, that differ in their targets."""
        self._actions.update(enumerate(zip(repeat(_Alike(common, source, of, since)), targets), first))

    def too_old(self) -> int | None:
        """The seq of an action that has waited for too long, or None."""
        return next(iter(self._actions)) if len(self._actions) > MAX_AWAITED else None

    def take(self, seq: int) -> Mapping[str, Any] | None:
        """What an outcome repeats of the action; it waits no longer. None if it did not."""
        found = self._actions.pop(seq, None)
        return {**found[0].common, "action_target": found[1]} if found is not None else None

    def take_over(self, seq: int) -> None:
        """How it ended is known by now, though not recorded: its source may go."""
        if (found := self._actions.get(seq)) is not None:
            self._actions[seq] = replace(found[0], source=None), found[1]

    def of(self, source: object) -> list[int]:
        """The actions whose outcome `source` would have said."""
        return [seq for seq, (alike, _) in self._actions.items() if alike.source is source]

    def work_of(self, node: str) -> list[int]:
        """The actions that are, or may be, work of the delegation that began with this node."""
        return [seq for seq, (alike, _) in self._actions.items() if node in alike.of]

    def of_type(self, action_type: str) -> Iterator[tuple[int, Mapping[str, Any], float, tuple[str, ...]]]:
        """The actions of one type: seq, what an outcome repeats of each, when it was recorded, what it is work of."""
        for seq, (alike, target) in self._actions.items():
            if alike.common["action_type"] == action_type:
                yield seq, {**alike.common, "action_target": target}, alike.since, alike.of

    def anchor(self) -> None:
        """Keep in the store what waits, where that is due."""
        size = self._ledger.size
        if size - self._anchor >= ANCHOR:
            self._anchor = size
            self._ledger.put_meta(_META, orjson.dumps({"from": size, "seqs": list(self._actions)}).decode())


def left_open(stored: Reader) -> dict[int, Mapping[str, Any]]:
    """What outcomes would repeat of each action in the log that has none, by seq."""
    kept = read_meta(stored, _META, dict[str, Any]({"from": 0, "seqs": []}))
    waiting: dict[int, Mapping[str, Any]] = {}
    for seq in kept["seqs"]:
        waiting.update((seq, _repeated(data)) for seq, data in stored.entries(seq, seq + 1))
    for seq, data in stored.entries(kept["from"]):
        entry = orjson.loads(data)
        if "outcome_of" in entry:
            waiting.pop(entry["outcome_of"], None)
        elif awaits_outcome(entry):
            waiting[entry.get("decision_of", seq)] = _repeated(data)
    return waiting


def _repeated(data: bytes) -> Mapping[str, Any]:
    entry = orjson.loads(data)
    return {name: entry[name] for name in OUTCOME_REPEATS}
