"""Collects witnesses' cosignatures under this log's checkpoints (c2sp.org/tlog-witness, the log's side).

In each round all witnesses are asked about one checkpoint, the log's end, so that their cosignatures stand under the
same; again now and then where it does not grow, so that they are never old. The newest with a quorum of them goes along
with delegations (`evidence.witnessed`). A witness that cannot be reached is asked again after a while that doubles; one
that says that the log does not continue what it signed before is an alarm: this log, or the witness's memory, was
changed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from ...evidence.growth import Growth
from ...evidence.ledger import Ledger
from ...evidence.proofs import consistency_proof
from ...evidence.sqlite_store import SqliteReader
from ...evidence.store import CheckpointRow
from ...evidence.witness import SIZE_TYPE, AddCheckpoint
from ...evidence.witnessed import MAX_LINE, WitnessedLine
from ...formats.cosignature import cosigners
from ...formats.errors import FormatError, LictorError, UsageError, VerificationError
from ...formats.signed_note import Note, parse_note, parse_signature
from ..config import Config, WitnessSettings

log = logging.getLogger(__name__)

ANSWER_S = 10.0
LAST_ROUND_S = 3.0
BACK_OFF_S = 300.0
FRESH_S = 60.0
"""A witness is asked to sign the end of a log that does not grow again when its cosignature is so old."""
MAX_ANSWER = 64 * 1024
_SIZE_DIGITS = 16


class _Refused(LictorError):
    """The witness says that the log does not continue what it signed."""


@dataclass(slots=True)
class _Peer:
    """What is known of one witness. `size`: what it holds of this log, as far as we know."""

    settings: WitnessSettings
    context: ssl.SSLContext | bool
    size: int = 0
    cosigned: int = 0
    signed_at: float = 0.0
    failures: int = 0
    due: float = 0.0
    problem: str = ""
    refused: bool = False


class Witnessing:
    """Asks the configured witnesses, from the event loop of the ledger."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        """Raises UsageError for a CA file that cannot be used."""
        self._interval = config.witnessing.interval_s
        self._ledger = ledger
        self._reader = SqliteReader(config.ledger.path)
        self._reading = asyncio.Lock()
        self._peers = [_Peer(settings, _context(settings)) for settings in config.witnessing.witnesses]
        self._quorum = config.witnessing.quorum
        self._note, self._size = "", 0
        self._lines: dict[str, str] = {}
        self._growth: Growth | None = None
        """How the log grows from the checkpoint of this round."""
        self._shown: tuple[Note, str, Growth] | None = None
        """The newest checkpoint with its quorum, and how the log has grown since."""
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with the rounds."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False)
        self._task = asyncio.create_task(self._rounds())

    async def stop(self) -> None:
        """One last round, of a few seconds at most, so that the end of the log is witnessed too."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            try:
                await asyncio.wait_for(self.round(), LAST_ROUND_S)
            except (LictorError, TimeoutError) as e:
                log.warning("the end of the log was not witnessed: %s", e or "no answer in time")
        if self._session is not None:
            await self._session.close()
        self._reader.close()

    def health(self) -> dict[str, Any]:
        """What each witness last said."""
        shown = [
            {"name": peer.settings.witness.name, "cosigned": peer.cosigned, "problem": peer.problem}
            for peer in self._peers
        ]
        found: dict[str, Any] = {"witnesses": shown}
        if any(peer.refused for peer in self._peers):
            found["status"] = "a witness refuses this log"
        return found

    async def _rounds(self) -> None:
        while True:
            try:
                await self.round()
            except LictorError as e:
                log.error("no round with the witnesses: %s", e)
            except Exception:
                log.exception("no round with the witnesses")
            await asyncio.sleep(self._interval)

    async def round(self) -> None:
        """Ask every witness that is due and has not signed the log's end, or not lately. Raises LedgerError."""
        async with self._reading:
            if self._shown is None:
                await self._resume()
            if self._ledger.size != self._size:
                await self._take_up()
        now = time.monotonic()
        due = [peer for peer in self._peers if self._is_wanted(peer, now) and peer.due <= now]
        await asyncio.gather(*(self._ask(peer) for peer in due))

    def _is_wanted(self, peer: _Peer, now: float) -> bool:
        return peer.cosigned < self._size or (self._size > 0 and now - peer.signed_at >= FRESH_S)

    async def _resume(self) -> None:
        """Take up the newest checkpoint that had its quorum when the monitor ended."""
        await self._ledger.commit()
        head = self._reader.head()
        kept = next((row for row in self._reader.cosigned() if row.cosignatures >= self._quorum), None)
        if kept is not None and head is not None and head.size == self._ledger.size:
            growth = Growth.of(self._reader, kept.size, head.size)
            self._ledger.follow(growth)
            self._show(kept.note, growth)

    async def _take_up(self) -> None:
        """Make the log's end the checkpoint of this round, with what was signed of it before.

        After a start every witness is asked again all the same: it may have signed a longer log than this one.
        """
        growth = self._ledger.checkpoint()
        await self._ledger.commit()
        kept = await asyncio.to_thread(self._reader.checkpoint, growth.old)
        assert kept is not None
        note, witnesses = parse_note(kept.note), [peer.settings.witness for peer in self._peers]
        cosigners(note, witnesses)
        own = [line for line in note.signatures if not any(w.signed(line) for w in witnesses)]
        if self._growth is not None and (self._shown is None or self._growth is not self._shown[2]):
            self._ledger.forget(self._growth)
        self._size, self._growth = growth.old, growth
        self._note = f"{note.text}\n{''.join(line.text() for line in own)}"
        self._lines = {w.name: line.text() for line in note.signatures for w in witnesses if w.signed(line)}

    def _show(self, note: str, growth: Growth) -> None:
        """From now on this checkpoint goes along with delegations."""
        if self._shown is not None and self._shown[2] is not growth:
            self._ledger.forget(self._shown[2])
        self._shown = parse_note(note), note, growth
        self._ledger.witnessed = self._along

    def _along(self) -> str:
        """What goes along with a BET over the log as it is now; "" where it would not be relied on."""
        assert self._shown is not None
        note, text, growth = self._shown
        if all(one.key_id != self._ledger.key_id for one in note.signatures):
            return ""  # signed before the key was exchanged
        line = WitnessedLine(text, growth.size, tuple(growth.proof())).text()
        return line if len(line) <= MAX_LINE else ""

    async def _ask(self, peer: _Peer) -> None:
        name = peer.settings.witness.name
        try:
            line = await self._cosignature(peer)
        except (LictorError, aiohttp.ClientError, TimeoutError, OSError) as e:
            self._failed(peer, e)
            return
        if peer.problem:
            log.warning("the witness %s signs again", name)
        peer.cosigned = peer.size = self._size
        peer.failures, peer.problem, peer.refused, peer.signed_at = 0, "", False, time.monotonic()
        more = name not in self._lines
        self._lines[name] = line
        note = self._note + "".join(self._lines.values())
        if more:
            self._ledger.put_checkpoint(CheckpointRow(self._size, note, len(self._lines)))
        if len(self._lines) >= self._quorum and self._growth is not None:
            self._show(note, self._growth)

    def _failed(self, peer: _Peer, error: Exception) -> None:
        problem = str(error) or type(error).__name__
        if problem != peer.problem:
            log.error("the witness %s did not sign: %s", peer.settings.witness.name, problem)
        peer.problem, peer.refused = problem, isinstance(error, _Refused)
        peer.failures += 1
        pause = min(self._interval * 2 ** min(peer.failures - 1, 20), BACK_OFF_S)
        peer.due = time.monotonic() + pause * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing

    async def _cosignature(self, peer: _Peer) -> str:
        """The witness's signature line under this round's checkpoint, verified. Raises LictorError and ClientError."""
        for _ in range(2):
            if peer.size > self._size:
                raise _Refused(
                    f"it signed {peer.size} entries of this log, which now has {self._size}: the log was cut"
                )
            async with self._reading:
                proof = await asyncio.to_thread(consistency_proof, self._reader, peer.size, self._size)
            status, kind, text = await self._post(peer, AddCheckpoint(peer.size, tuple(proof), self._note).text())
            if status == 200:
                return self._line(peer, text)
            if status == 422:
                raise _Refused(f"this log does not continue what it signed before ({text[:200].strip()})")
            if status != 409 or kind != SIZE_TYPE:
                raise UsageError(f"it answers {status} ({text[:200].strip()})")
            peer.size = _size(text)
        raise UsageError("it names another size each time that it is asked")

    async def _post(self, peer: _Peer, body: str) -> tuple[int, str, str]:
        assert self._session is not None
        url = f"{peer.settings.url}/add-checkpoint"
        async with self._session.post(
            url, data=body.encode(), ssl=peer.context, allow_redirects=False, headers={"Content-Type": "text/plain"}
        ) as answer:
            data = bytearray()
            async for chunk in answer.content.iter_chunked(4096):
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise FormatError(f"its answer has more than {MAX_ANSWER} octets")
            return answer.status, answer.headers.get("Content-Type", ""), data.decode("utf-8", "replace")

    def _line(self, peer: _Peer, text: str) -> str:
        """The one line of the answer that this witness made; lines of other keys are passed over."""
        note = parse_note(self._note)
        for line in text.splitlines():
            signature = parse_signature(line)
            if peer.settings.witness.signed(signature):
                peer.settings.witness.verify(signature, note.text)
                return f"{line}\n"
        raise VerificationError("its answer has no signature of the key that is configured for it")


def _size(text: str) -> int:
    digits = text.removesuffix("\n")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > _SIZE_DIGITS or digits != str(int(digits)):
        raise FormatError(f"its answer is no size: {text[:40]!r}")
    return int(digits)


def _context(settings: WitnessSettings) -> ssl.SSLContext | bool:
    if not settings.url.startswith("https:"):
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca)
    except OSError as e:
        raise UsageError(f"witness.ca: {settings.ca} cannot be used: {e.strerror or e}") from None
