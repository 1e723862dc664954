"""The channel under pressure: late answers, a control process that does not read, limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from lictor.evidence.entry import ActionDraft, InboundDraft, Receipt, Tokens
from lictor.proxy.channel import NOT_FORWARDED, ControlClient, ControlError, Frames
from lictor.proxy.packing import unpack

DRAFT = ActionDraft("spiffe://x.test/agent/a", "http_request", "https://x.test/", {}, "allow", "allowed", ())
INBOUND = InboundDraft("spiffe://x.test/agent/a", "spiffe://x.test/monitor/b", "urn:a", {}, "allow", "allowed")


def receipt(seq: int, decision: str = "allow") -> dict[str, Any]:
    return {"seq": seq, "timestamp": 1.0, "decision": decision, "reason": "r", "wid": "w", "node": f"node {seq}"}


class Ends:
    """A client, and what the control process got and may answer."""

    def __init__(self, timeout: float, limit: int) -> None:
        self.got: list[Any] = []
        self.runs: list[int] = []
        self.client = ControlClient(timeout=timeout, limit=limit, on_push=print, on_lost=lambda: None)

    async def connect(self) -> Ends:
        ours, theirs = socket.socketpair()
        self.control = Frames(self.heard, lambda: None)
        await asyncio.get_running_loop().create_connection(lambda: self.control, sock=ours)
        await self.client.connect(theirs)
        return self

    def heard(self, frame: list[Any] | bytes) -> None:
        """A run as if each of its actions had a frame."""
        if isinstance(frame, bytes):
            number, _, heads = unpack(frame)
            self.runs.append(heads.count(b"\n") + 1)
            self.got += [[at, "action", orjson.loads(head)] for at, head in enumerate(heads.split(b"\n"), number)]
        else:
            self.got.append(frame)

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
    both = await ends(limit=4)
    for _ in range(2):
        assert "no receipt within" in str(await refused(both.client))
    error = await refused(both.client)
    assert (error.reason, str(error)) == ("overloaded", "2 actions of this agent wait to be recorded already")
    assert len(both.got) == 2
    both.control.send([both.got[0][0], False, {"text": "t", "reason": "monitor_error"}])
    await asyncio.sleep(0.02)
    assert "no receipt within" in str(await refused(both.client))
    assert len(both.got) == 3


async def test_deliveries_of_one_agent_leave_room_for_others(ends: Any) -> None:
    """They take as long as another monitor does."""
    one, said = await ends(timeout=60, limit=8), []
    for number in range(8):
        one.client.deliver("spiffe://x.test/agent/a", "urn:x", f"r{number}", Tokens(), said.append)
    assert [str(error) for error in said] == ["4 actions of this agent wait to be recorded already"] * 4
    one.client.record_action(replace(DRAFT, agent_id="spiffe://x.test/agent/b"), said.append)
    await one.has(5)


async def test_one_agent_leaves_room_for_others(ends: Any) -> None:
    """It may have as many waiting as there is still room for: alone half of all, and less where others wait too."""
    one = await ends(timeout=60, limit=8)
    answers: dict[str, list[Any]] = {}
    for agent in ("a", "b", "c"):
        answers[agent] = []
        for _ in range(8):
            draft = replace(DRAFT, agent_id=f"spiffe://x.test/agent/{agent}")
            one.client.record_action(draft, answers[agent].append)
    assert {agent: (8 - len(got), str(got[0])) for agent, got in answers.items()} == {
        "a": (4, "4 actions of this agent wait to be recorded already"),
        "b": (2, "2 actions of this agent wait to be recorded already"),
        "c": (1, "1 actions of this agent wait to be recorded already"),
    }
    await one.has(7)
    for number, *_ in one.got[:4]:
        one.control.send([number, True, receipt(number)])
    async with asyncio.timeout(5):
        while sum(isinstance(answer, Receipt) for answer in answers["a"]) < 4:
            await asyncio.sleep(0.005)
    one.client.record_action(draft, answers["c"].append)
    assert len(answers["c"]) == 7, "and there is room again"


class TestFrames:
    """The cutting of the byte stream, and what becomes of one that is no frames."""

    async def frames(self) -> tuple[Frames, list[Any], list[bool], socket.socket]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        got, lost = list[Any](), list[bool]()
        frames = Frames(got.append, lambda: lost.append(True))
        await asyncio.get_running_loop().create_connection(lambda: frames, sock=ours)
        return frames, got, lost, theirs

    async def until(self, ask: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not ask():
                await asyncio.sleep(0.005)

    async def test_cut_anywhere(self) -> None:
        frames, got, _, other = await self.frames()
        data = b"".join(len(one).to_bytes(4) + one for one in (b"[1]", b'{"a":"' + b"x" * 70_000 + b'"}', b"[2]"))
        for start in range(0, len(data), 777):
            other.send(data[start : start + 777])
            await asyncio.sleep(0)
        await self.until(lambda: len(got) == 3)
        assert (got[0], got[2], len(got[1]["a"])) == ([1], [2], 70_000)
        frames.close()

    async def test_order(self) -> None:
        frames, _, _, other = await self.frames()
        for number in range(100):
            frames.send([number])
        await asyncio.sleep(0.05)
        data, numbers = other.recv(65536), []
        while data:
            end = 4 + int.from_bytes(data[:4])
            numbers.append(int(data[5 : end - 1]))
            data = data[end:]
        assert numbers == list(range(100))
        frames.close()

    @pytest.mark.parametrize(
        ("what", "data"),
        [("length beyond the bound", b"\xff\xff\xff\xff"), ("not JSON", b"\0\0\0\1{"), ("not UTF-8", b"\0\0\0\1\xff")],
    )
    async def test_what_is_no_frame_ends_the_channel(self, what: str, data: bytes) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        _, got, lost, other = await self.frames()
        other.send(data)
        await self.until(lambda: lost)
        assert got == []

    async def test_sending_to_nobody(self) -> None:
        frames, _, lost, other = await self.frames()
        other.close()
        await self.until(lambda: lost)
        frames.send([1])
        await asyncio.sleep(0)


async def test_the_control_process_dies(ends: Any) -> None:
    """Everything that waits is refused at once, everything after it too, and the worker is told."""
    one = await ends(timeout=60, limit=10)
    gone: list[bool] = []
    one.client._on_lost = lambda: gone.append(True)
    answers: list[Any] = []
    waiting = [one.client.record_action(DRAFT, answers.append) for _ in range(3)]
    await one.has(3)
    one.control.close()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert [type(a) for a in answers] == [ControlError] * 3
    assert gone == [True]
    assert "gone" in str(await refused(one.client))
    one.client.tell("outcome", None)


async def test_a_hook_that_fails_on_its_receipt(ends: Any) -> None:
    """The exception reaches the engine, which refuses the exchange."""
    one = await ends(timeout=60, limit=10)

    def fails(answer: Any) -> None:
        raise ValueError("in the hook")

    future = one.client.record_action(DRAFT, fails)
    await one.has(1)
    one.control.send([one.got[0][0], True, receipt(0)])
    with pytest.raises(ValueError, match="in the hook"):
        await asyncio.wait_for(future, 5)


async def test_an_answer_that_is_no_receipt_is_none(ends: Any) -> None:
    one = await ends(timeout=0.3, limit=10)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    answers: list[Any] = []
    future = one.client.record_action(DRAFT, answers.append)
    await one.has(1)
    one.control.send([one.got[0][0], True, {"decision": "allow"}])
    await asyncio.wait_for(asyncio.wait([future]), 5)
    assert not any(getattr(a, "decision", "") == "allow" for a in answers)


class TestRuns:
    """Actions that are alike travel together, and are answered together."""

    async def test_what_is_alike_in_one_turn_is_one_frame(self, ends: Any) -> None:
        one = await ends(timeout=60, limit=10)
        for draft in (DRAFT, replace(DRAFT, action_target="https://y.test/"), replace(DRAFT, reason="other"), DRAFT):
            one.client.record_action(draft, print)
        one.client.tell("finish", "n")
        one.client.record_action(DRAFT, print)
        await one.has(6)
        assert one.runs == [2, 1, 1, 1]
        assert [frame[:2] for frame in one.got] == [
            *([n, "action"] for n in (1, 2, 3, 4)),
            [0, "finish"],
            [5, "action"],
        ]
        assert one.got[1][2] == {"action_parameters": {}, "action_target": "https://y.test/"}

    async def test_what_asks_in_between_does_not_shift_the_numbers(self, ends: Any) -> None:
        one = await ends(timeout=60, limit=10)
        one.client.record_action(DRAFT, print)
        one.client.delegation_response("n", print)
        one.client.record_action(DRAFT, print)
        await one.has(3)
        assert [frame[:2] for frame in one.got] == [[1, "action"], [2, "response"], [3, "action"]]

    async def test_one_answer_for_all(self, ends: Any) -> None:
        one = await ends(timeout=60, limit=10)
        answers: list[Any] = []
        waiting = [one.client.record_action(DRAFT, answers.append) for _ in range(3)]
        await one.has(3)
        one.control.send([one.got[0][0], True, {**receipt(7), "timestamp": 1790000000.999999}, 3])
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert answers == [
            Receipt(7 + at, stamp, "allow", "r", "w", "node 7")
            for at, stamp in enumerate((1790000000.999999, 1790000001.0, 1790000001.000001))
        ]
        assert one.client.busy, "none of them has ended"

    async def test_one_refusal_for_all(self, ends: Any) -> None:
        one = await ends(timeout=60, limit=10)
        answers: list[Any] = []
        waiting = [one.client.record_action(DRAFT, answers.append) for _ in range(3)]
        await one.has(3)
        one.control.send([one.got[0][0], False, {"text": "t", "reason": "monitor_error"}, 3])
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert [(type(answer), str(answer)) for answer in answers] == [(ControlError, "t")] * 3

    async def test_each_that_comes_too_late_gets_its_own_outcome(self, ends: Any) -> None:
        one = await ends()
        await asyncio.gather(*(one.client.record_action(DRAFT, print) for _ in range(2)))
        one.control.send([one.got[0][0], True, receipt(7), 2])
        await one.has(4)
        assert [frame[2] for frame in one.got[2:]] == [{"outcome_of": n, "outcome": NOT_FORWARDED} for n in (7, 8)]

    async def test_what_has_no_canonical_form_is_refused_where_it_is(self, ends: Any) -> None:
        one = await ends(timeout=60, limit=10)
        answers: list[Any] = []
        await one.client.record_action(replace(DRAFT, action_parameters={"x": float("nan")}), answers.append)
        assert isinstance(answers[0], ControlError)
        assert not one.client.busy


async def test_what_is_held_waits_for_as_long_as_it_takes(ends: Any) -> None:
    one = await ends(timeout=0.4)
    answers, held = list[Any](), list[int]()
    waiting = one.client.record_action(DRAFT, answers.append, held.append)
    await one.has(1)
    one.control.send([one.got[0][0], None, 7])
    await asyncio.sleep(0.6)
    assert (held, answers, one.client.busy) == ([7], [], False)
    one.control.send([one.got[0][0], True, {**receipt(7), "reason": "approved"}])
    await waiting
    assert [(answer.seq, answer.reason) for answer in answers] == [(7, "approved")]
    one.client.withdraw(7, "caller_gone")
    await one.has(2)
    assert one.got[1] == [0, "withdraw", [7, "caller_gone"]]


async def test_what_is_held_too_late_is_withdrawn(ends: Any) -> None:
    """It was refused already, so nobody waits for the decision."""
    one = await ends(timeout=0.05)
    await refused(one.client)
    one.control.send([one.got[0][0], None, 7])
    await one.has(2)
    assert one.got[1] == [0, "withdraw", [7, "caller_gone"]]


async def test_what_is_held_takes_no_room_and_ends_with_the_control_process(ends: Any) -> None:
    one = await ends(timeout=5, limit=1)
    answers = list[Any]()
    waiting = [one.client.record_action(DRAFT, answers.append)]
    await one.has(1)
    one.control.send([one.got[0][0], None, 7])
    await asyncio.sleep(0.05)
    waiting.append(one.client.record_action(DRAFT, answers.append))
    await one.has(2)
    one.control.close()
    await asyncio.gather(*waiting)
    assert [str(answer) for answer in answers] == ["the control process is gone"] * 2
