"""WebSocket, message by message: none is passed on before the addons have let it.

A patch of mitmproxy (12.2.3): `WebsocketLayer` in `mitmproxy.proxy.layers.websocket` is replaced. mitmproxy passes on
what no addon drops, keeps every message for as long as the connection lasts, has no bound for one, and hands on what
stands in pings and in closes. Here a message passes only if a hook has said so; and what it weighs is bounded.

Messages that have come in are put before the `websocket_messages` hook in batches, those of both directions in one
order. No extension is spoken (`addons.upgrade`), so a message is as long as it is on the wire. A ping goes on without
what it carries, one at a time, and its answer is given when the other side has answered: both sides see that the other
is alive, and say nothing by it. A close passes on with its code; if it has a reason, that is a message too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mitmproxy import http
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers import websocket
from wsproto import events as frames
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionState as FramingState
from wsproto.connection import ConnectionType
from wsproto.frame_protocol import CloseReason

from .problem import Problem

BATCH = 32
"""Messages that are judged together; those after them wait."""
MAX_FRAGMENTS = 4096
"""Frames that one message may come in."""

Commands = Generator[commands.Command, Any, None]
Opcode = Literal["text", "binary", "close"]


@dataclass(slots=True)
class Message:
    """A message, or the reason of a close. `outgoing`: from the side that has opened the connection.

    `problem`: why it is none, or cannot be judged. A hook sets `passes`; `sent` is true once it was passed on.
    """

    outgoing: bool
    opcode: Opcode
    content: bytes
    code: int | None = None
    problem: Problem | None = None
    passes: bool = False
    sent: bool = False

    @property
    def last(self) -> bool:
        """Nothing that comes after it matters any more."""
        return self.opcode == "close" or self.problem is not None

    @property
    def to_be_judged(self) -> bool:
        return self.opcode != "close" or bool(self.content)


def _nothing() -> None:
    return None


@dataclass(slots=True)
class Batch:
    """Messages to be judged, in order. The first that does not pass ends the connection.

    `refusal`: what the close says to the side that opened the connection; `code`: its code. `done` is called when
    `sent` is known.
    """

    context: context.Context
    flow: http.HTTPFlow
    messages: list[Message]
    refusal: str = ""
    code: int = CloseReason.POLICY_VIOLATION
    done: Callable[[], None] = _nothing


@dataclass
class WebsocketMessagesHook(commands.StartHook):
    """Messages have come in; those that a hook lets pass are passed on."""

    batch: Batch


def install(message_bytes: int) -> None:
    """Replace mitmproxy's WebsocketLayer in this process."""

    class Bounded(JudgedWebSocket):
        _message_bytes = message_bytes

    websocket.WebsocketLayer = Bounded  # type: ignore[misc, assignment]


class _Side:
    """One of the two ends: reads its frames, and writes those for it."""

    def __init__(self, kind: ConnectionType, connection: Connection, message_bytes: int) -> None:
        self.connection = connection
        self.ping: bytes | None = None  # of a ping of this side that the other one has not answered
        self._framing = Framing(kind)
        self._outgoing = kind is ConnectionType.SERVER  # we are the server of who opened the connection
        self._message_bytes = message_bytes
        self._message = bytearray()
        self._fragments = 0
        self._ended = False

    def read(self, data: bytes | None) -> Iterator[Message | frames.Ping | frames.Pong]:
        """What `data` completes. None: the connection is closed."""
        if self._ended:
            return
        if data is None:
            self._ended = True
            yield Message(self._outgoing, "close", b"", CloseReason.ABNORMAL_CLOSURE, passes=True)
            return
        self._framing.receive_data(data)
        for frame in self._framing.events():
            if isinstance(frame, frames.Message):
                made = self._add(frame)
            elif isinstance(frame, frames.CloseConnection):
                made = self._close(frame)
            else:
                assert isinstance(frame, frames.Ping | frames.Pong)
                yield frame
                continue
            if made is not None:
                yield made
                if made.last:
                    self._ended = True
                    return

    def _add(self, frame: frames.Message[Any]) -> Message | None:
        text = isinstance(frame.data, str)
        self._message += frame.data.encode() if isinstance(frame.data, str) else frame.data
        self._fragments += frame.frame_finished
        opcode: Opcode = "text" if text else "binary"
        if len(self._message) > self._message_bytes or self._fragments > MAX_FRAGMENTS:
            text_ = f"a message has at most {self._message_bytes} bytes in at most {MAX_FRAGMENTS} frames"
            problem = Problem("message_too_large", text_)
            return Message(self._outgoing, opcode, bytes(self._message), CloseReason.MESSAGE_TOO_BIG, problem)
        if not frame.message_finished:
            return None
        content = bytes(self._message)
        self._message.clear()
        self._fragments = 0
        return Message(self._outgoing, opcode, content)

    def _close(self, frame: frames.CloseConnection) -> Message:
        if self._framing.state is FramingState.OPEN:  # wsproto says so of what is no frame
            problem = Problem("bad_frame", f"this is not a WebSocket frame: {frame.reason}"[:200])
            return Message(self._outgoing, "binary", b"", frame.code, problem)
        reason = (frame.reason or "").encode()
        return Message(self._outgoing, "close", reason, frame.code, passes=not reason)

    def write(self, frame: frames.Event) -> Commands:
        if self.open:
            yield commands.SendData(self.connection, bytes(self._framing.send(frame)))

    @property
    def open(self) -> bool:
        writable = bool(self.connection.state & ConnectionState.CAN_WRITE)
        return writable and self._framing.state in (FramingState.OPEN, FramingState.REMOTE_CLOSING)


class JudgedWebSocket(layer.Layer):
    """Takes the place of mitmproxy's layer after a 101."""

    _message_bytes: int

    def __init__(self, context: context.Context, flow: http.HTTPFlow) -> None:
        super().__init__(context)
        self.flow = flow
        self._client = _Side(ConnectionType.SERVER, context.client, self._message_bytes)
        self._server = _Side(ConnectionType.CLIENT, context.server, self._message_bytes)
        self._ended = False

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start) or self._ended:
            return
        messages: deque[Message] = deque()
        yield from self._read(event, messages)
        # What came while others were judged is judged together.
        while self._paused_event_queue:
            yield from self._read(self._paused_event_queue.popleft(), messages)
        while messages and not self._ended:
            batch = [messages.popleft()]
            while messages and len(batch) < BATCH and not batch[-1].last:
                batch.append(messages.popleft())
            yield from self._relay(batch)

    def _read(self, event: events.Event, messages: deque[Message]) -> Commands:
        if not isinstance(event, events.DataReceived | events.ConnectionClosed):
            return
        side, other = self._client, self._server
        if event.connection is not self.context.client:
            side, other = other, side
        for item in side.read(event.data if isinstance(event, events.DataReceived) else None):
            if isinstance(item, Message):
                messages.append(item)
            elif isinstance(item, frames.Ping):
                waiting, side.ping = side.ping, bytes(item.payload)
                if waiting is None:
                    yield from other.write(frames.Ping(b""))
            elif other.ping is not None:
                payload, other.ping = other.ping, None
                yield from other.write(frames.Pong(payload))

    def _relay(self, messages: list[Message]) -> Commands:
        judged = [message for message in messages if message.to_be_judged]
        batch = Batch(self.context, self.flow, judged)
        if judged:
            yield WebsocketMessagesHook(batch)
        for message in messages:
            if message.problem is not None or not message.passes:
                code = message.code if message.problem is not None else batch.code
                yield from self._end(None, code, batch.refusal, "")
                break
            yield from self._pass_on(message)
        batch.done()
        if self._ended:
            yield websocket.WebsocketEndHook(self.flow)

    def _pass_on(self, message: Message) -> Commands:
        if message.opcode == "close":
            message.sent = True
            yield from self._end(message.outgoing, message.code, message.content.decode(), message.content.decode())
            return
        to = self._server if message.outgoing else self._client
        message.sent = to.open
        yield from to.write(
            frames.TextMessage(message.content.decode())
            if message.opcode == "text"
            else frames.BytesMessage(message.content)
        )

    def _end(self, by_client: bool | None, code: int | None, to_client: str, to_server: str) -> Commands:
        """Close both sides. A connection that was closed without a code is closed without one to the other side."""
        assert self.flow.websocket is not None
        self._ended = True
        for side, reason in ((self._client, to_client), (self._server, to_server)):
            if code is not None and code != CloseReason.ABNORMAL_CLOSURE:
                yield from side.write(frames.CloseConnection(code, reason or None))
            yield commands.CloseConnection(side.connection)
        self.flow.websocket.timestamp_end = time.time()
        self.flow.websocket.closed_by_client = by_client
        self.flow.websocket.close_code = code
        self.flow.live = False
