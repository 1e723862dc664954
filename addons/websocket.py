"""WebSocket messages: each is an action, judged and recorded before it is passed on, whichever way it goes.

Its target is that of the upgrade. The first message that is denied ends the connection: a protocol without answers has
no other way to say so. A message has an outcome (whether it was passed on), and so has the upgrade, at the very end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from mitmproxy import http
from wsproto.frame_protocol import CloseReason

from ..bindings.facts import Classified
from ..bindings.model import ActionType, Decision, Verdict
from ..bindings.policy import Policy
from ..engine.problem import Problem
from ..engine.websocket_layer import Batch, Message
from ..evidence.entry import OutcomeDraft, Receipt
from ..formats import strict_json
from ..formats.errors import FormatError, LictorError, VerificationError
from .drafting import as_action, entry_to_be
from .exchange import Control, Exchange, Tally, exchange_of
from .identify import Identify
from .open_exchanges import OpenExchanges
from .outcome import Outcome
from .upgrade import problem_with_grant

log = logging.getLogger(__name__)

NOT_PASSED_ON = "the connection was closed before it was passed on"
_BLANK = b" \t\r\n\f\v\x00\xef\xbb\xbf"  # what lenient readers of JSON may skip
Judged = tuple[Message, Classified, Decision]


class WebSocket:
    """Both sides: what an agent sends and gets, and what callers send to the local agent and get of it."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        identify: Identify,
        control: Control,
        outcome: Outcome,
        open_exchanges: OpenExchanges,
    ) -> None:
        self._policy = policy
        self._open = open_exchanges
        self._identify = identify
        self._control = control
        self._outcome = outcome

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """What follows a 101 that grants nothing that was asked for would be nobody's action."""
        if flow.response is None or flow.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return
        exchange = exchange_of(flow)
        problem = problem_with_grant(exchange.upgrade if exchange is not None else None, flow.response)
        if problem:
            log.warning("%s switches protocols: %s; the exchange is ended", flow.request.host, problem)
            flow.kill()

    def websocket_messages(self, batch: Batch) -> Awaitable[None] | None:
        exchange = exchange_of(batch.flow)
        if exchange is None or exchange.upgrade is None or exchange.permit is None or exchange.refused:
            log.error("messages on a connection that was not let out: they are not passed on")
            return None
        try:
            self._identify.peer(batch.flow.client_conn)
        except VerificationError as e:
            log.warning("refused WebSocket messages: %s", e)
            return None
        return self._record(batch, exchange, list(self._judge(batch, exchange)))

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        exchange, socket = exchange_of(flow), flow.websocket
        if exchange is None or exchange.upgrade is None or socket is None:
            return
        upgrade, by_client, code = exchange.upgrade, socket.closed_by_client, socket.close_code
        complete = by_client is not None and code != CloseReason.ABNORMAL_CLOSURE
        error = "the connection ended without a close" if by_client is not None else upgrade.refused or "monitor_error"
        by_monitor = by_client is None or exchange.ended_by is not None
        more: dict[str, object] = {
            "messages_out": upgrade.messages_out,
            "messages_out_bytes": upgrade.bytes_out,
            "messages_in": upgrade.messages_in,
            "messages_in_bytes": upgrade.bytes_in,
            "close_code": int(code or CloseReason.ABNORMAL_CLOSURE),
            "closed_by": "monitor" if by_monitor else "client" if by_client else "server",
        }
        status = HTTPStatus.SWITCHING_PROTOCOLS
        self._outcome.send(exchange, status, complete=complete, error=None if complete else error, more=more)

    def _judge(self, batch: Batch, exchange: Exchange) -> Iterator[Judged]:
        """The messages up to the first that is denied: what comes after it is nothing any more."""
        policy = self._policy()
        reads = policy.reads_of(exchange.agent_id, ActionType.WEBSOCKET_MESSAGE)
        for message in batch.messages:
            problem = message.problem or (_unreadable(message) if reads else None)
            action = _classified(exchange, message, reads and problem is None)
            if problem is not None:
                decision = Decision(Verdict.DENY, problem.reason, (), problem.text)
            else:
                decision = policy.judge(as_action(exchange, action))
            yield message, action, decision
            if decision.verdict is Verdict.DENY:
                return

    async def _record(self, batch: Batch, exchange: Exchange, judged: Sequence[Judged]) -> None:
        began, policy, request = time.monotonic(), self._policy(), batch.flow.request
        drafts = [
            entry_to_be(request, exchange, action, decision, policy.kept(as_action(exchange, action)))
            for _, action, decision in judged
        ]
        answers: dict[int, Receipt | LictorError] = {}
        held = partial(self._open.hold, batch.flow, exchange)
        await asyncio.gather(
            *(self._control.record_action(d, partial(answers.__setitem__, i), held) for i, d in enumerate(drafts))
        )
        self._open.decided(exchange)
        receipts = [answers[i] for i in range(len(drafts))]
        for (message, _, decision), answer in zip(judged, receipts, strict=True):
            why = _refused(decision, answer)
            if why:
                assert exchange.upgrade is not None
                exchange.upgrade.refused, batch.refusal = why, _told(why, answer)
                if not isinstance(answer, Receipt):
                    batch.code = CloseReason.TRY_AGAIN_LATER
                break
            message.passes = True
        batch.done = partial(self._done, exchange, [m for m, _, _ in judged], receipts, began)

    def _done(
        self, exchange: Exchange, messages: Sequence[Message], answers: Sequence[Receipt | LictorError], began: float
    ) -> None:
        """Say of every message that was let out whether it was passed on."""
        duration = round((time.monotonic() - began) * 1000)
        for message, answer in zip(messages, answers, strict=True):
            if not isinstance(answer, Receipt) or answer.decision not in (Verdict.ALLOW, Verdict.FLAG):
                continue
            size = len(message.content) if message.sent else 0
            outcome: dict[str, Any] = {
                "status": 0,
                "complete": message.sent,
                "duration_ms": duration,
                "request_bytes": size if message.outgoing else 0,
                "response_bytes": 0 if message.outgoing else size,
            }
            if not message.sent:
                outcome["error"] = exchange.ended_by or NOT_PASSED_ON
            elif message.opcode != "close" and exchange.upgrade is not None:
                exchange.upgrade.count(message.outgoing, size)
            self._control.record_outcome(OutcomeDraft(answer.seq, outcome))


def _classified(exchange: Exchange, message: Message, reads: bool) -> Classified:
    """The action that a message is. `reads`: some behavior looks at what it carries."""
    parameters: dict[str, Any] = {
        "direction": "out" if message.outgoing else "in",
        "opcode": message.opcode,
        "bytes": len(message.content),
        "upgrade": exchange.receipts[0].seq,
    }
    if message.problem is None:
        tally = Tally(exchange.salt)
        tally.update(message.content)
        parameters["digest"] = tally.digest()
    if message.opcode == "close":
        parameters["close_code"] = int(message.code or CloseReason.NO_STATUS_RCVD)
    content = _content(message) if reads else None
    return Classified(ActionType.WEBSOCKET_MESSAGE, exchange.classified[0].target, parameters, content=content)


def _content(message: Message) -> dict[str, Any]:
    """What criteria on parameters see: `text`, and `json` where that is JSON which every parser reads alike."""
    content: dict[str, Any] = {"direction": "out" if message.outgoing else "in", "opcode": message.opcode}
    if message.opcode == "binary":
        return content
    content["text"] = message.content.decode()
    with contextlib.suppress(FormatError):
        content["json"] = strict_json.loads(message.content)
    return content


def _unreadable(message: Message) -> Problem | None:
    """Text that some servers take for JSON and read in different ways."""
    if message.opcode != "text" or message.content.lstrip(_BLANK)[:1] not in (b"{", b"["):
        return None
    try:
        strict_json.loads(message.content)
    except FormatError as e:
        return Problem("unparsable_body", f"the message cannot be judged: {e}"[:300])
    return None


def _refused(decision: Decision, answer: Receipt | LictorError) -> str:
    """The reason why a message is not passed on; empty if it is."""
    if not isinstance(answer, Receipt):
        return getattr(answer, "reason", "monitor_error")
    if decision.denied:
        return decision.reason
    return "" if answer.decision in (Verdict.ALLOW, Verdict.FLAG) else answer.reason


def _told(why: str, answer: Receipt | LictorError) -> str:
    """What the close says to the side that opened the connection; the other side is told no reason."""
    entry = f", entry {answer.seq}" if isinstance(answer, Receipt) else ""
    return f"lictor refused ({why}{entry})"
