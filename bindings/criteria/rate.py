"""Criteria of type `rate`: at most `limit` actions in any stretch of `period_s` seconds (a sliding window)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..criterion import PASS, Happening, Outcome
from ..remembered import Remembered
from ..used import Used

_REASON = "rate_exceeded"
_Key = tuple[str, str]


class RateMemory:
    """The times of the last `limit` actions, by agent or by agent and target: exact, and no more than that."""

    __slots__ = ("_criteria", "_times")

    def __init__(self, criteria: CompiledRate) -> None:
        self._criteria = criteria
        self._times: Remembered[_Key, deque[float]] = Remembered(criteria.period)

    def judge(self, now: Happening) -> Outcome:
        key = self._key(now)
        times = self._times.get(key)
        if times is None:
            if not self._times.no_room_for(key, now.time):
                return PASS
            return Outcome(False, _REASON, "Too many targets in too short a time; use fewer, or wait.")
        free = times[0] + self._criteria.period
        if len(times) < self._criteria.limit or free <= now.time:
            return PASS
        return Outcome(False, _REASON, f"Too many in too short a time; try again in {math.ceil(free - now.time)} s.")

    def took(self, happened: Happening) -> None:
        key = self._key(happened)
        times = self._times.get(key)
        if times is None:
            times = deque(maxlen=self._criteria.limit)
        times.append(happened.time)
        self._times.put(key, times, happened.time)

    def ended(self, happened: Happening, used: Used) -> None:
        pass

    def _key(self, happening: Happening) -> _Key:
        return happening.agent_id, happening.target if self._criteria.per_target else ""


@dataclass(frozen=True, slots=True)
class CompiledRate:
    """`limit` per `period` seconds, of each agent, or of each agent on each target."""

    limit: int
    period: float
    per_target: bool
    remembers_all: bool = False

    @property
    def horizon(self) -> float:
        return self.period

    def begin(self) -> RateMemory:
        return RateMemory(self)


class Rate:
    """`{"type": "rate", "limit": 100, "period_s": 60, "per": "agent" | "target"}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledRate:
        return CompiledRate(int(criteria["limit"]), float(criteria["period_s"]), criteria.get("per") == "target")
