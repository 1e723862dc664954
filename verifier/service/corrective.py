"""What the Verifier orders by itself when an agent becomes warning or contraindicated: quarantine, or a hold.

An order is given once for each time that the agent becomes so, to each monitor that is meant, again until it is taken;
whoever then releases the agent is not overruled before it was better in between. What was ordered is known from the
monitor, not kept here: after a restart the next evidence leads to the same orders, which change nothing there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ...bindings.subjects import applies_to, check_subject
from ...certs.listener import Listener
from ...formats.errors import FormatError, UsageError
from .ear import STATUSES, Status, Submodule
from .ordering import FAILURES, Ordered

log = logging.getLogger(__name__)

PAUSE_S = 0.5
BACK_OFF_S = 30.0
MAX_WHY = 300
AT_ONCE = 8
"""Questions that one monitor is asked at a time."""
MOST = 10_000
"""Agents of which it is known that they were ordered about; beyond, the oldest is forgotten, and its order given up."""


@dataclass(frozen=True, slots=True)
class CorrectiveRule:
    """At this status, or a worse one, of these agents (patterns) the order goes to these monitors (names and URLs).

    `seconds`: how long a hold lasts; None: until it is taken back.
    """

    at: Status
    order: Literal["quarantine", "hold"]
    agents: tuple[str, ...]
    monitors: tuple[tuple[str, str], ...]
    seconds: float | None


def rules(tables: Iterable[dict[str, Any]], known: dict[str, str | None]) -> tuple[CorrectiveRule, ...]:
    """From a configuration whose form is checked; `known` monitors, with where they take orders. Raises UsageError."""
    found = []
    for index, table in enumerate(tables):
        names = table.get("monitors", [name for name, url in known.items() if url is not None])
        where = [(name, known.get(name)) for name in names]
        missing = [name for name, url in where if url is None]
        if missing or not where:
            which = missing[0] if missing else "any monitor"
            raise UsageError(f"corrective[{index}]: say where {which} takes orders, in a table [[monitor]] with orders")
        if "for_s" in table and table["order"] != "hold":
            raise UsageError(f"corrective[{index}].for_s is how long a hold lasts, and the order is {table['order']}")
        agents = tuple(check_subject(pattern) for pattern in table.get("agents", ()))
        at, seconds = table.get("at", "contraindicated"), table.get("for_s")
        found.append(
            CorrectiveRule(at, table["order"], agents, tuple((name, url) for name, url in where if url), seconds)
        )
    return tuple(found)


class Corrective:
    """Used in one event loop. `appraise` says what is to be said of an agent now."""

    def __init__(
        self,
        rules: tuple[CorrectiveRule, ...],
        listener: Listener,
        own_id: str,
        appraise: Callable[[str], Awaitable[Submodule]],
    ) -> None:
        """Raises UsageError and VerificationError for files that cannot be used."""
        self._rules = rules
        self._own_id = own_id
        self._appraise = appraise
        self._given: dict[tuple[int, str], list[asyncio.Task[None]]] = {}
        self._due: dict[str, None] = {}
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        known = {name: url for rule in rules for name, url in rule.monitors}
        self._monitors = {name: Ordered(name, url, listener) for name, url in known.items()}
        self._turns = {name: asyncio.Semaphore(AT_ONCE) for name in known}

    def evidence_came(self, agents: Iterable[str]) -> None:
        """New evidence about these agents is in the register. Nothing waits for what follows from it."""
        self._due |= {agent: None for agent in agents if self._meant(agent)}
        if self._due and self._looking is None:
            self._looking = self._spawn(self._look())

    def _meant(self, agent: str) -> list[int]:
        return [n for n, rule in enumerate(self._rules) if not rule.agents or applies_to(rule.agents, agent)]

    async def _look(self) -> None:
        """Appraise whom evidence has come about."""
        while self._due:
            agent = next(iter(self._due))
            del self._due[agent]
            try:
                found = await self._appraise(agent)
            except Exception as e:  # too much to do, or the register cannot be read: again later
                log.error("%s is not appraised yet: %s", agent, e)
                self._due[agent] = None
                await asyncio.sleep(PAUSE_S)
                continue
            for number in self._meant(agent):
                self._decide(number, agent, found)
        self._looking = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _decide(self, number: int, agent: str, found: Submodule) -> None:
        rule = self._rules[number]
        if STATUSES.index(found.status) < STATUSES.index(rule.at):
            self._give_up((number, agent))
            return
        if (number, agent) in self._given:
            return
        while len(self._given) >= MOST:
            self._give_up(next(iter(self._given)))
        reasons = found.behavior.get("reasons", [])
        text = str(reasons[0].get("text", "")) if reasons else ""
        why = "".join(c if c.isprintable() else "?" for c in f"{found.status}: {text}")[:MAX_WHY]
        log.warning("%s is %s: ordering %s", agent, why, rule.order)
        giving = [self._spawn(self._give(rule, name, agent, why)) for name, _ in rule.monitors]
        self._given[number, agent] = giving

    def _give_up(self, key: tuple[int, str]) -> None:
        """There is no reason for an order any more: a monitor that has not taken it yet need not."""
        for task in self._given.pop(key, ()):
            task.cancel()

    async def stop(self) -> None:
        """Give up what no monitor has taken yet."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _give(self, rule: CorrectiveRule, monitor: str, agent: str, why: str) -> None:
        """Until the monitor has taken the order."""
        body: dict[str, Any] = {"agent": agent, "why": why}
        if rule.seconds is not None:
            body["seconds"] = rule.seconds
        pause, before = PAUSE_S, ""
        while True:
            try:
                if rule.order != "hold" or not await self._held_already(monitor, agent):
                    async with self._turns[monitor]:
                        await self._monitors[monitor].give(rule.order, body)
                return
            except FAILURES as e:
                problem = str(e) or type(e).__name__
            if problem != before:
                log.error("the order %s for %s does not reach %s: %s", rule.order, agent, monitor, problem)
                before = problem
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads load, hides nothing
            pause = min(2 * pause, BACK_OFF_S)

    async def _held_already(self, monitor: str, agent: str) -> bool:
        """Whether a hold that this Verifier demanded is in force there: it is to end when it was said to."""
        async with self._turns[monitor]:
            listed = await self._monitors[monitor].ask("holds")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise FormatError("its answer has no list of holds")
        return any((one.get("agent"), one.get("by")) == (agent, self._own_id) for one in listed)
