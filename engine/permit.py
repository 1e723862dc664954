"""The HTTP stream of mitmproxy, made unable to send a request upstream that holds no permit.

A patch of mitmproxy (12.2.3): `HttpStream` in `mitmproxy.proxy.layers.http` is replaced by a subclass. What differs:

- `make_server_connection` is the only way from a request to a server; without a permit for this very request it fails.
  Whatever goes wrong in an addon, in our dispatch or in mitmproxy's order of hooks, this is what stands in between.
- `check_killed`, right after the requestheaders hook: a refusal is sent at once and the body is not waited for.
- `check_invalid`: a request that is not valid HTTP is answered as the addons say, not by a page of mitmproxy's.
- `check_body_size` while a body is being collected to be judged: beyond the limit it is refused. mitmproxy's own
  `body_size_limit` would also cut streamed bodies. `handle_protocol_error`: one that came too slowly is refused too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from mitmproxy import flow, http
from mitmproxy.net.http import url
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers import http as layer
from mitmproxy.proxy.layers.http import _events as events
from mitmproxy.proxy.layers.http import _hooks as hooks

from . import relied_on
from .answer_gate import GatedStream
from .problem import Problem, problem_of, set_problem
from .request_reader import problem_with

BODIES_AT_ONCE = 4
"""So many times the limit of one judged body may all those of one HTTP/2 connection have together."""

CommandGenerator = Generator[commands.Command, Any, bool]


def install(may_leave: Callable[[http.HTTPFlow], bool], judged_body_bytes: int) -> None:
    """Replace mitmproxy's HttpStream in this process. Raises UsageError for a mitmproxy that it does not fit."""
    relied_on.check()

    class Installed(PermitStream):
        permitted = staticmethod(may_leave)
        _judged_body_bytes = answer_bytes = judged_body_bytes

    layer.HttpStream = Installed  # type: ignore[misc]


class PermitStream(GatedStream):
    """A stream that reaches a server only with a permit for its request."""

    permitted: Callable[[http.HTTPFlow], bool]
    _judged_body_bytes: int

    def make_server_connection(self) -> CommandGenerator:
        if not self.permitted(self.flow):
            error = events.ResponseProtocolError(
                self.stream_id, "lictor: the request holds no permit", events.ErrorCode.CONNECT_FAILED
            )
            yield from self.handle_protocol_error(error)
            return False
        self.context.connecting(1)  # type: ignore[attr-defined]
        try:
            return (yield from super().make_server_connection())
        finally:
            self.context.connecting(-1)  # type: ignore[attr-defined]

    def check_killed(self, emit_error_hook: bool) -> CommandGenerator:
        may_be_killed = self.flow.error is not None or self._paused_event_queue
        if may_be_killed and (yield from super().check_killed(emit_error_hook)):
            return True
        if self.client_state != self.state_wait_for_request_headers or self.flow.response is None:
            return False
        yield from self._answer_now(self.flow.response)
        return True

    def _answer_now(self, response: http.Response) -> Generator[commands.Command, Any, None]:
        yield hooks.HttpResponseHook(self.flow)
        content = response.raw_content
        yield layer.SendHttp(events.ResponseHeaders(self.stream_id, response, not content), self.context.client)
        if content:
            yield layer.SendHttp(events.ResponseData(self.stream_id, content), self.context.client)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored
        # What still comes of the body has no stream any more and is dropped.
        yield layer.DropStream(self.stream_id)
        yield layer.SendHttp(events.ResponseEndOfMessage(self.stream_id), self.context.client)

    def check_invalid(self, request: bool) -> CommandGenerator:
        if not request:
            return (yield from super().check_invalid(request))
        problem = problem_with(self.flow.request) or _invalid(self.mode, self.flow.request)
        if problem is None:
            return False
        set_problem(self.flow, problem)
        yield hooks.HttpRequestHeadersHook(self.flow)
        if not (yield from super().check_killed(True)):
            yield from self._answer_and_close(problem.text)
        return True

    def check_body_size(self, request: bool) -> CommandGenerator:
        if not request:
            return (yield from super().check_body_size(request))
        limit = self._judged_body_bytes
        if len(self.request_body_buf) > limit:
            problem = Problem("body_too_large", f"the request body exceeds {limit} bytes and must be read to be judged")
        elif self.flow.request.is_http2 and self._collected() > limit * BODIES_AT_ONCE:
            text = (
                f"requests at once on this connection bring more than {limit * BODIES_AT_ONCE} bytes that must be read"
            )
            problem = Problem("overloaded", text)
        else:
            return False
        self.request_body_buf.clear()
        set_problem(self.flow, problem)
        self.flow.error = flow.Error(problem.text)
        yield hooks.HttpErrorHook(self.flow)
        yield from self._answer_and_close(problem.text)
        return True

    def _collected(self) -> int:
        """Bytes of bodies that are being read to be judged, of all streams of this connection."""
        parent = self.context.layers[self.context.layers.index(self) - 1]
        assert isinstance(parent, layer.HttpLayer)
        return sum(len(stream.request_body_buf) for stream in parent.streams.values())

    def send_response(self, already_streamed: bool = False) -> Generator[commands.Command, Any, None]:
        yield from super().send_response(already_streamed)
        ended = self.server_state == self.state_done and self.client_state != self.state_done
        if ended and self.flow.request.is_http2:
            # The client may wait for the end of the answer before it ends its request.
            yield layer.SendHttp(events.ResponseEndOfMessage(self.stream_id), self.context.client)

    def handle_protocol_error(
        self, event: events.RequestProtocolError | events.ResponseProtocolError
    ) -> Generator[commands.Command, Any, None]:
        problem = problem_of(self.flow) if isinstance(event, events.RequestProtocolError) else None
        if problem is None or self.client_state != self.state_consume_request_body:
            yield from super().handle_protocol_error(event)
            return
        self.request_body_buf.clear()
        self.flow.error = flow.Error(problem.text)
        yield hooks.HttpErrorHook(self.flow)
        yield from self._answer_and_close(problem.text)

    def _answer_and_close(self, text: str) -> Generator[commands.Command, Any, None]:
        """Where an HTTP/1 request ends, and whether what follows is one, nobody can tell."""
        if self.flow.response is None:
            self.flow.response = http.Response.make(400, text)
        if self.flow.request.is_http2:
            yield from self._answer_now(self.flow.response)
            return
        self.flow.response.headers["connection"] = "close"
        yield from self._answer_now(self.flow.response)
        yield commands.CloseConnection(self.context.client)


def _invalid(mode: layer.HTTPMode, request: http.Request) -> Problem | None:
    """What is wrong with a request that could be read (as mitmproxy's `validate_request`, with reasons of ours)."""
    if request.scheme not in ("http", "https", ""):
        return Problem("unsupported_scheme", "expected http, or https in a tunnel made with CONNECT")
    if mode is layer.HTTPMode.transparent and request.method == "CONNECT":
        return Problem("name_mismatch", "CONNECT inside a tunnel is refused")
    try:
        validate_headers(request)
    except ValueError as e:
        return Problem("invalid_request", f"this is not an HTTP/1.1 request: {e}")
    if mode is layer.HTTPMode.regular and not request.host and not _names_host(request):
        return Problem("doubtful_name", "the request names no host")
    return None


def _names_host(request: http.Request) -> bool:
    try:
        return bool(url.parse_authority(request.host_header or "", check=True)[0])
    except ValueError:
        return False
