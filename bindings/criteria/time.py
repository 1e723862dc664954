"""Criteria of type `time`: hours, weekdays and dates, as the clocks of one time zone show them.

An instant is judged by what the local clock shows then, so in the night in which clocks go back an hour that is shown
twice is judged alike twice, and an hour that is skipped is never shown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ...formats.errors import UsageError
from ..criterion import PASS, Outcome, Stateless
from ..model import Action

_FAIL = Outcome(False, "outside_of_time", "This is not allowed at this time; try again later or ask your operator.")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_S = 86400
_WHOLE_DAY = ((0, _DAY_S),)


class CompiledTime(Stateless):
    """Half-open stretches of the day in seconds, and which days they may begin on."""

    __slots__ = ("_days", "_except", "_from", "_hours", "_last", "_until", "_zone")

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        self._zone = _zone(criteria["timezone"])
        self._hours = tuple(map(_stretch, criteria["hours"])) if "hours" in criteria else _WHOLE_DAY
        self._days = frozenset(_DAYS.index(day) for day in criteria.get("weekdays", _DAYS))
        self._from = _date(criteria["from"]) if "from" in criteria else date.min
        self._until = _date(criteria["until"]) if "until" in criteria else date.max
        if self._from > self._until:
            raise UsageError(f"the dates end ({self._until}) before they begin ({self._from})")
        self._except = frozenset(map(_date, criteria.get("except", ())))
        self._last = (-1, False)

    def judge(self, action: Action) -> Outcome:
        second, held = int(time.time()), self._last
        if held[0] != second:
            held = self._last = (second, self.holds(second))
        return PASS if held[1] else _FAIL

    def holds(self, at: float) -> bool:
        """Whether the NumericDate `at` is within."""
        local = datetime.fromtimestamp(at, self._zone)
        today, second = local.date(), local.hour * 3600 + local.minute * 60 + local.second
        for start, end in self._hours:
            if start < end:
                if start <= second < end and self._day(today):
                    return True
            elif (second >= start and self._day(today)) or (second < end and self._day(today - timedelta(1))):
                return True
        return False

    def _day(self, day: date) -> bool:
        return day.weekday() in self._days and self._from <= day <= self._until and day not in self._except


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UsageError(f"{name!r} is not a time zone of the IANA data base, such as Europe/Berlin or UTC") from None


def _stretch(text: str) -> tuple[int, int]:
    start, _, end = text.partition("-")
    seconds = _second(start), _second(end)
    if seconds[0] == seconds[1] or seconds[0] == _DAY_S:
        raise UsageError(f"the hours {text!r} are none: leave hours out for the whole day")
    return seconds


def _second(text: str) -> int:
    hour, _, minute = text.partition(":")
    second = int(hour) * 3600 + int(minute) * 60
    if second > _DAY_S:
        raise UsageError(f"{text!r} is later than 24:00")
    return second


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a day of the calendar") from None


class Time:
    """`{"type": "time", "timezone": …, "hours": […], "weekdays": […], "from": …, "until": …, "except": […]}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledTime:
        return CompiledTime(criteria)
