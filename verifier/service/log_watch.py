"""Looks at the logs of monitors now and then, each by itself: what one of them does delays no other, and no answer.

A round reads what the register has to be proven, asks the log in a thread of its own, and hands in what came of it; now
and then a window is judged again from its entries. A log that cannot be read is asked again after a pause that doubles.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aiohttp import web

from ...formats.errors import LictorError
from .config import VerifierConfig
from .consistency import Checked, LogState, check
from .contradictions import Found
from .known_logs import AT_ONCE
from .log_client import LogClient
from .sampling import Sample, judge_window
from .tiles import Tree, Unchecked

log = logging.getLogger(__name__)

ROUND_S = 5.0
BACK_OFF_S = 60.0
READ_S = 30.0
SAMPLE_S = 60.0
"""So often one window of a log is judged again, if it serves its entries."""
State = Callable[[str], Awaitable[LogState]]
Take = Callable[[str, Checked], Awaitable[None]]


@dataclass(slots=True)
class _Log:
    """One log. `problem`: why it could not be read the last time."""

    client: LogClient
    size: int = 0
    problem: str = ""
    failures: int = 0
    judged: int = 0
    sampled: float = -math.inf


class LogWatch:
    """Used in one event loop. `state` and `take` are the register's."""

    def __init__(self, config: VerifierConfig, state: State, take: Take) -> None:
        """Raises UsageError and VerificationError for files that cannot be used."""
        self._policy = config.logs.policy
        self._state, self._take = state, take
        self._logs = [
            _Log(LogClient(monitor.name, monitor.log, config.listener))
            for monitor in config.known_monitors
            if monitor.log is not None
        ]
        self._threads = ThreadPoolExecutor(max(1, len(self._logs)), thread_name_prefix="log")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin with the rounds."""
        self._tasks = [asyncio.create_task(self._rounds(one)) for one in self._logs]

    async def stop(self) -> None:
        """End them, and what they wait for."""
        for task in self._tasks:
            task.cancel()
        for one in self._logs:
            one.client.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    def health(self) -> list[dict[str, Any]]:
        """Of each log the largest tree seen, how many windows were judged again, and what was in the way last time."""
        return [
            {"monitor": one.client.monitor, "size": one.size, "judged": one.judged, "problem": one.problem}
            for one in self._logs
        ]

    async def _rounds(self, one: _Log) -> None:
        while True:
            more = False
            try:
                more = await self.round(one)
            except (LictorError, web.HTTPException) as e:
                self._failed(one, str(e))
            except Exception as e:
                log.exception("the log of %s was not looked at", one.client.monitor)
                self._failed(one, type(e).__name__)
            pause = min(ROUND_S * 2 ** min(one.failures, 10), BACK_OFF_S)
            await asyncio.sleep(0 if more else pause)

    async def round(self, one: _Log) -> bool:
        """One round; whether there is more to be proven at once. Raises Unchecked, LedgerError."""
        state = await self._state(one.client.monitor)
        one.client.begin()
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._check, one, state)
        if not (await asyncio.wait({asked}, timeout=READ_S))[0]:
            one.client.abort()
        checked = await asked
        await self._take(one.client.monitor, checked)
        if one.problem:
            log.warning("the log of %s is read again", one.client.monitor)
        one.size, one.problem, one.failures = checked.newest.size, "", 0
        return len(checked.proven) + len(checked.refuted) == AT_ONCE

    def _check(self, one: _Log, state: LogState) -> Checked:
        shown = one.client.shown(self._policy)
        checked = check(one.client.monitor, shown.tree, shown.witnessed, state, one.client.tiles)
        if state.sample is None or time.monotonic() < one.sampled + SAMPLE_S:
            return checked
        one.sampled = time.monotonic()
        return replace(checked, judged=self._judged(one, state.sample, checked.newest))

    def _judged(self, one: _Log, sample: Sample, tree: Tree) -> tuple[Found, ...]:
        """What contradicts a window in the entries that the log serves; nothing if it serves none."""
        try:
            found = judge_window(sample.bet, partial(one.client.entries, tree), sample.references)
            one.judged += 1
            return found
        except Unchecked as e:
            log.info("a window of %s was not judged again: %s", one.client.monitor, e)
        except Exception:  # what an entry makes of us must not hide what was found out about its log
            log.exception("a window of %s could not be judged again", one.client.monitor)
        return ()

    def _failed(self, one: _Log, problem: str) -> None:
        if problem != one.problem:
            log.error("the log of %s cannot be checked: %s", one.client.monitor, problem)
        one.problem = problem
        one.failures += 1
