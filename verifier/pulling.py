"""Asks monitors for evidence, up to now or over a window of the past: the order `bet` (`proxy/orders/listener`).

The monitor issues BETs on demand over that time, and pushes them like every other; the Verifier waits until they have
come. A monitor whose log knows nothing of an agent has nothing to add; one that does not answer is named in the result.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import aiohttp
import orjson

from ..certs.contexts import client_context
from ..certs.servers import ExpectedServer
from ..formats import strict_json
from ..formats.errors import FormatError, LictorError, UsageError, VerificationError
from .bets import parse_bet
from .config import VerifierConfig

ANSWER_S = 10.0
ARRIVAL_S = 5.0
LOOK_S = 0.05
AT_ONCE = 4
WAITING = 64
"""Questions, of one agent and window each, that are under way or wait: beyond, monitors are not asked."""
MAX_ANSWER = 4 << 20
NOTHING = "the log holds no entry of"
"""How a monitor says that it has never seen the agent."""
Window = tuple[float, float]
"""A window of the past: start <= t < end, NumericDates."""
Arrived = Callable[[str, Collection[str]], Awaitable[bool]]
"""Whether all BETs of an issuer with these ids are here."""


class Pulling:
    """Used in one event loop. Whoever asks about an agent of which evidence is on its way waits for the same."""

    def __init__(self, config: VerifierConfig, arrived: Arrived) -> None:
        """Raises UsageError and VerificationError for files that cannot be used."""
        self._period = config.period_s
        self._arrived = arrived
        self._under_way: dict[tuple[str, Window | None], asyncio.Task[list[str]]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._monitors: list[tuple[str, str, ssl.SSLContext]] = []
        for monitor in config.known_monitors:
            if monitor.orders is None:
                continue
            listener = config.listener
            context = client_context(listener.ca, listener.cert, listener.key)
            known = listener.trust_domain, listener.ca, listener.crl, listener.partners
            ExpectedServer(monitor.name, *known).watch(context)
            self._monitors.append((monitor.name, monitor.orders, context))

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
            task.add_done_callback(lambda _: self._under_way.pop((agent, window), None))
        return await asyncio.shield(task)

    async def _pull(self, agent: str, window: Window | None) -> list[str]:
        body: dict[str, Any] = {"agent": agent}
        async with self._turn:
            body |= {"from": time.time() - self._period} if window is None else {"from": window[0], "to": window[1]}
            asked = (self._ask(*monitor, orjson.dumps(body)) for monitor in self._monitors)
            return [problem for problem in await asyncio.gather(*asked) if problem]

    async def _ask(self, monitor: str, url: str, context: ssl.SSLContext, body: bytes) -> str:
        try:
            tokens = await self._order(url, context, body)
            await self._wait(monitor, [parse_bet(token).jti for token in tokens])
        except (LictorError, aiohttp.ClientError, OSError) as e:  # a TimeoutError is an OSError
            return f"{monitor} was not heard: {str(e) or type(e).__name__}"
        return ""

    async def _order(self, url: str, context: ssl.SSLContext, body: bytes) -> list[str]:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.post(f"{url}/orders/bet", data=body, ssl=context, allow_redirects=False) as answer,
        ):
            data = bytearray()
            async for chunk in answer.content.iter_chunked(65536):
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise FormatError(f"its answer has more than {MAX_ANSWER} octets")
            if answer.status not in (200, 400):
                raise UsageError(f"it answers {answer.status} ({data[:200].decode('utf-8', 'replace').strip()})")
        said = strict_json.loads_object(bytes(data))
        if said.get("ok") is not True:
            error = str(said.get("error"))
            if error.startswith(NOTHING):
                return []
            raise UsageError(error[:200])
        tokens = said.get("result")
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
