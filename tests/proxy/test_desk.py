"""What workers ask of the recorder: in order, always answered, waited for at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lictor.evidence.entry import Receipt
from lictor.formats.errors import LedgerError
from lictor.proxy.desk import Desk

ACTION = {
    "agent_id": "spiffe://x.test/agent/a",
    "action_type": "http_request",
    "action_target": "https://x.test/",
    "action_parameters": {},
    "decision": "allow",
    "reason": "allowed",
    "behaviors": [],
}


class Recorder:
    """Notes what is asked; receipts come when `durable` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.durable = asyncio.Event()
        self.error = error

    async def record_action(self, draft: Any, source: object, told: Any) -> Receipt:
        self.asked.append("action")
        await self.durable.wait()
        if self.error is not None:
            raise self.error
        return Receipt(1, 1.0, "allow", "allowed", "w", "n")

    async def record_outcome(self, draft: Any) -> None:
        self.asked.append("outcome")

    def finish_delegation(self, node: str) -> None:
        self.asked.append("finish")


class Frames:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, frame: list[Any]) -> None:
        self.sent.append(frame)


def desk_of(recorder: Recorder) -> Desk:
    return Desk(recorder)  # type: ignore[arg-type]


async def test_what_is_said_in_one_turn_is_taken_in_order() -> None:
    recorder, frames = Recorder(), Frames()
    desk = desk_of(recorder)
    outcome = {"outcome_of": 1, "outcome": {}}
    for frame in ([1, "action", ACTION], [0, "finish", "n"], [2, "action", ACTION], [0, "outcome", outcome]):
        desk.take(frame, frames, None)  # type: ignore[arg-type]
    assert recorder.asked == ["action", "finish", "action", "outcome"]
    assert frames.sent == []
    recorder.durable.set()
    await desk.settle(5)
    assert [frame[:2] for frame in frames.sent] == [[1, True], [2, True]]


@pytest.mark.parametrize(
    ("error", "text"),
    [(LedgerError("the disk is full"), "the disk is full"), (RuntimeError("x"), "an error inside the monitor")],
)
async def test_what_cannot_be_recorded_is_answered_too(error: Exception, text: str) -> None:
    recorder, frames = Recorder(error), Frames()
    desk = desk_of(recorder)
    desk.take([7, "action", ACTION], frames, None)  # type: ignore[arg-type]
    recorder.durable.set()
    await desk.settle(5)
    assert frames.sent == [[7, False, {"reason": "monitor_error", "text": text}]]


async def test_what_hangs_is_not_waited_for_for_ever() -> None:
    desk = desk_of(Recorder())
    desk.take([1, "action", ACTION], Frames(), None)  # type: ignore[arg-type]
    await desk.settle(0.01)
