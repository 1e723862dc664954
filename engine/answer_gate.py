"""Answers that are read before they are passed on: piece by piece through a gate, or whole, up to a limit.

A patch of mitmproxy (12.2.3), part of `permit`. mitmproxy hands a streamed body to a function, which cannot wait. Where
`flow.response.stream` is a `Gate`, each piece goes into it, the hook `response_data` runs and is waited for, and what
the gate then has to pass goes out. A body that is not streamed is collected; here it has a limit.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NoReturn

from mitmproxy import http
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers.http import _events as events

Commands = Generator[commands.Command, Any, None]


@dataclass(slots=True)
class Gate:
    """One answer on its way. `came`: the piece to be read, `ended`: it was the last; `passed`: what may go out now."""

    came: bytes = b""
    ended: bool = False
    passed: bytes = b""

    def __call__(self, data: bytes) -> NoReturn:
        """What mitmproxy would do with it if it took it for a function of its own."""
        raise RuntimeError("an answer that must be read was about to be passed on unread")


@dataclass
class ResponseDataHook(commands.StartHook):
    """A piece of an answer stands in its gate. A flow that is killed goes no further."""

    flow: http.HTTPFlow


class GatedStream(layer.HttpStream):
    """A stream whose answers may be read first. `answer_bytes`: the largest that is collected."""

    answer_bytes: int

    def start_response_stream(self) -> Commands:
        yield from super().start_response_stream()
        if isinstance(_response(self.flow).stream, Gate):
            self.server_state = self.state_gated_response_body

    def state_gated_response_body(
        self, event: events.ResponseData | events.ResponseTrailers | events.ResponseEndOfMessage
    ) -> Commands:
        response = _response(self.flow)
        if isinstance(event, events.ResponseTrailers):
            response.trailers = event.trailers
            return
        gate = response.stream
        assert isinstance(gate, Gate)
        gate.came = event.data if isinstance(event, events.ResponseData) else b""
        gate.ended = isinstance(event, events.ResponseEndOfMessage)
        yield ResponseDataHook(self.flow)
        if (yield from self.check_killed(True)):
            return
        if gate.passed:
            passed, gate.passed = gate.passed, b""
            yield layer.SendHttp(events.ResponseData(self.stream_id, passed), self.context.client)
        if gate.ended:
            yield from self.send_response(already_streamed=True)

    def check_body_size(self, request: bool) -> Generator[commands.Command, Any, bool]:
        if request or len(self.response_body_buf) <= self.answer_bytes:
            return False
        self.response_body_buf.clear()
        text = f"the answer exceeds {self.answer_bytes} bytes, and this one must be read"
        error = events.ResponseProtocolError(self.stream_id, text, events.ErrorCode.GENERIC_SERVER_ERROR)
        yield from self.handle_protocol_error(error)
        return True


def _response(flow: http.HTTPFlow) -> http.Response:
    assert flow.response is not None
    return flow.response
