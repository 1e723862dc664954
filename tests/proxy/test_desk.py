"""What workers ask of the recorder: in order, always answered, waited for at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lictor.evidence.entry import ActionDraft, Receipt, Tokens
from lictor.evidence.runs import Receipts, Run, encode
from lictor.formats.errors import FormatError, LedgerError
from lictor.proxy.desk import MAX_COMMON, Desk
from lictor.proxy.packing import Packing

SAID = {"policy_id": "urn:p", "version": "1.0.0", "binding": "d", "behavior_id": "b", "result": "pass"}
RECEIPT = Receipt(1, 1.0, "allow", "allowed", "w", "n")


def action(target: str = "https://x.test/", **changes: Any) -> ActionDraft:
    fields = {"decision": "allow", "reason": "allowed", "behaviors": (SAID,), **changes}
    return ActionDraft("spiffe://x.test/agent/a", "http_request", target, {}, **fields)


def run(number: int, *drafts: ActionDraft) -> bytes:
    packing = Packing(number, *encode(drafts[0]))
    for at, draft in enumerate(drafts[1:], number + 1):
        assert packing.take(at, *encode(draft))
    return packing.frame()


class Recorder:
    """Notes what is asked; receipts come when `durable` is set. Runs are recorded whole if `whole`."""

    def __init__(self, error: Exception | None = None, *, whole: bool = True) -> None:
        self.asked: list[str] = []
        self.durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error = error
        self.whole = whole

    def enter_run(self, run: Run, source: object) -> Receipts | None:
        self.asked.append(f"run of {len(run.heads)}")
        return Receipts(RECEIPT, len(run.heads)) if self.whole else None

    def commit(self) -> asyncio.Future[None]:
        return self.durable

    async def record_action(self, draft: ActionDraft, source: object, told: Any) -> Receipt:
        self.asked.append(draft.action_target)
        await asyncio.shield(self.durable)
        return RECEIPT

    def enter_outcome(self, draft: Any) -> None:
        self.asked.append("outcome")
        if self.error is not None:
            raise self.error

    def finish_delegation(self, node: str) -> None:
        self.asked.append("finish")

    def end(self) -> None:
        if self.error is not None:
            self.durable.set_exception(self.error)
        else:
            self.durable.set_result(None)


class Frames:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, frame: list[Any]) -> None:
        self.sent.append(frame)


def desk_of(recorder: Recorder) -> Desk:
    return Desk(recorder, None)  # type: ignore[arg-type]


async def test_what_is_said_in_one_turn_is_taken_in_order() -> None:
    recorder, frames = Recorder(), Frames()
    desk = desk_of(recorder)
    outcome = {"outcome_of": 1, "outcome": {}}
    for frame in (run(1, action(), action()), [0, "finish", "n"], run(3, action()), [0, "outcome", outcome]):
        desk.take(frame, frames, None)  # type: ignore[arg-type]
    assert recorder.asked == ["run of 2", "finish", "run of 1", "outcome"]
    await asyncio.sleep(0)
    assert frames.sent == [], "nothing is durable yet"
    recorder.end()
    await desk.settle(5)
    assert frames.sent == [[1, True, RECEIPT._asdict(), 2], [3, True, RECEIPT._asdict(), 1]]


async def test_a_run_that_has_to_be_looked_at_one_by_one() -> None:
    recorder, frames = Recorder(whole=False), Frames()
    desk = desk_of(recorder)
    desk.take(run(5, action("urn:a"), action("urn:b")), frames, None)  # type: ignore[arg-type]
    assert recorder.asked == ["run of 2", "urn:a", "urn:b"], "begun at once, in order"
    recorder.end()
    await desk.settle(5)
    assert frames.sent == [[5, True, RECEIPT._asdict()], [6, True, RECEIPT._asdict()]]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LedgerError("/var/lib/x is full"), "the log cannot be written"),
        (FormatError("too large"), "too large"),
        (RuntimeError("x"), "an error inside the monitor"),
    ],
)
async def test_what_cannot_be_recorded_is_answered_too(error: Exception, text: str, whole: bool) -> None:
    recorder, frames = Recorder(error, whole=whole), Frames()
    desk = desk_of(recorder)
    desk.take(run(7, action()), frames, None)  # type: ignore[arg-type]
    recorder.end()
    await desk.settle(5)
    assert [frame[:3] for frame in frames.sent] == [[7, False, {"reason": "monitor_error", "text": text}]]


async def test_an_outcome_that_cannot_be_recorded_harms_nobody() -> None:
    frames = Frames()
    outcome = {"outcome_of": 1, "outcome": {}}
    desk_of(Recorder(LedgerError("x"))).take([0, "outcome", outcome], frames, None)  # type: ignore[arg-type]
    assert frames.sent == []


@pytest.mark.parametrize(
    ("what", "common", "heads"),
    [
        ("head not canonical", None, b'{"action_target":"x","action_parameters":{}}'),
        ("second head not canonical", None, b'{"action_parameters":{},"action_target":"x"}\n{}'),
        ("nothing in common", b"{}", b'{"action_parameters":{},"action_target":"x"}'),
        ("no JSON", b"\xff", b""),
    ],
)
async def test_a_run_that_is_none_is_refused_whole(what: str, common: bytes | None, heads: bytes) -> None:
    recorder, frames = Recorder(), Frames()
    packing = Packing(3, common or encode(action())[0], heads)
    desk_of(recorder).take(packing.frame(), frames, None)  # type: ignore[arg-type]
    [(number, good, answer, count)] = frames.sent
    assert (number, good, answer["reason"], count) == (3, False, "monitor_error", heads.count(b"\n") + 1)
    assert recorder.asked == []


async def test_a_frame_that_is_none_ends_the_channel() -> None:
    with pytest.raises(FormatError):
        desk_of(Recorder()).take(b"A", Frames(), None)  # type: ignore[arg-type]


async def test_what_is_remembered_is_bounded() -> None:
    desk = desk_of(Recorder())
    for number in range(MAX_COMMON + 10):
        desk.take(run(number, action(reason=f"r{number}")), Frames(), None)  # type: ignore[arg-type]
    kept = list(desk._common)
    assert len(kept) == MAX_COMMON
    for other in (action(reason="r" * 5000), action(traceparent="of one request")):
        desk.take(run(1, other), Frames(), None)  # type: ignore[arg-type]
    assert list(desk._common) == kept, "what is large, or will not come again, takes no room from others"


async def test_what_hangs_is_not_waited_for_for_ever() -> None:
    desk = desk_of(Recorder())
    desk.take(run(1, action()), Frames(), None)  # type: ignore[arg-type]
    await desk.settle(0.01)


class Apart:
    """Stands for the monitors of others."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.go_on = asyncio.Event()

    async def deliver(self, urn: str, request: str, tokens: Tokens) -> str:
        self.done.append((urn, request, tokens))
        return "no"

    async def take(self, peer: str, request: str) -> Tokens:
        return Tokens((f"{peer}/{request}",))

    def leave(self, peer: str, nodes: list[str], tokens: Tokens) -> None:
        self.done.append((peer, nodes, tokens))

    async def fetch(self, urn: str, node: str, outcome: dict[str, Any]) -> dict[str, Any]:
        await self.go_on.wait()
        return {**outcome, "from": [urn, node]}


class Delegated(Recorder):
    """With a delegation that is open."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(error)
        self.outcomes: list[Any] = []

    async def delegation_response(self, node: str) -> Tokens:
        self.asked.append(f"response of {node}")
        return Tokens(("node",), ("bet",))

    def take_over(self, seq: int) -> None:
        self.asked.append(f"take over {seq}")

    def enter_outcome(self, draft: Any) -> None:
        super().enter_outcome(draft)
        self.outcomes.append((draft.outcome_of, draft.outcome))


async def test_evidence_that_goes_apart() -> None:
    recorder, apart, frames = Delegated(), Apart(), Frames()
    desk = Desk(recorder, apart)  # type: ignore[arg-type]
    tokens = {"execution_context": ["n"], "behavioral_evidence": ["b"], "checkpoint": []}
    desk.take([1, "deliver", ["urn:x", "request", tokens]], frames, None)  # type: ignore[arg-type]
    desk.take([2, "take", ["spiffe://p", "request"]], frames, None)  # type: ignore[arg-type]
    desk.take([3, "leave", ["node-b", "spiffe://p", ["node-a"]]], frames, None)  # type: ignore[arg-type]
    await desk.settle(5)
    taken, left = Tokens(("spiffe://p/request",)), Tokens(("node",), ("bet",))
    assert frames.sent == [[1, True, "no"], [2, True, taken], [3, True, left]]
    assert apart.done == [("urn:x", "request", Tokens(["n"], ["b"], [])), ("spiffe://p", ["node-a"], left)]  # type: ignore[arg-type]
    assert recorder.asked == ["response of node-b"]


async def test_an_outcome_that_waits_for_more_is_the_control_process_own() -> None:
    recorder, apart, frames = Delegated(), Apart(), Frames()
    desk = Desk(recorder, apart)  # type: ignore[arg-type]
    draft = {"outcome_of": 1, "outcome": {"status": 200}}
    desk.take([0, "fetch", [draft, "urn:x", "node-a"]], frames, None)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert (recorder.asked, recorder.outcomes) == (["take over 1"], [])
    apart.go_on.set()
    await desk.settle(5)
    assert recorder.outcomes == [(1, {"status": 200, "from": ["urn:x", "node-a"]})]
    assert frames.sent == []


async def test_an_outcome_with_more_that_cannot_be_recorded_harms_nobody() -> None:
    apart, frames = Apart(), Frames()
    apart.go_on.set()
    desk = Desk(Delegated(LedgerError("x")), apart)  # type: ignore[arg-type]
    desk.take([0, "fetch", [{"outcome_of": 1, "outcome": {}}, "urn:x", "n"]], frames, None)  # type: ignore[arg-type]
    await desk.settle(5)
    assert frames.sent == []
