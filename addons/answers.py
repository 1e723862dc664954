"""What MCP servers answer, read before the agent gets it.

A request that the server makes of the agent (sampling, elicitation, roots) is an action of the exchange: judged, and
recorded, before it arrives; a denied one does not, and the server hears nothing. Lists are cut down to what the agent
may use. JSON answers are read whole, streams event by event, up to a limit; what cannot be read for certain does not
pass. Servers are asked not to compress.
"""

from __future__ import annotations

import asyncio
import json
import re
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mitmproxy import http

from ..bindings.bodies import is_utf8
from ..bindings.facts import Unclassifiable
from ..bindings.model import Action, ActionType, Decision, Verdict
from ..bindings.policy import Policy
from ..bindings.protocols import mcp_answers
from ..bindings.target import Target
from ..engine.answer_gate import Gate
from ..evidence.entry import OutcomeDraft, Receipt
from ..formats.errors import FormatError, LictorError
from ..formats.sse import Event, Splitter
from .drafting import as_action, entry_to_be
from .enforce import Settings
from .exchange import Control, Exchange, Tally, exchange_of
from .reading import Reading
from .refusal import JSONRPC_REFUSED, Refusal
from .request_ids import RequestIds, ids_of
from .tool_watch import ToolWatch

Hooked = Awaitable[None] | None
SUCCESS = range(200, 300)
AT_ONCE = 64 * 1024
"""Bytes of JSON that are read in the event loop; more in a thread."""
_PLAIN_EVENT = re.compile(rb"(?:(?:data|event|id|retry)?:[^\r\n\x00\x0b\x0c\x1c-\x1e]*\r?\n)+(?:\r?\n)+|(?:\r?\n)+")
_LINE_END_TO_SOME = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")


class Answers:
    """The answers to what was let out to MCP targets. Comes before `Outcome`, which counts what is passed on."""

    def __init__(
        self, settings: Settings, policy: Callable[[], Policy], control: Control, watch: Callable[[], ToolWatch]
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._control = control
        self._watch = watch

    def request(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is not None and _server(exchange) is not None and "accept-encoding" in flow.request.headers:
            flow.request.headers["accept-encoding"] = "identity"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange, response = exchange_of(flow), flow.response
        target = _server(exchange) if exchange is not None else None
        if exchange is None or target is None or response is None:
            return
        asked = flow.request.headers
        ids = ids_of(self._settings.salt, exchange.agent_id, target, asked.get("mcp-session-id", ""))
        reading = exchange.reading = Reading(target, ids, "mcp-method" not in asked)
        types, encodings = (response.headers.get_all(name) for name in ("content-type", "content-encoding"))
        media = types[0].lower() if types else ""
        if any(encoding.strip().lower() != "identity" for encoding in encodings):
            _end(flow, exchange, "encoded_answer")
        elif len(types) > 1 or not is_utf8(media):
            _end(flow, exchange, "unparsable_answer")
        elif "event-stream" in media:
            reading.events = Splitter(self._settings.judged_body_bytes)
            response.stream = Gate()
        elif "json" in media:
            reading.whole = True
        elif response.status_code in SUCCESS and flow.request.method in ("GET", "POST"):
            response.stream = Gate()
        else:
            exchange.reading = None

    def response_data(self, flow: http.HTTPFlow) -> Hooked:
        exchange, response = exchange_of(flow), flow.response
        if exchange is None or exchange.reading is None or response is None or not isinstance(response.stream, Gate):
            raise RuntimeError("an answer stands in a gate that nobody has put there")
        gate, events = response.stream, exchange.reading.events
        if events is None:
            if gate.came:
                _end(flow, exchange, "unexpected_answer")
            return None
        try:
            found = events.feed(gate.came)
        except FormatError:
            _end(flow, exchange, "answer_too_large")
            return None
        if gate.ended and (rest := events.finish()) is not None:
            found.append(rest)
        return self._pass_events(flow, exchange, gate, found)

    def response(self, flow: http.HTTPFlow) -> Hooked:
        exchange = exchange_of(flow)
        if exchange is None or exchange.reading is None or not exchange.reading.whole or flow.response is None:
            return None
        content = flow.response.raw_content
        return self._pass_whole(flow, exchange, flow.response, content) if content else None

    async def _pass_events(self, flow: http.HTTPFlow, exchange: Exchange, gate: Gate, events: list[Event]) -> None:
        passed = []
        for event in events:
            try:
                passed.append(await self._pass_event(flow, exchange, event))
            except LictorError as e:
                # What came before it is complete and was judged, but a stream that ends in the middle says so at once.
                _end(flow, exchange, getattr(e, "reason", "monitor_error"))
                return
        gate.passed = b"".join(passed)
        if exchange.response_tally is not None:
            exchange.response_tally.update(gate.passed)

    async def _pass_event(self, flow: http.HTTPFlow, exchange: Exchange, event: Event) -> bytes:
        plain = _PLAIN_EVENT.fullmatch(event.raw) and not _LINE_END_TO_SOME.search(event.raw)
        if not event.data:
            # Beside data an event has nothing to say that a client must know in any other spelling than the plain one.
            return event.raw if plain else b""
        messages, batch = await _messages(event.data)
        read = await self._read(flow, exchange, messages)
        if plain and read == messages:
            return event.raw
        if not read:
            return b""
        return _event(event, json.dumps(read if batch else read[0]).encode("ascii"))

    async def _pass_whole(
        self, flow: http.HTTPFlow, exchange: Exchange, response: http.Response, content: bytes
    ) -> None:
        try:
            messages, batch = await _messages(content)
            read = await self._read(flow, exchange, messages)
        except LictorError as e:
            if response.status_code in SUCCESS:
                self._refuse(flow, exchange, getattr(e, "reason", "monitor_error"), str(e))
            return
        if not read:
            text = "The server asked for what is not allowed, and answered nothing else."
            self._refuse(flow, exchange, "server_request_denied", text)
        elif read != messages:
            response.content = json.dumps(read if batch else read[0]).encode("ascii")

    async def _read(
        self, flow: http.HTTPFlow, exchange: Exchange, messages: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The messages that may pass, as they may. Raises LictorError."""
        read = []
        for message in messages:
            passed = await self._read_one(flow, exchange, message)
            if passed is not None:
                read.append(passed)
        return read

    async def _read_one(
        self, flow: http.HTTPFlow, exchange: Exchange, message: dict[str, Any]
    ) -> dict[str, Any] | None:
        assert exchange.reading is not None
        ids = exchange.reading.ids
        if "method" in message:
            if mcp_answers.is_request(message) and not await self._let_in(flow, exchange, message):
                return None
            if "id" in message:
                return {**message, "id": ids.sealed(message["id"])}
            return _sealed_cancel(message, ids) if exchange.reading.seals else message
        for request in mcp_answers.input_requests(message):
            if not await self._let_in(flow, exchange, request):
                text = f"refused by lictor: the server asked for {request['method'][:100]}, which is not allowed"
                return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": JSONRPC_REFUSED, "message": text}}
        return self._cut_down(exchange, exchange.reading.target, message)

    async def _let_in(self, flow: http.HTTPFlow, exchange: Exchange, request: Mapping[str, Any]) -> bool:
        """Judge and record a request of the server. Raises LictorError if that could not be recorded."""
        assert exchange.reading is not None
        asked = mcp_answers.classify_request(exchange.reading.target, request)
        policy = self._policy()
        action = as_action(exchange, asked.action)
        decision = policy.judge(action)
        if not asked.known:
            decision = Decision(Verdict.DENY, "method_not_supported", (), "No MCP server asks this of a client.")
        text = json.dumps(request).encode("ascii")
        tally = Tally(exchange.salt)
        tally.update(text)
        asked.action.parameters.update(request_bytes=tally.size, request_digest=tally.digest())
        receipts: list[Receipt | LictorError] = []
        draft = entry_to_be(flow.request, exchange, asked.action, decision, policy.kept(action))
        recorded: Future[None] = self._control.record_action(draft, receipts.append)
        await recorded
        (receipt,) = receipts
        if not isinstance(receipt, Receipt):
            raise receipt
        if decision.denied or receipt.decision not in (Verdict.ALLOW, Verdict.FLAG):
            return False
        status = flow.response.status_code if flow.response is not None else 0
        outcome = {"status": status, "complete": True, "duration_ms": 0, "request_bytes": tally.size}
        self._control.record_outcome(OutcomeDraft(receipt.seq, {**outcome, "response_bytes": 0}))
        return True

    def _cut_down(self, exchange: Exchange, target: Target, message: dict[str, Any]) -> dict[str, Any]:
        tools = mcp_answers.tools_of(message)
        refused: frozenset[str] = frozenset()
        if tools:
            listed, refused = self._watch().listed(target, tools)
            exchange.peer_evidence.update(listed)
        policy = self._policy()

        def shown(where: str) -> bool:
            if where in refused:
                return False
            return target.lists == "all" or policy.may_allow(
                Action(exchange.agent_id, ActionType.TOOL_CALL, where, {"method": "POST"})
            )

        read, hidden = mcp_answers.cut_down(message, target.urn, shown)
        if hidden:
            before = exchange.peer_evidence.get("hidden", 0)
            exchange.peer_evidence["hidden"] = hidden + (before if isinstance(before, int) else 0)
        return read

    def _refuse(self, flow: http.HTTPFlow, exchange: Exchange, reason: str, text: str) -> None:
        """In place of an answer that may not pass."""
        first = exchange.classified[0]
        seq = exchange.receipts[0].seq if exchange.receipts else None
        why = Refusal(self._settings.monitor_id, reason, text, first.type, first.target, seq)
        exchange.peer_evidence["answer_refused"] = reason
        ids = [action.rpc_id for action in exchange.classified if action.rpc and action.rpc_id is not None]
        flow.response = why.jsonrpc(ids, batch=len(ids) > 1) if ids else why.response()


def _server(exchange: Exchange) -> Target | None:
    """The MCP server that the request was let out to."""
    if exchange.permit is None or exchange.inbound:
        return None
    target = exchange.classified[0].catalog_target
    return target if target is not None and target.protocol == "mcp" else None


async def _messages(data: bytes) -> tuple[list[dict[str, Any]], bool]:
    """As `read_messages`; the agents of this worker do not wait for a large one."""
    if len(data) <= AT_ONCE:
        return mcp_answers.read_messages(data)
    return await asyncio.to_thread(mcp_answers.read_messages, data)


def _sealed_cancel(message: dict[str, Any], ids: RequestIds) -> dict[str, Any]:
    """The server takes back a request, of which the agent knows the sealed id."""
    params = message.get("params")
    if message["method"] != "notifications/cancelled" or not isinstance(params, dict) or "requestId" not in params:
        return message
    return {**message, "params": {**params, "requestId": ids.sealed(params["requestId"])}}


def _event(event: Event, data: bytes) -> bytes:
    """An event in the plain spelling. What of it some clients would take for the end of a line is refused."""
    lines = [b"data: " + data]
    for name, value in ((b"event", event.type if event.type != b"message" else None), (b"id", event.id)):
        if value is not None:
            lines.insert(0, name + b": " + value)
    raw = b"\n".join(lines) + b"\n\n"
    if not _PLAIN_EVENT.fullmatch(raw) or _LINE_END_TO_SOME.search(raw):
        raise Unclassifiable("unparsable_answer", "an event has a name or an id with characters that end a line")
    return raw


def _end(flow: http.HTTPFlow, exchange: Exchange, reason: str) -> None:
    """End an answer that may not pass, wherever it is."""
    exchange.ended_by = exchange.peer_evidence["answer_refused"] = reason
    flow.kill()
