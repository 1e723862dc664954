"""The Verifier as an HTTP service over mutual TLS: monitors push evidence, relying parties ask for results.

openapi.json describes it and is what requests are checked with. Everything that touches the register is done by one
thread, in the order in which it came; when too much waits for it, more is refused with 503.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema_rs
from aiohttp import web

from ...certs.callers import CALLER, Callers
from ...formats import strict_json
from ...formats.errors import FormatError, LictorError, UsageError, VerificationError
from ..bets import parse_bet
from .api import openapi, validator
from .config import VerifierConfig
from .consistency import Checked, LogState
from .corrective import Corrective
from .desk import Desk
from .ear import PROFILES, Profile, Submodule
from .log_watch import LogWatch
from .pulling import Pulling

log = logging.getLogger(__name__)

MAX_BODY = 8 << 20
WAITING = 256
POLL_S = 1.0
FORGET_EVERY = 3600
"""Polls."""
_FRESH = {"Cache-Control": "no-store"}


class Service:
    """Serves until SIGTERM, SIGINT or `stop`."""

    def __init__(self, config: VerifierConfig) -> None:
        """Raises UsageError and VerificationError for files that cannot be used."""
        self._config = config
        self._desk = Desk(config)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        self._waiting = 0
        self._stopping = asyncio.Event()
        self._evidence, self._question = validator("Evidence"), validator("Question")
        self._disclosure = validator("Disclosure")
        self._pulling = Pulling(config, self._arrived)
        self._corrective = Corrective(config.corrective, config.listener, config.spiffe_id, self._appraised)
        self._logs = LogWatch(config, self._log_state, self._take_log)
        self._callers = Callers(config.listener, MAX_BODY)
        router = self._callers.app.router
        router.add_post("/evidence", self._take)
        router.add_post("/disclosures", self._disclosed)
        router.add_get("/results/{agent:.+}", self._result)
        router.add_post("/appraise", self._appraise)
        router.add_get("/jwks.json", self._jwks)
        router.add_get("/healthz", self._health)
        router.add_get("/openapi.json", self._openapi)

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve; `ready` is called when it listens. Raises UsageError if it cannot."""
        loop = asyncio.get_running_loop()
        upkeep: asyncio.Task[None] | None = None
        try:
            await self._callers.start(*self._config.listen)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            upkeep = asyncio.create_task(self._upkeep())
            self._logs.start()
            ready()
            await self._stopping.wait()
        finally:
            if upkeep is not None:
                upkeep.cancel()
            await self._callers.stop()
            await self._logs.stop()
            await self._corrective.stop()
            await asyncio.to_thread(self._thread.shutdown)
            self._desk.close()

    async def _upkeep(self) -> None:
        turn = 0
        while True:
            try:
                await self._work(self._desk.poll)
                if turn % FORGET_EVERY == 0:
                    await self._work(self._desk.forget)
            except (LictorError, web.HTTPException) as e:
                log.error("upkeep failed and goes on: %s", e)
            turn += 1
            await asyncio.sleep(POLL_S)

    async def _work[T](self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise web.HTTPServiceUnavailable(text="too many requests wait\n", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    async def _take(self, request: web.Request) -> web.Response:
        body = await _body(request, self._evidence)
        caller = request[CALLER]
        keys, bets, described = body["keys"], body["bets"], body.get("descriptions", ())
        verdicts = await self._work(lambda: self._desk.take(caller, keys, bets, described))
        if self._config.corrective:
            new = (token for token, said in zip(bets, verdicts, strict=True) if said.get("known") is False)
            self._corrective.evidence_came(parse_bet(token).subject for token in new)
        return web.json_response({"verdicts": verdicts}, headers=_FRESH)

    async def _disclosed(self, request: web.Request) -> web.Response:
        await _body(request, self._disclosure)
        text = (await request.read()).decode()
        try:
            said = await self._work(lambda: self._desk.disclosed(request[CALLER], text))
        except UsageError as e:
            raise web.HTTPBadRequest(text=f"{e}\n") from None
        return web.json_response(said, headers=_FRESH)

    async def _result(self, request: web.Request) -> web.Response:
        asked = {"agents": [request.match_info["agent"]], **request.query}
        return await self._answer(request, _checked(asked, self._question))

    async def _appraise(self, request: web.Request) -> web.Response:
        return await self._answer(request, await _body(request, self._question))

    async def _answer(self, request: web.Request, asked: dict[str, Any]) -> web.Response:
        caller, profile, agents, nonce = request[CALLER], _profile(asked), asked["agents"], asked.get("nonce")
        window = (float(asked["window"]["start"]), float(asked["window"]["end"])) if "window" in asked else None
        try:
            self._desk.check_question(caller, agents, nonce, window)
            stale = await self._pulling.pull_all(agents, window) if asked.get("fresh") or window is not None else {}
            token = await self._work(lambda: self._desk.result(caller, agents, nonce, profile, stale, window))
        except UsageError as e:
            raise web.HTTPBadRequest(text=f"{e}\n") from None
        kind = f'application/eat+jwt; eat_profile="{PROFILES[profile]}"'
        return web.Response(body=token.encode(), headers={"Content-Type": kind, **_FRESH})

    async def _arrived(self, monitor: str, ids: Collection[str]) -> bool:
        return await self._work(lambda: self._desk.holds(monitor, ids))

    async def _appraised(self, agent: str) -> Submodule:
        return await self._work(lambda: self._desk.appraised(agent, time.time()))

    async def _log_state(self, monitor: str) -> LogState:
        return await self._work(lambda: self._desk.log_state(monitor))

    async def _take_log(self, monitor: str, checked: Checked) -> None:
        await self._work(lambda: self._desk.take_log(monitor, checked))

    async def _jwks(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": [self._desk.jwk]})

    async def _health(self, request: web.Request) -> web.Response:
        if not request[CALLER].startswith(f"spiffe://{self._config.domain.name}/"):
            raise VerificationError("this is for the Verifier's own trust domain")
        bets = await self._work(self._desk.count)
        said = {"status": "ok", "verifier": self._config.spiffe_id, "bets": bets, "logs": self._logs.health()}
        return web.json_response(said, headers=_FRESH)

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(openapi())


def _profile(asked: dict[str, Any]) -> Profile:
    return "veraison" if asked.get("profile") == "veraison" else "ietf"


async def _body(request: web.Request, validator: jsonschema_rs.Draft202012Validator) -> dict[str, Any]:
    try:
        return _checked(strict_json.loads_object(await request.read()), validator)
    except FormatError as e:
        raise web.HTTPBadRequest(text=f"expected a JSON object: {e}\n") from None


def _checked(value: dict[str, Any], validator: jsonschema_rs.Draft202012Validator) -> dict[str, Any]:
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as e:
        where = "/".join(str(part) for part in e.instance_path)
        raise web.HTTPBadRequest(text=f"{where or 'the request'}: {e.message[:500]}\n") from None
    return value
