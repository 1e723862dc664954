"""Retention: entries older than a rule allows are erased for good; their leaf hashes stay, so every proof still holds.

What is erased is always the beginning of the log. Before anything is, an entry of the monitor about itself
(`log_retention`) says which rule erases how far, so that the log itself tells why the rest of it is gone. A monitor
that dies in between goes on where it was when it starts again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from ..formats.errors import LictorError, UsageError
from .entry import RETENTION, own_fields
from .ledger import Ledger
from .store import Reader, read_meta

log = logging.getLogger(__name__)

DAY = 86400.0
LOOK_S = 5.0
BY_HAND = "by hand"
_META = "erasing"


@dataclass(frozen=True, slots=True)
class Erasure:
    """Entries before `end` are erased. `scrubbed`: no copy is left in the ledger's files either."""

    end: int
    erased_now: int
    announced_at: int | None
    scrubbed: bool


def rule_text(days: float) -> str:
    """How a rule of the configuration is named in the log."""
    return f"evidence.retention_days = {days:g}"


def first_since(log: Reader, end: int, time: float) -> int:
    """The seq of the first of `end` entries that is not older than `time`; `end` if all are. Erased ones are older."""
    low, high = min(log.erased(), end), end
    while low < high:
        middle = (low + high) // 2
        _, data = next(log.entries(middle, middle + 1))
        if orjson.loads(data)["timestamp"] < time:
            low = middle + 1
        else:
            high = middle
    return low


class Retention:
    """Erases what a running monitor need keep no longer. `needed_from` says what it still needs (`Recorder`)."""

    def __init__(self, ledger: Ledger, stored: Reader, monitor_id: str, needed_from: Callable[[], int]) -> None:
        self._ledger = ledger
        self._stored = stored
        self._monitor_id = monitor_id
        self._needed_from = needed_from
        self._next = 0.0
        self._copies = False
        self._one = asyncio.Lock()

    async def resume(self) -> None:
        """Finish an erasure that was announced before the last process ended, and clear away its copies."""
        end = read_meta(self._stored, _META, 0)
        if end:
            self._copies = not await self._ledger.erase(end)

    async def run(self, days: float | None) -> None:
        """For ever, beside everything else: see `daily`. Errors are logged; where the ledger is dead all else fails."""
        while True:
            try:
                await self.daily(days)
            except LictorError as e:
                log.error("nothing is erased: %s", e)
            await asyncio.sleep(LOOK_S)

    async def daily(self, days: float | None) -> None:
        """Call often: once a day erase what is older than `days`; meanwhile clear away copies that a reader held."""
        if self._copies:
            self._copies = not await self._ledger.scrub()
        now = self._ledger.now()
        if days is None or now < self._next:
            return
        self._next = now + DAY
        done = await self.erase(now - days * DAY, rule_text(days))
        if done.erased_now:
            log.info("erased %d entries, all before entry %d: %s", done.erased_now, done.end, rule_text(days))

    async def erase(self, before: float, rule: str) -> Erasure:
        """Erase every entry that is older than `before` (a NumericDate), but none of a window that is still open.

        Raises UsageError for a time to come, LedgerError.
        """
        async with self._one:
            return await self._erase(before, rule)

    async def _erase(self, before: float, rule: str) -> Erasure:
        if before > self._ledger.now():
            raise UsageError(f"the time {before:f} is to come: name one in the past, before which entries are erased")
        # First the rows of empty windows are moved up and the entries are durable; then what is read is all there is.
        needed = self._needed_from()
        await self._ledger.commit()
        end = first_since(self._stored, min(needed, self._ledger.size), before)
        done = self._stored.erased()
        if end <= done:
            return Erasure(done, 0, None, not self._copies)
        announced = self._ledger.add(own_fields(self._monitor_id, RETENTION, _parameters(end, before, rule)))
        self._ledger.put_meta(_META, str(end))
        await self._ledger.commit()
        scrubbed = await self._ledger.erase(end)
        self._copies = not scrubbed
        return Erasure(end, end - done, announced.seq, scrubbed)


def _parameters(end: int, before: float, rule: str) -> dict[str, Any]:
    return {"erased_before_seq": end, "erased_before_time": before, "rule": rule}
