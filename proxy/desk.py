"""Where the control process answers its workers: frames of the channel in, the recorder's receipts out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..evidence.entry import ActionDraft, InboundDraft, OutcomeDraft
from ..evidence.recorder import Recorder
from ..formats.errors import LictorError
from .channel import Frames

log = logging.getLogger(__name__)


class Desk:
    """Takes what workers ask of the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, frame: list[Any], frames: Frames, source: object) -> None:
        """Do what the frame of the worker `source` asks, and answer on `frames` if it wants an answer."""
        number, operation, payload = frame
        if operation == "finish":
            self._recorder.finish_delegation(payload)
            return
        if operation == "withdraw":
            seq, reason = payload
            self._recorder.withdraw(seq, reason, source)
            return
        # Begun at once, not in the next turn: what a worker says is taken in the order in which it says it.
        answering = self._answer(frames, number, self._work(source, operation, payload, partial(_held, frames, number)))
        task = asyncio.Task(answering, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self, seconds: float) -> None:
        """Wait until everything that was asked is answered, at most `seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _work(self, source: object, operation: str, payload: Any, told: Callable[[int], None]) -> Awaitable[Any]:
        if operation == "action":
            return self._recorder.record_action(ActionDraft(**payload), source, told)
        if operation == "outcome":
            return self._recorder.record_outcome(OutcomeDraft(**payload))
        if operation == "inbound":
            return self._recorder.accept_delegation(InboundDraft(**payload), source, told)
        return self._recorder.delegation_response(payload)

    async def _answer(self, frames: Frames, number: int, work: Awaitable[Any]) -> None:
        try:
            answer = [number, True, await work]
        except LictorError as e:
            log.error("not recorded: %s", e)
            answer = [number, False, {"reason": "monitor_error", "text": str(e)}]
        except Exception:
            log.exception("not recorded")
            answer = [number, False, {"reason": "monitor_error", "text": "an error inside the monitor"}]
        if number:
            frames.send(answer)


def _held(frames: Frames, number: int, seq: int) -> None:
    """Say that the answer comes when somebody has decided on entry `seq`."""
    frames.send([number, None, seq])
