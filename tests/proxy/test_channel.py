"""The channel under pressure: late answers, a control process that does not read, limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lictor.evidence.entry import ActionDraft, InboundDraft
from lictor.proxy.channel import NOT_FORWARDED, ControlClient, ControlError, Frames

DRAFT = ActionDraft("spiffe://x.test/agent/a", "http_request", "https://x.test/", {}, "allow", "allowed", ())
INBOUND = InboundDraft("spiffe://x.test/agent/a", "spiffe://x.test/monitor/b", "urn:a", {}, "allow", "allowed")


def receipt(seq: int, decision: str = "allow") -> dict[str, Any]:
    return {"seq": seq, "timestamp": 1.0, "decision": decision, "reason": "r", "wid": "w", "node": f"node {seq}"}


class Ends:
    """A client, and what the control process got and may answer."""

    def __init__(self, timeout: float, limit: int) -> None:
        self.got: list[Any] = []
        self.client = ControlClient(timeout=timeout, limit=limit, on_push=print, on_lost=lambda: None)

    async def connect(self) -> Ends:
        ours, theirs = socket.socketpair()
        self.control = Frames(self.got.append, lambda: None)
        await asyncio.get_running_loop().create_connection(lambda: self.control, sock=ours)
        await self.client.connect(theirs)
        return self

    async def has(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.got) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def ends() -> AsyncIterator[Callable[..., Any]]:
    made: list[Ends] = []

    async def make(timeout: float = 0.05, limit: int = 3) -> Ends:
        made.append(await Ends(timeout, limit).connect())
        return made[-1]

    yield make
    for one in made:
        one.control.close()


async def refused(client: ControlClient) -> ControlError:
    answers: list[Any] = []
    await client.record_action(DRAFT, answers.append)
    [error] = answers
    assert isinstance(error, ControlError)
    return error


async def test_a_receipt_that_comes_too_late_gets_the_outcome_that_nothing_left(ends: Any) -> None:
    both = await ends()
    assert "no receipt within" in str(await refused(both.client))
    both.control.send([both.got[0][0], True, receipt(7)])
    await both.has(2)
    assert both.got[1] == [0, "outcome", {"outcome_of": 7, "outcome": NOT_FORWARDED}]


async def test_a_denial_that_comes_too_late_has_no_outcome(ends: Any) -> None:
    both = await ends()
    for seq, decision in ((7, "deny"), (8, "allow")):
        await refused(both.client)
        both.control.send([both.got[-1][0], True, receipt(seq, decision)])
        await asyncio.sleep(0.01)
    await both.has(3)
    assert [frame[2]["outcome_of"] for frame in both.got if frame[1] == "outcome"] == [8]


async def test_a_delegation_taken_up_too_late_is_over_at_once(ends: Any) -> None:
    both = await ends()
    await both.client.accept_delegation(INBOUND, lambda answer: None)
    both.control.send([both.got[0][0], True, receipt(7)])
    await both.has(3)
    assert [frame[1:] for frame in both.got[1:]] == [
        ["outcome", {"outcome_of": 7, "outcome": NOT_FORWARDED}],
        ["finish", "node 7"],
    ]


async def test_what_was_refused_for_lateness_still_counts_until_it_is_answered(ends: Any) -> None:
    """Else a control process that hangs would be sent more and more."""
    both = await ends(limit=2)
    for _ in range(2):
        assert "no receipt within" in str(await refused(both.client))
    error = await refused(both.client)
    assert (error.reason, str(error)) == ("overloaded", "2 actions wait to be recorded already")
    assert len(both.got) == 2
    both.control.send([both.got[0][0], False, {"text": "t", "reason": "monitor_error"}])
    await asyncio.sleep(0.02)
    assert "no receipt within" in str(await refused(both.client))
    assert len(both.got) == 3
