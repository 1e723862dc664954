"""Criteria of type `budget`: at most so many calls, or octets in both directions, per hour, day, month or workflow.

Hours, days and months are those of UTC. Octets are known when an exchange has ended, and count for the time of its end:
an action is refused once they are used up, what is under way then is not cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..criterion import PASS, Happening, Outcome
from ..remembered import Remembered

KEPT_S = 31 * 86400.0
"""A workflow is forgotten so long after its last action."""
_LENGTHS = {"hour": 3600.0, "day": 86400.0, "month": KEPT_S}
_PARTS = {"hour": 4, "day": 3, "month": 2, "workflow": 0}


@dataclass(slots=True)
class _Used:
    """What was used in one hour, day, month or workflow (`window` is empty then)."""

    window: tuple[int, ...]
    calls: int = 0
    size: int = 0


class BudgetMemory:
    """What was used, by agent or by workflow."""

    __slots__ = ("_criteria", "_used")

    def __init__(self, criteria: CompiledBudget) -> None:
        self._criteria = criteria
        self._used: Remembered[str, _Used] = Remembered(criteria.horizon or KEPT_S)

    def judge(self, now: Happening) -> Outcome:
        criteria, key = self._criteria, self._criteria.key(now)
        used = self._used.get(key)
        if used is None:
            return criteria.exhausted if self._used.no_room_for(key, now.time) else PASS
        if used.window != criteria.window(now.time):
            return PASS
        if criteria.calls is not None and used.calls >= criteria.calls:
            return criteria.exhausted
        return criteria.exhausted if criteria.size is not None and used.size >= criteria.size else PASS

    def took(self, happened: Happening) -> None:
        self._current(happened).calls += 1

    def ended(self, happened: Happening, size: int) -> None:
        self._current(happened).size += size

    def _current(self, happened: Happening) -> _Used:
        key, window = self._criteria.key(happened), self._criteria.window(happened.time)
        used = self._used.get(key)
        if used is None or used.window != window:
            used = _Used(window)
        self._used.put(key, used, happened.time)
        return used


@dataclass(frozen=True, slots=True)
class CompiledBudget:
    """`calls` and `size` (octets) per hour, day, month or workflow; None: not limited."""

    per: str
    calls: int | None
    size: int | None
    remembers_all: bool = False

    @property
    def horizon(self) -> float | None:
        return _LENGTHS.get(self.per)

    @property
    def exhausted(self) -> Outcome:
        wait = "in the next workflow" if self.per == "workflow" else f"in the next {self.per} (UTC)"
        return Outcome(False, "budget_exhausted", f"The budget for this is used up; there is more {wait}.")

    def key(self, happening: Happening) -> str:
        return happening.wid if self.per == "workflow" else happening.agent_id

    def window(self, time: float) -> tuple[int, ...]:
        return datetime.fromtimestamp(time, UTC).timetuple()[: _PARTS[self.per]]

    def begin(self) -> BudgetMemory:
        return BudgetMemory(self)


class Budget:
    """`{"type": "budget", "per": "hour" | "day" | "month" | "workflow", "calls": …, "bytes": …}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledBudget:
        return CompiledBudget(criteria["per"], criteria.get("calls"), criteria.get("bytes"))
