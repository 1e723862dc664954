"""Asks monitors for evidence, up to now or over a window of the past: the order `bet` (`proxy/orders/listener`).

The monitor issues BETs on demand over that time, and pushes them like every other; the Verifier waits until they have
come. A monitor whose log knows nothing of an agent has nothing to add; one that does not answer is named in the result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from ...formats.errors import FormatError, UsageError, VerificationError
from ..bets import parse_bet
from .config import VerifierConfig
from .ordering import FAILURES, Ordered

ARRIVAL_S = 5.0
LOOK_S = 0.05
AT_ONCE = 4
WAITING = 64
"""Questions, of one agent and window each, that others can share: beyond, monitors are not asked."""
NOTHING = "the log holds no entry of"
"""How a monitor says that it has never seen the agent."""
Window = tuple[float, float]
"""A window of the past: start <= t < end, NumericDates."""
Arrived = Callable[[str, Collection[str]], Awaitable[bool]]
"""Whether all BETs of an issuer with these ids are here."""


class Pulling:
    """Used in one event loop.

    Whoever asks about an agent before monitors were asked about it waits for the same, and of a window of the past also
    while its evidence is on its way.
    """

    def __init__(self, config: VerifierConfig, arrived: Arrived) -> None:
        """Raises UsageError and VerificationError for files that cannot be used."""
        self._period = config.period_s
        self._arrived = arrived
        self._under_way: dict[tuple[str, Window | None], asyncio.Task[list[str]]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._monitors = [
            Ordered(monitor.name, monitor.orders, config.listener)
            for monitor in config.known_monitors
            if monitor.orders is not None
        ]

    async def pull_all(self, agents: Sequence[str], window: Window | None = None) -> dict[str, list[str]]:
        """Have all monitors report on these agents, over the period up to now or a window of the past.

        By agent what stood in the way, in words.
        """
        found = await asyncio.gather(*(self._shared(agent, window) for agent in agents))
        return dict(zip(agents, found, strict=True))

    async def _shared(self, agent: str, window: Window | None) -> list[str]:
        if not self._monitors:
            return ["this Verifier can ask no monitor: none has monitor.orders in its verifier.toml"]
        task = self._under_way.get((agent, window))
        if task is None:
            if len(self._under_way) >= WAITING:
                return ["this Verifier has too much to ask monitors already: ask again"]
            task = self._under_way[agent, window] = asyncio.create_task(self._pull(agent, window))
            task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[list[str]]) -> None:
        self._under_way = {key: one for key, one in self._under_way.items() if one is not task}

    async def _pull(self, agent: str, window: Window | None) -> list[str]:
        body: dict[str, Any] = {"agent": agent}
        async with self._turn:
            if window is None:  # whoever asks from now on wants to know what is done from now on, too
                self._under_way.pop((agent, None), None)
            body |= {"from": time.time() - self._period} if window is None else {"from": window[0], "to": window[1]}
            asked = (self._ask(monitor, body) for monitor in self._monitors)
            return [problem for problem in await asyncio.gather(*asked) if problem]

    async def _ask(self, monitor: Ordered, body: dict[str, Any]) -> str:
        try:
            tokens = await self._tokens(monitor, body)
            await self._wait(monitor.name, [parse_bet(token).jti for token in tokens])
        except FAILURES as e:
            return f"{monitor.name} was not heard: {str(e) or type(e).__name__}"
        return ""

    async def _tokens(self, monitor: Ordered, body: dict[str, Any]) -> list[str]:
        try:
            tokens = await monitor.give("bet", body)
        except UsageError as e:
            if str(e).startswith(NOTHING):
                return []
            raise
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise FormatError("its answer has no list of BETs")
        return tokens

    async def _wait(self, monitor: str, ids: list[str]) -> None:
        """Until it has pushed them. Raises VerificationError if it does not."""
        until = time.monotonic() + ARRIVAL_S
        while not await self._arrived(monitor, ids):
            if time.monotonic() > until:
                raise VerificationError("it issued evidence and has not pushed it")
            await asyncio.sleep(LOOK_S)
