"""The channel between a worker and the control process: length-prefixed frames over a Unix socket pair.

The control process makes the pair and hands one end to the worker that it starts, so there is no path that anything
else could connect to. Worker to control: `[id, operation, payload]`, id 0 wants no answer, and for actions runs, which
are no JSON (`packing`). Control to worker: `[id, true, payload]`, `[id, false, {"reason", "text"}]`, the same with a
count for so many ids from this one on (`evidence.runs.Receipts`), and `[0, true, …]` for what it says unasked.
`[id, null, seq]` says that the answer comes when somebody has decided on the action of that entry.
Frames that are ready in one turn of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import orjson

from ..bindings.model import Verdict
from ..evidence.entry import ActionDraft, InboundDraft, OutcomeDraft, Receipt, Tokens
from ..evidence.runs import Receipts, encode
from ..formats.errors import FormatError, LictorError
from .packing import MARK, Packing

MAX_FRAME = 64 * 1024 * 1024
_LENGTH = struct.Struct("!I")
_HIGH_WATER = 4 * 1024 * 1024
NOT_FORWARDED = {"status": 0, "complete": False, "error": "refused: the receipt came too late, nothing was forwarded"}
"""The outcome of an action that was allowed and recorded, but too late."""


class ControlError(LictorError):
    """The control process did not give a receipt. `reason` is the refusal's: monitor_error or overloaded."""

    def __init__(self, text: str, reason: str = "monitor_error") -> None:
        super().__init__(text)
        self.reason = reason


class Frames(asyncio.Protocol):
    """Both ends: cuts the byte stream into frames, and gathers outgoing frames into one write a turn.

    `receive` gets JSON values, and the octets of frames that are runs.
    """

    def __init__(self, receive: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._buffer = bytearray()
        self._out: list[bytes | Packing] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not of this class
        self._transport.set_write_buffer_limits(_HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_FRAME:
                self.close()
                return
            end = start + 4 + length
            if len(buffer) < end:
                break
            frame = bytes(memoryview(buffer)[start + 4 : end])
            self._receive(orjson.loads(frame) if frame[:1] != MARK else frame)
            start = end
        del buffer[:start]

    def send(self, frame: list[Any]) -> None:
        """Send one frame; dropped when the other end is gone (`lost` was called then)."""
        self._put(orjson.dumps(frame))

    def send_action(self, number: int, common: bytes, head: bytes) -> None:
        """Send an action, in one frame with those before it if they are alike."""
        if not self._out or not isinstance(last := self._out[-1], Packing) or not last.take(number, common, head):
            self._put(Packing(number, common, head))

    def _put(self, frame: bytes | Packing) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            frames = [frame if isinstance(frame, bytes) else frame.frame() for frame in out]
            self._transport.write(b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame)))

    @property
    def full(self) -> bool:
        """The other end is not reading."""
        return self._transport is not None and self._transport.get_write_buffer_size() > _HIGH_WATER

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Waiting:
    __slots__ = ("agent", "future", "held", "make", "operation", "since", "then")

    def __init__(
        self,
        operation: str,
        then: Callable[[Any], None],
        make: Callable[[dict[str, Any]], object],
        future: Future[None],
        held: Callable[[int], None] | None,
        agent: str,
    ) -> None:
        self.agent = agent
        self.held = held
        self.operation = operation
        self.then = then
        self.make = make
        self.future = future
        self.since = time.monotonic()


class ControlClient:
    """The worker's end. Implements `addons.exchange.Control`.

    Every request's future is done, without an exception, once `then` was called with the answer or with a ControlError:
    after `timeout` seconds, when more than `limit` are unanswered, when those of one agent that are would be more than
    there is still room for, and when the control process is gone. What was not
    answered in time was refused: when its receipt comes after all, the entry gets the outcome that nothing left. An
    action that is held waits for as long as the control process lets it; `held` is called with its seq.
    """

    def __init__(
        self, *, timeout: float, limit: int, on_push: Callable[[Any], None], on_lost: Callable[[], None]
    ) -> None:
        self._timeout = timeout
        self._limit = limit
        self._on_push = on_push
        self._on_lost = on_lost
        self._waiting: dict[int, _Waiting] = {}
        self._waiting_of: Counter[str] = Counter()
        """How many of `_waiting` and `_late` are of each agent."""
        self._held: dict[int, _Waiting] = {}
        """What waits for somebody's decision."""
        self._late: dict[int, tuple[str, str]] = {}
        """What was refused because its answer did not come in time: operation and agent. The answer still will."""
        self._under_way: set[int] = set()
        """The seq of every action that was let out and has no outcome yet."""
        self._next = 1
        self._loop = asyncio.get_running_loop()
        self._frames: Frames | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Something waits for its receipt, or was let out and has not ended."""
        return bool(self._waiting or self._under_way)

    async def connect(self, sock: socket.socket) -> None:
        """Take up the worker's end of the socket pair."""
        _, self._frames = await self._loop.create_connection(lambda: Frames(self._received, self._gone), sock=sock)
        self._sweep()

    def record_action(
        self,
        draft: ActionDraft,
        then: Callable[[Receipt | ControlError], None],
        held: Callable[[int], None] | None = None,
    ) -> Future[None]:
        future: Future[None] = self._loop.create_future()
        waiting = _Waiting("action", then, self._receipt, future, held, draft.agent_id)
        try:
            common, head = encode(draft)
        except FormatError as e:
            _settle(waiting, ControlError(str(e)))
            return future
        if (frames := self._open(waiting)) is not None:
            frames.send_action(self._await(waiting), common, head)
        return future

    def accept_delegation(
        self,
        draft: InboundDraft,
        then: Callable[[Receipt | ControlError], None],
        held: Callable[[int], None] | None = None,
    ) -> Future[None]:
        return self._ask("inbound", draft, then, self._receipt, held, draft.peer_id)

    def withdraw(self, seq: int, reason: str) -> None:
        self.tell("withdraw", (seq, reason))

    def delegation_response(self, node: str, then: Callable[[Tokens | ControlError], None]) -> Future[None]:
        return self._ask("response", node, then, lambda answer: Tokens(**answer))

    def deliver(
        self, agent_id: str, urn: str, request: str, tokens: Tokens, then: Callable[[str | ControlError], None]
    ) -> Future[None]:
        return self._ask("deliver", (urn, request, tokens), then, str, agent=agent_id)

    def take_delivery(self, peer_id: str, request: str, then: Callable[[Tokens | ControlError], None]) -> Future[None]:
        return self._ask("take", (peer_id, request), then, lambda answer: Tokens(**answer))

    def leave_evidence(
        self, node: str, peer_id: str, nodes: Sequence[str], then: Callable[[Tokens | ControlError], None]
    ) -> Future[None]:
        return self._ask("leave", (node, peer_id, nodes), then, lambda answer: Tokens(**answer))

    def finish_delegation(self, node: str) -> None:
        self.tell("finish", node)

    def record_outcome(self, draft: OutcomeDraft, fetch: tuple[str, str] | None = None) -> None:
        self._under_way.discard(draft.outcome_of)
        if fetch is None:
            self.tell("outcome", draft)
        else:
            self.tell("fetch", (draft, *fetch))

    def _receipt(self, answer: Receipt | dict[str, Any]) -> Receipt:
        receipt = _as_receipt(answer)
        if receipt.decision != Verdict.DENY:
            self._under_way.add(receipt.seq)
        return receipt

    def tell(self, operation: str, payload: object) -> None:
        """Send what wants no answer."""
        if self._frames is not None:
            self._frames.send([0, operation, payload])

    def _ask(
        self,
        operation: str,
        payload: object,
        then: Callable[[Any], None],
        make: Callable[[dict[str, Any]], object],
        held: Callable[[int], None] | None = None,
        agent: str = "",
    ) -> Future[None]:
        future: Future[None] = self._loop.create_future()
        waiting = _Waiting(operation, then, make, future, held, agent)
        if (frames := self._open(waiting)) is not None:
            frames.send([self._await(waiting), operation, payload])
        return future

    def _open(self, waiting: _Waiting) -> Frames | None:
        """Where to send the request; None if it cannot be sent now, and is refused."""
        unanswered = len(self._waiting) + len(self._late)
        if self._frames is None:
            _settle(waiting, ControlError("the control process is gone"))
        elif unanswered >= self._limit or self._frames.full:
            _settle(waiting, ControlError(f"{unanswered} actions wait to be recorded already", "overloaded"))
        elif waiting.agent and (own := self._waiting_of[waiting.agent]) >= self._limit - unanswered:
            _settle(waiting, ControlError(f"{own} actions of this agent wait to be recorded already", "overloaded"))
        else:
            return self._frames
        return None

    def _await(self, waiting: _Waiting) -> int:
        """The number of a request, under which its answer will come."""
        number, self._next = self._next, self._next + 1
        self._waiting[number] = waiting
        self._waiting_of[waiting.agent] += 1
        return number

    def _take(self, number: int) -> _Waiting | None:
        """What waits for the answer to this request, and waits no longer."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            self._make_room(waiting.agent)
        return waiting

    def _make_room(self, agent: str) -> None:
        left = self._waiting_of[agent] - 1
        if left > 0:
            self._waiting_of[agent] = left
        else:
            del self._waiting_of[agent]

    def _received(self, frame: list[Any]) -> None:
        number, good, payload, *count = frame
        if number == 0:
            self._on_push(payload)
        elif good is None:
            self._wait_on(number, payload)
        elif not count:
            self._answered(number, good, payload)
        else:
            of_each = Receipts(Receipt(**payload), *count).each() if good else (payload,) * count[0]
            for one, answer in enumerate(of_each, number):
                self._answered(one, good, answer)

    def _answered(self, number: int, good: bool, payload: Any) -> None:
        waiting = self._take(number) or self._held.pop(number, None)
        if waiting is not None:
            try:
                answer = waiting.make(payload) if good else ControlError(payload["text"], payload["reason"])
            except (TypeError, KeyError) as e:
                answer = ControlError(f"the control process gave what is no receipt: {e}")
            _settle(waiting, answer)
            return
        operation, agent = self._late.pop(number, ("", ""))
        if operation:
            self._make_room(agent)
        if good:
            self._too_late(operation, payload)

    def _wait_on(self, number: int, seq: int) -> None:
        """The action of entry `seq` is held: it has all the time that the control process gives it."""
        waiting = self._take(number)
        if waiting is None:
            self.withdraw(seq, "caller_gone")
            return
        self._held[number] = waiting
        if waiting.held is not None:
            waiting.held(seq)

    def _too_late(self, operation: str, answer: Receipt | dict[str, Any]) -> None:
        """The exchange was refused, so nothing went on its way."""
        if operation not in ("action", "inbound") or (receipt := _as_receipt(answer)).decision == "deny":
            return
        self.record_outcome(OutcomeDraft(receipt.seq, NOT_FORWARDED))
        if operation == "inbound":
            self.finish_delegation(receipt.node)

    def _gone(self) -> None:
        self._frames = None
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._fail_all(ControlError("the control process is gone"))
        self._on_lost()

    def _fail_all(self, error: ControlError) -> None:
        waiting, self._waiting = {**self._held, **self._waiting}, {}
        self._waiting_of.clear()
        self._held.clear()
        for one in waiting.values():
            _settle(one, error)

    def _sweep(self) -> None:
        """Time out what waits too long. The oldest comes first, so a sweep stops at the first that may go on."""
        oldest_allowed = time.monotonic() - self._timeout
        while self._waiting:
            number = next(iter(self._waiting))
            if self._waiting[number].since > oldest_allowed:
                break
            late = self._waiting.pop(number)
            self._late[number] = late.operation, late.agent
            _settle(late, ControlError(f"no receipt within {self._timeout:g} seconds", "overloaded"))
        if self._frames is not None:
            interval = min(0.5, self._timeout / 4)
            self._sweeper = asyncio.get_running_loop().call_later(interval, self._sweep)


def _as_receipt(answer: Receipt | dict[str, Any]) -> Receipt:
    return answer if isinstance(answer, Receipt) else Receipt(**answer)


def _settle(waiting: _Waiting, answer: object) -> None:
    if waiting.future.done():
        return
    try:
        waiting.then(answer)
    except Exception as e:  # the engine refuses the exchange of a hook whose future holds an exception
        waiting.future.set_exception(e)
    else:
        waiting.future.set_result(None)
