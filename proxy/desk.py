"""Where the control process answers its workers: frames of the channel in, the recorder's receipts out.

A run of actions is recorded at once and answered in one frame when it is durable. What cannot be recorded as a run, and
what is no action, has a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable
from functools import partial
from typing import Any

from ..evidence.entry import InboundDraft, OutcomeDraft, Receipt, Tokens
from ..evidence.recorder import Recorder
from ..evidence.runs import Common, parse_common, parse_run
from ..formats.errors import LedgerError, LictorError
from .channel import Frames
from .outside.apart import Apart
from .packing import unpack

log = logging.getLogger(__name__)

MAX_COMMON = 1024
"""What so many plain runs had in common is remembered, each of at most 4 KiB, so that it is not parsed every time."""
_WORTH_KEEPING = 4096


class Desk:
    """Takes what workers ask of the recorder."""

    def __init__(self, recorder: Recorder, apart: Apart) -> None:
        self._recorder = recorder
        self._apart = apart
        self._unanswered: set[Future[None]] = set()
        self._common: dict[bytes, Common] = {}

    def take(self, frame: list[Any] | bytes, frames: Frames, source: object) -> None:
        """Do what the frame of the worker `source` asks, and answer on `frames` if it wants an answer.

        What a worker says is taken in the order in which it says it. Raises FormatError for what is no frame.
        """
        if isinstance(frame, bytes):
            self._take_run(frame, frames, source)
            return
        number, operation, payload = frame
        if operation == "finish":
            self._recorder.finish_delegation(payload)
        elif operation == "withdraw":
            seq, reason = payload
            self._recorder.withdraw(seq, reason, source)
        elif operation == "outcome":
            try:
                self._recorder.enter_outcome(OutcomeDraft(**payload))
            except Exception as e:
                _refused(e)
        elif operation == "fetch":
            draft, urn, node = payload
            self._recorder.take_over(draft["outcome_of"])
            self._keep(asyncio.ensure_future(self._fetch(OutcomeDraft(**draft), urn, node)))
        elif operation == "deliver":
            urn, request, tokens = payload
            self._answer(frames, number, self._apart.deliver(urn, request, Tokens(**tokens)))
        elif operation == "take":
            self._answer(frames, number, self._apart.take(*payload))
        elif operation == "leave":
            self._answer(frames, number, self._leave(*payload))
        elif operation == "inbound":
            told = partial(_held, frames, number)
            self._answer(frames, number, self._recorder.accept_delegation(InboundDraft(**payload), source, told))
        else:
            self._answer(frames, number, self._recorder.delegation_response(payload))

    async def _fetch(self, draft: OutcomeDraft, urn: str, node: str) -> None:
        """Ask for evidence that did not come with the answer, before the outcome says what came."""
        try:
            outcome = await self._apart.fetch(urn, node, draft.outcome)
            self._recorder.enter_outcome(OutcomeDraft(draft.outcome_of, outcome))
        except Exception as e:
            _refused(e)

    async def _leave(self, node: str, peer_id: str, nodes: list[str]) -> Tokens:
        tokens = await self._recorder.delegation_response(node)
        self._apart.leave(peer_id, nodes, tokens)
        return tokens

    async def settle(self, seconds: float) -> None:
        """Wait until everything that was asked is answered, at most `seconds`."""
        if self._unanswered:
            await asyncio.wait(self._unanswered, timeout=seconds)

    def _take_run(self, frame: bytes, frames: Frames, source: object) -> None:
        number, common, heads = unpack(frame)
        count = heads.count(b"\n") + 1
        try:
            run = parse_run(self._parsed(common), heads)
            receipts = self._recorder.enter_run(run, source)
        except Exception as e:
            frames.send([number, False, _refused(e), count])
            return
        if receipts is None:
            for one, draft in enumerate(run.drafts(), number):
                told = partial(_held, frames, one)
                self._answer(frames, one, self._recorder.record_action(draft, source, told))
            return
        durable = self._recorder.commit()
        durable.add_done_callback(partial(_send, frames, [number, True, receipts.first._asdict(), count]))
        self._keep(durable)

    def _parsed(self, data: bytes) -> Common:
        known = self._common.get(data)
        if known is None:
            known = parse_common(data)
            if known.plain and len(data) <= _WORTH_KEEPING:
                if len(self._common) >= MAX_COMMON:
                    del self._common[next(iter(self._common))]
                self._common[data] = known
        return known

    def _answer(self, frames: Frames, number: int, work: Awaitable[Any]) -> None:
        # Begun at once, not in the next turn, for the order.
        answering = _answered(frames, number, work)
        self._keep(asyncio.Task(answering, loop=asyncio.get_running_loop(), eager_start=True))

    def _keep(self, future: Future[None]) -> None:
        if not future.done():
            self._unanswered.add(future)
            future.add_done_callback(self._unanswered.discard)


def _held(frames: Frames, number: int, seq: int) -> None:
    """Say that the answer comes when somebody has decided on entry `seq`."""
    frames.send([number, None, seq])


async def _answered(frames: Frames, number: int, work: Awaitable[Any]) -> None:
    try:
        found = await work
        answer = [number, True, found._asdict() if isinstance(found, Receipt) else found]
    except Exception as e:
        answer = [number, False, _refused(e)]
    frames.send(answer)


def _send(frames: Frames, answer: list[Any], durable: Future[None]) -> None:
    error = durable.exception()
    if error is not None:
        answer[1:3] = False, _refused(error)
    frames.send(answer)


def _refused(error: BaseException) -> dict[str, str]:
    """The answer to what could not be recorded."""
    if isinstance(error, LictorError):
        log.error("not recorded: %s", error)
        # Where the log lies, and what is wrong with its disk, is for the operator.
        text = "the log cannot be written" if isinstance(error, LedgerError) else str(error)
        return {"reason": "monitor_error", "text": text}
    log.error("not recorded", exc_info=error)
    return {"reason": "monitor_error", "text": "an error inside the monitor"}
