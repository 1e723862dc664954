"""Pushes this monitor's BETs to the Verifier, each as soon as it is durable.

The ledger is the queue: what is kept besides is how far the Verifier has answered, so nothing is lost when either side
ends. What is behind comes oldest first; the newest come along with it, so that an anomaly need not wait for the rest.
The ledger is read through a connection of its own, and nothing waits for a push. A Verifier that cannot be reached is
tried again after a while that doubles.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import aiohttp
import orjson

from ...certs.contexts import client_context
from ...certs.servers import ExpectedServer
from ...evidence import description
from ...evidence.ledger import Ledger
from ...evidence.sqlite_store import SqliteReader
from ...evidence.store import read_meta
from ...formats import base64url, strict_json
from ...formats.errors import FormatError, LictorError, UsageError
from ..config import Config, VerifierSettings

log = logging.getLogger(__name__)

BATCH = 64
NEWEST = 16
KEYS = 16
ANSWER_S = 15.0
LAST_S = 3.0
PAUSE_S = 0.5
BACK_OFF_S = 30.0
IDLE_S = 15.0
"""Less than the Verifier keeps a connection open, so that it is not the one to end it while we write."""
MAX_ANSWER = 1 << 20


class Reporting:
    """Runs in the event loop of the ledger."""

    def __init__(self, config: Config, settings: VerifierSettings, ledger: Ledger) -> None:
        """Raises UsageError for files that cannot be used, VerificationError for the revocation list."""
        listener = config.listener("verifier")
        self._settings = settings
        self._ledger = ledger
        self._context = client_context(listener.ca, listener.cert, listener.key)
        known = listener.trust_domain, listener.ca, listener.crl, listener.partners
        ExpectedServer(settings.name, *known).watch(self._context)
        self._reader = SqliteReader(config.ledger.path)
        self._mark = f"reported to {settings.name}"
        self._reported = read_meta(self._reader, self._mark, 0)
        self._failures, self._problem = 0, ""
        self._described: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with what the Verifier does not have yet."""
        connector = aiohttp.TCPConnector(ssl=self._context, limit=1, keepalive_timeout=IDLE_S)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        self._ledger.on_bets = self._wake.set
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Push what is left, for a few seconds at most; the rest is pushed after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            try:
                await asyncio.wait_for(self._push_all(), LAST_S)
            except (LictorError, aiohttp.ClientError, OSError) as e:  # a TimeoutError is an OSError
                log.warning("not all evidence has reached the Verifier yet: %s", e or "no answer in time")
        if self._session is not None:
            await self._session.close()
        self._reader.close()

    def health(self) -> dict[str, Any]:
        """Whom evidence is pushed to, and what is in the way."""
        return {"name": self._settings.name, "problem": self._problem}

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._push_all()
            except (LictorError, aiohttp.ClientError, OSError) as e:
                await asyncio.sleep(self._failed(e))
            except Exception as e:
                log.exception("evidence was not pushed")
                await asyncio.sleep(self._failed(e))
            else:
                await self._wake.wait()

    def _failed(self, error: Exception) -> float:
        """How long to pause, in seconds."""
        problem = str(error) or type(error).__name__
        if problem != self._problem:
            log.error("evidence does not reach the Verifier %s: %s", self._settings.name, problem)
        self._problem = problem
        pause = min(PAUSE_S * 2.0 ** min(self._failures, 20), BACK_OFF_S)
        self._failures += 1
        return pause * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing

    async def _push_all(self) -> None:
        while rows := await asyncio.to_thread(self._reader.bets_after, self._reported, BATCH):
            tokens = [token for _, token in rows]
            if len(rows) == BATCH:
                newest = await asyncio.to_thread(self._reader.newest_bets, NEWEST)
                tokens += [token for token in newest if token not in tokens]
            verdicts = await self._push(tokens)
            self._answered([number for number, _ in rows], verdicts)
            if self._problem:
                log.warning("evidence reaches the Verifier again")
            self._failures, self._problem = 0, ""

    def _answered(self, numbers: list[int], verdicts: list[dict[str, Any]]) -> None:
        """Remember how far the Verifier has got. Raises UsageError if it wants the rest later."""
        reported = self._reported
        for number, verdict in zip(numbers, verdicts, strict=False):
            if verdict.get("again") is True:
                break
            if verdict.get("accepted") is not True:
                log.error("the Verifier does not accept a BET: %s", str(verdict.get("problem"))[:300])
            reported = number
        if reported != self._reported:
            self._reported = reported
            self._ledger.put_meta(self._mark, str(reported))
        if reported != numbers[-1]:
            raise UsageError(f"it wants a BET again later: {str(verdict.get('problem'))[:300]}")

    def _beside(self, tokens: list[str]) -> tuple[list[Any], list[str]]:
        """What these BETs are verified with: keys, and the monitor's descriptions of itself that they name."""
        signed_by = {_part(token, 0).get("kid") for token in tokens}
        keys = [orjson.loads(key.data) for key in self._reader.documents("key") if key.id in signed_by]
        named = {_part(token, 1).get("ext", {}).get("description") for token in tokens} - {None}
        if not named <= self._described.keys():
            self._described = description.tokens(self._reader)
        return keys[-KEYS:], [self._described[digest] for digest in self._described if digest in named]

    async def _push(self, tokens: list[str]) -> list[dict[str, Any]]:
        """The verdicts. Raises LictorError, ClientError and OSError."""
        assert self._session is not None
        keys, described = await asyncio.to_thread(self._beside, tokens)
        body = orjson.dumps({"keys": keys, "bets": tokens, "descriptions": described})
        headers = {"Content-Type": "application/json"}
        url = f"{self._settings.url}/evidence"
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            data = bytearray()
            async for chunk in answer.content.iter_chunked(65536):
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise FormatError(f"its answer has more than {MAX_ANSWER} octets")
            if answer.status != 200:
                raise UsageError(f"it answers {answer.status} ({data[:200].decode('utf-8', 'replace').strip()})")
        verdicts = strict_json.loads_object(bytes(data)).get("verdicts")
        if not isinstance(verdicts, list) or len(verdicts) != len(tokens):
            raise FormatError(f"its answer has not a verdict for each of {len(tokens)} BETs")
        if not all(isinstance(verdict, dict) for verdict in verdicts):
            raise FormatError("its verdicts are no objects")
        return verdicts


def _part(token: str, index: int) -> Any:
    """The header, or the claims, of a BET of our own."""
    return orjson.loads(base64url.decode(token.split(".")[index]))
