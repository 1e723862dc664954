"""The WebSocket layer without sockets: what is put before the hook, what passes, in which order, how much."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import connection
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers import websocket
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow
from mitmproxy.websocket import WebSocketData
from wsproto import events as frames
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionType

from lictor.engine import patches, websocket_layer
from lictor.engine.websocket_layer import BATCH, MAX_FRAGMENTS, Batch, Message

LIMIT = 1000
OPEN = connection.ConnectionState.OPEN


def let_all(batch: Batch) -> None:
    for message in batch.messages:
        message.passes = message.problem is None


class Socket:
    """Both ends of one WebSocket. `judge` stands for the addons; while `waits`, they do not answer."""

    def __init__(self, judge: Callable[[Batch], None] = let_all) -> None:
        patches.apply()
        websocket_layer.install(LIMIT)
        self.judge, self.waits = judge, False
        self.batches: list[Batch] = []
        self.hooks: list[str] = []
        self.closed: list[connection.Connection] = []
        client = connection.Client(
            peername=("127.0.0.1", 1),
            sockname=("127.0.0.1", 2),
            timestamp_start=1.0,
            state=OPEN,
            proxy_mode=ProxyMode.parse("regular"),
        )
        self.context = context.Context(client, SimpleNamespace())  # type: ignore[arg-type]
        self.context.server.state = OPEN
        self.context.__dict__.update(dispatch=self._hook)
        self.flow = tflow.tflow(resp=True)
        self.flow.websocket = WebSocketData()
        self.ends = {client: Framing(ConnectionType.CLIENT), self.context.server: Framing(ConnectionType.SERVER)}
        self.got: dict[str, list[Any]] = {"client": [], "server": []}
        self._waiting: list[Any] = []
        self.layer = websocket.WebsocketLayer(self.context, self.flow)
        self._run(events.Start())

    def send(self, *said: frames.Event, by: str = "client", pieces: int = 1 << 30) -> None:
        end = self._connection(by)
        data = b"".join(bytes(self.ends[end].send(one)) for one in said)
        self.send_bytes(data, by, pieces)

    def send_bytes(self, data: bytes, by: str = "client", pieces: int = 1 << 30) -> None:
        for start in range(0, len(data), pieces):
            self._run(events.DataReceived(self._connection(by), data[start : start + pieces]))

    def lose(self, by: str) -> None:
        end = self._connection(by)
        end.state = connection.ConnectionState.CLOSED
        self._run(events.ConnectionClosed(end))

    def answer(self) -> None:
        """The addons answer what waits."""
        command = self._waiting.pop(0)
        self.judge(command.batch)
        self._run(events.HookCompleted(command))

    def texts(self, side: str) -> list[Any]:
        return [one.data for one in self.got[side] if isinstance(one, frames.Message)]

    def close_of(self, side: str) -> tuple[int, str]:
        (found,) = [one for one in self.got[side] if isinstance(one, frames.CloseConnection)]
        return int(found.code), found.reason or ""

    def _connection(self, side: str) -> connection.Connection:
        return self.context.client if side == "client" else self.context.server

    def _hook(self, command: Any) -> Any:
        self.hooks.append(command.name)
        if command.name != "websocket_messages":
            return None
        self.batches.append(command.batch)
        if self.waits:
            return object()
        self.judge(command.batch)
        return None

    def _run(self, event: events.Event) -> None:
        for command in self.layer.handle_event(event):
            if isinstance(command, commands.SendData):
                side = "client" if command.connection is self.context.client else "server"
                end = self.ends[command.connection]
                end.receive_data(command.data)
                self.got[side] += list(end.events())
            elif isinstance(command, commands.CloseConnection):
                self.closed.append(command.connection)
            elif isinstance(command, commands.StartHook):
                self._waiting.append(command)


def text(content: str, last: bool = True) -> frames.TextMessage:
    return frames.TextMessage(content, message_finished=last)


SAID = st.lists(
    st.one_of(
        st.text(max_size=30).map(text),
        st.binary(max_size=30).map(lambda data: frames.BytesMessage(data)),
    ),
    max_size=80,
)


@given(SAID, SAID, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_what_passes_arrives_as_it_was_in_its_order(out: Any, back: Any, pieces: int) -> None:
    socket = Socket()
    socket.send(*out, by="client", pieces=pieces)
    socket.send(*back, by="server", pieces=pieces)
    assert socket.texts("server") == [one.data for one in out]
    assert socket.texts("client") == [one.data for one in back]
    seen = [m for batch in socket.batches for m in batch.messages]
    assert [m.content for m in seen if m.outgoing] == [
        one.data.encode() if isinstance(one.data, str) else one.data for one in out
    ]
    assert all(len(batch.messages) <= BATCH for batch in socket.batches)


def test_nothing_passes_that_no_hook_lets_pass() -> None:
    """Also if there is no hook at all."""
    socket = Socket(lambda batch: None)
    socket.send(text("hello"))
    assert socket.texts("server") == []
    assert socket.close_of("client") == socket.close_of("server") == (1008, "")
    assert socket.closed == [socket.context.client, socket.context.server]


def test_what_comes_while_others_are_judged_waits_and_is_judged_together() -> None:
    socket = Socket()
    socket.waits = True
    for number in range(5):
        socket.send(text(str(number)))
    socket.send(text("back"), by="server")
    assert len(socket.batches) == 1
    assert socket.got == {"client": [], "server": []}
    socket.answer()
    assert socket.texts("server") == ["0"]
    assert [m.content for m in socket.batches[1].messages] == [b"1", b"2", b"3", b"4", b"back"]
    socket.answer()
    assert (socket.texts("server"), socket.texts("client")) == (list("01234"), ["back"])


def test_the_first_that_does_not_pass_is_the_last() -> None:
    def judge(batch: Batch) -> None:
        batch.refusal = "no"
        for message in batch.messages:
            message.passes = message.content != b"no"

    socket = Socket(judge)
    socket.send(text("yes"), text("no"), text("and yes"))
    socket.send_bytes(b"\x81\x85\x00\x00\x00\x00later")
    socket.send_bytes(b"\x81\x05later", by="server")
    assert (socket.texts("server"), socket.texts("client")) == (["yes"], [])
    assert (socket.close_of("client"), socket.close_of("server")) == ((1008, "no"), (1008, ""))
    assert [m.sent for m in socket.batches[0].messages] == [True, False, False]
    assert len(socket.batches) == 1
    assert socket.hooks[-1] == "websocket_end"


def test_who_wants_to_know_is_told_what_was_sent() -> None:
    told: list[list[bool]] = []

    def judge(batch: Batch) -> None:
        let_all(batch)
        batch.done = lambda: told.append([m.sent for m in batch.messages])

    socket = Socket(judge)
    socket.send(text("one"), text("two"))
    socket.context.server.state = connection.ConnectionState.CLOSED
    socket.send(text("three"))
    assert told == [[True, True], [False]]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4999, "bye"), (1005, "")])
@pytest.mark.parametrize("by", ["client", "server"])
def test_a_close_passes_with_its_code(code: int, reason: str, by: str) -> None:
    socket = Socket()
    closing = frames.CloseConnection(code, reason or None) if code != 1005 else None
    socket.send_bytes(b"\x88\x80\x00\x00\x00\x00" if by == "client" else b"\x88\x00", by) if not closing else (
        socket.send(closing, by=by)
    )
    other = "server" if by == "client" else "client"
    assert socket.close_of(other) == (code, reason)
    assert socket.flow.websocket is not None
    assert (socket.flow.websocket.close_code, socket.flow.websocket.closed_by_client) == (code, by == "client")
    assert len(socket.batches) == (1 if reason else 0), "a reason is judged, a code is not"


@pytest.mark.parametrize("by", ["client", "server"])
def test_a_lost_connection_is_lost_on_both_sides(by: str) -> None:
    socket = Socket()
    socket.lose(by)
    assert socket.got == {"client": [], "server": []}
    assert len(socket.closed) == 2
    assert socket.flow.websocket is not None
    assert socket.flow.websocket.close_code == 1006
    assert socket.hooks == ["websocket_end"]


def test_lost_while_it_was_judged() -> None:
    socket = Socket()
    socket.waits = True
    socket.send(text("hello"))
    socket.lose("client")
    socket.answer()
    assert socket.texts("server") == ["hello"]
    assert socket.hooks == ["websocket_messages", "websocket_end"]


def test_pings_cross_empty_and_one_at_a_time() -> None:
    socket = Socket()
    socket.send(frames.Ping(b"one"), frames.Ping(b"two"))
    assert socket.got["server"] == [frames.Ping(b"")]
    assert socket.got["client"] == []
    socket.send(frames.Pong(b"something else"), frames.Pong(b"unasked"), by="server")
    assert socket.got["client"] == [frames.Pong(b"two")]
    socket.send(frames.Ping(b"three"))
    assert len(socket.got["server"]) == 2
    assert socket.batches == []


@pytest.mark.parametrize("finished", [True, False])
def test_a_message_is_bounded(finished: bool) -> None:
    socket = Socket()
    socket.send(text("x" * LIMIT))
    assert len(socket.texts("server")) == 1
    socket.send(frames.BytesMessage(b"x" * (LIMIT + 1), message_finished=finished))
    problem = socket.batches[-1].messages[0].problem
    assert problem is not None
    assert problem.reason == "message_too_large"
    assert socket.close_of("server") == (1009, "")


def test_the_pieces_of_a_message_are_bounded() -> None:
    socket = Socket()
    socket.send(*[frames.BytesMessage(b"", message_finished=False) for _ in range(MAX_FRAGMENTS + 1)])
    assert socket.close_of("client")[0] == 1009
    assert len(socket.batches) == 1


def test_pieces_are_counted_for_each_message() -> None:
    socket = Socket()
    for _ in range(3):
        socket.send(*[text("", last=False) for _ in range(MAX_FRAGMENTS - 1)], text("x"))
    assert "".join(socket.texts("server")) == "xxx"


def test_nothing_is_kept_of_messages_that_have_passed() -> None:
    socket = Socket()
    for _ in range(50):
        socket.send(text("x" * 500))
    assert socket.flow.websocket is not None
    assert socket.flow.websocket.messages == []


@pytest.mark.parametrize(
    ("data", "by", "code"),
    [
        (b"\x81\x05hello", "client", 1002),
        (b"\x81\x85\x00\x00\x00\x00hello", "server", 1002),
        (b"\xc1\x80\x00\x00\x00\x00", "client", 1002),
        (b"\x81\x81\x00\x00\x00\x00\xff", "client", 1007),
    ],
    ids=["not masked", "masked", "compressed", "not UTF-8"],
)
def test_what_is_no_frame(data: bytes, by: str, code: int) -> None:
    socket = Socket()
    socket.send_bytes(data, by)
    (message,) = socket.batches[0].messages
    assert message.problem is not None
    assert (message.problem.reason, message.outgoing) == ("bad_frame", by == "client")
    assert (socket.close_of("client")[0], socket.close_of("server")[0]) == (code, code)


def test_a_problem_never_passes() -> None:
    """Whatever an addon says of it."""

    def judge(batch: Batch) -> None:
        for message in batch.messages:
            message.passes = True

    socket = Socket(judge)
    socket.send_bytes(b"\xc1\x80\x00\x00\x00\x00")
    assert socket.texts("server") == []
    assert Message(True, "text", b"").passes is False
