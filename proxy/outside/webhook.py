"""Tells whoever is configured, at once, what has happened: Security Event Tokens by push (RFC 8935).

The ledger is the queue: what is kept besides is how far the receiver has answered, so nothing is lost when either side
ends, and what is sent again has the same `jti`. Events go one by one, in the order of the log, over a connection of
their own; nothing waits for them. A receiver that does not answer 202 is tried again after a while that doubles; only
what it says is no SET (`invalid_request`) is left. It is never asked where else to send: no redirects, no proxies.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from ...evidence.ledger import Ledger
from ...evidence.sqlite_store import SqliteReader
from ...formats import strict_json
from ...formats.errors import FormatError, LictorError, UsageError
from ...formats.jws import Signer
from ..webhook_settings import WebhookSettings
from .security_events import MARKS, TYP, event_of, is_about, kind_of, sign

log = logging.getLogger(__name__)

ANSWER_S = 15.0
LAST_S = 3.0
PAUSE_S = 0.5
BACK_OFF_S = 30.0
IDLE_S = 15.0
MAX_ANSWER = 64 * 1024
MOST_NOTICED = 10_000
"""Events that wait in memory; what comes then is found in the ledger when those are told."""
SCANNED = 4096
"""Entries that are looked through at once."""


class Webhooks:
    """All receivers. Runs in the event loop of the ledger."""

    def __init__(
        self, settings: tuple[WebhookSettings, ...], ledger: Ledger, signer: Signer, monitor_id: str, path: Path
    ) -> None:
        """Raises UsageError for files that cannot be used."""
        self._each = [_Webhook(one, ledger, signer, monitor_id, path) for one in settings]
        if self._each:
            ledger.on_added = self._added

    def _added(self, entry: Mapping[str, Any], seq: int) -> None:
        found = kind_of(entry)
        if found is not None:
            for one in self._each:
                one.notice(found[0], seq)

    def start(self) -> None:
        """Begin with what the receivers were not told yet."""
        for one in self._each:
            one.start()

    async def stop(self) -> None:
        """Tell what is left, for a few seconds at most; the rest is told after the next start."""
        await asyncio.gather(*(one.stop() for one in self._each))

    def health(self) -> list[dict[str, Any]]:
        """Who is told, how much waits, and what is in the way."""
        return [one.health() for one in self._each]


class _Webhook:
    def __init__(self, settings: WebhookSettings, ledger: Ledger, signer: Signer, monitor_id: str, path: Path) -> None:
        self._settings = settings
        self._ledger = ledger
        self._signer = signer
        self._monitor = {"iss": monitor_id, "aud": settings.audience, "origin": ledger.origin}
        self._host = urlsplit(settings.url).netloc
        self._context = _context(settings)
        self._path = path
        self._meta = f"webhook {sha256(f'{settings.url} {settings.audience}'.encode()).hexdigest()}"
        with closing(SqliteReader(path)) as reader:
            told = reader.meta(self._meta)
        self._looked = ledger.size if told is None else int(told)
        """All events of entries before this one were told, or are those that `_noticed` begins with."""
        self._behind = ledger.size
        """The entries from `_looked` to this one are to be looked through."""
        self._noticed: deque[int] = deque()
        self._failures, self._problem = 0, ""
        self._wake = asyncio.Event()
        self._stopping = False
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        if told is None:
            self._keep(self._looked)

    def notice(self, kind: str, seq: int) -> None:
        """An event was entered into the log."""
        if kind not in self._settings.events or seq < self._behind:
            return
        if len(self._noticed) >= MOST_NOTICED:
            if self._looked >= self._behind:
                self._looked = self._noticed[0]
            self._behind = seq + 1
            self._noticed.clear()
        else:
            self._noticed.append(seq)
        self._wake.set()

    def start(self) -> None:
        """Begin with what was not told yet."""
        connector = aiohttp.TCPConnector(ssl=self._context, limit=1, keepalive_timeout=IDLE_S)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        self._behind = self._ledger.size
        self._noticed.clear()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Tell what is left, for a few seconds at most."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=LAST_S)
            for task in late:
                task.cancel()
                await asyncio.wait([task])
        if self._session is not None:
            await self._session.close()

    def health(self) -> dict[str, Any]:
        """Who is told, how much is known to wait, and what is in the way."""
        waiting = len(self._noticed) + (self._looked < self._behind)
        return {"host": self._host, "waiting": waiting, "problem": self._problem}

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._looked < self._behind:
                await self._ledger.commit()
                found, end = await asyncio.to_thread(self._look, self._looked, self._behind)
                for seq in found:
                    if not await self._tell(seq):
                        return
                self._looked = end
                self._keep(end)
            elif self._noticed:
                seq = self._noticed.popleft()
                if not await self._tell(seq):
                    return
                self._keep(seq + 1)
            elif self._stopping:
                return
            else:
                await self._wake.wait()

    def _look(self, first: int, behind: int) -> tuple[list[int], int]:
        """The events among the next entries, and where to go on."""
        end, found = min(first + SCANNED, behind), []
        with closing(SqliteReader(self._path)) as reader:
            for seq, data in reader.entries(first, end):
                if any(mark in data for mark in MARKS):
                    kind = kind_of(orjson.loads(data))
                    if kind is not None and kind[0] in self._settings.events:
                        found.append(seq)
        return found, end

    async def _tell(self, seq: int) -> bool:
        """Tell of one entry, until the receiver has taken it; False if there is no more time for that."""
        while True:
            try:
                await self._ledger.commit()
                token = await asyncio.to_thread(self._token, seq)
                if token:
                    await self._push(token, seq)
            except (LictorError, aiohttp.ClientError, OSError) as e:
                pause = self._failed(e)
            except Exception as e:
                log.exception("an event was not told")
                pause = self._failed(e)
            else:
                if self._problem:
                    log.warning("events reach %s again", self._host)
                self._failures, self._problem = 0, ""
                return True
            if self._stopping:
                return False
            await asyncio.sleep(pause)

    def _token(self, seq: int) -> str:
        """In a thread. Empty if the entry was erased meanwhile."""
        with closing(SqliteReader(self._path)) as reader:
            data = next(reader.entries(seq, seq + 1), None)
            if data is None:
                log.warning("entry %d was erased before its event was told", seq)
                return ""
            entry = orjson.loads(data[1])
            bets = [token for token in reader.late_bets(entry["agent_id"], entry["timestamp"]) if is_about(token, seq)]
        found = kind_of(entry)
        assert found is not None
        return sign(entry, found[1], event_of(entry, bets), self._monitor, self._signer)

    async def _push(self, token: str, seq: int) -> None:
        """Raises LictorError, ClientError and OSError unless the receiver has it, or will never take it."""
        assert self._session is not None
        headers = {"Content-Type": f"application/{TYP}", "Accept": "application/json"}
        async with self._session.post(self._settings.url, data=token, headers=headers, allow_redirects=False) as answer:
            if answer.status == 202:
                return
            body = bytearray()
            async for chunk in answer.content.iter_chunked(4096):
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise FormatError(f"its answer has more than {MAX_ANSWER} octets")
        said = bytes(body[:300]).decode("utf-8", "replace").strip()
        if answer.status == 400 and _error(bytes(body)) == "invalid_request":
            log.error("%s does not take the event of entry %d, which is left: %s", self._host, seq, said)
            return
        raise UsageError(f"it answers {answer.status} ({said})")

    def _keep(self, told: int) -> None:
        try:
            self._ledger.put_meta(self._meta, str(told))
        except LictorError as e:
            log.error("how far events were told is not kept, so some will be told again: %s", e)

    def _failed(self, error: Exception) -> float:
        """How long to pause, in seconds."""
        problem = str(error) or type(error).__name__
        if problem != self._problem:
            log.error("events do not reach %s: %s", self._host, problem)
        self._problem = problem
        pause = min(PAUSE_S * 2.0 ** min(self._failures, 20), BACK_OFF_S)
        self._failures += 1
        return pause * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing


def _context(settings: WebhookSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python versions differ in their defaults; this one takes the CAs that other clients take.
        context.verify_flags = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
        context.load_cert_chain(settings.cert, settings.key)
    except OSError as e:
        raise UsageError(f"webhook {settings.url}: ca, client_cert or client_key cannot be used: {e}") from None
    return context


def _error(body: bytes) -> object:
    """The `err` of an answer of RFC 8935 section 2.3."""
    try:
        return strict_json.loads_object(body).get("err")
    except FormatError:
        return None
