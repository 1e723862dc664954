"""What an MCP server may send to an agent, and what of it arrives: over sockets, from a server that says anything."""

from __future__ import annotations

import gzip
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from end_to_end.wire import Answer, Wire, chunked, head
from end_to_end.world import Monitor, Outside, Server, binding, target

URN = "urn:test:tool:any"
LIMIT = 65536
SSE = "Content-Type: text/event-stream"
JSON = "Content-Type: application/json"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
DONE = b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
SECRET = "xyzzy"


class Anything(Server):
    """Answers with `lines` and `parts`; after the first part it waits for `go_on`."""

    lines: tuple[str, ...] = (JSON,)
    parts: tuple[bytes, ...] = (b"{}",)
    go_on = threading.Event()

    def say(self, *parts: bytes, lines: tuple[str, ...] = (SSE,)) -> None:
        self.parts, self.lines = parts, lines
        self.go_on.set()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        lines = ["HTTP/1.1 200 OK", *self.lines, "Transfer-Encoding: chunked"]
        handler.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        for number, part in enumerate(chunked(self.parts)):
            if number == 1:
                self.go_on.wait(15)
            handler.wfile.write(part)
            handler.wfile.flush()


@dataclass
class Place:
    monitor: Monitor
    server: Anything

    @property
    def at(self) -> str:
        return f"localhost:{self.server.port}"

    def post(self, wire: Wire, message: Any, *headers: str) -> Answer:
        """What arrives, also of an answer that is broken off (then with the status 0)."""
        body = json.dumps(message).encode()
        wire.tunnel(self.at).send(head("POST", "/mcp", f"Host: {self.at}", JSON, *headers, body=body) + body)
        return self.read(wire)

    def read(self, wire: Wire) -> Answer:
        try:
            status, phrase, headers = wire.read_head()
        except (EOFError, OSError):
            return Answer(0, "", {}, b"")
        arrived = b""
        if "chunked" not in headers.get("transfer-encoding", ""):
            return Answer(status, phrase, headers, wire.read(int(headers["content-length"])))
        try:
            while size := int(wire.readline().split(";")[0], 16):
                arrived += wire.read(size)
                wire.readline()
        except (EOFError, OSError, ValueError):
            return Answer(0, phrase, headers, arrived)
        return Answer(status, phrase, headers, arrived)


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    server = Anything(outside)
    allowed = [URN, f"{URN}#roots/list", f"{URN}#tools/good"]
    monitor = share_monitor(
        "answers",
        {"main": binding(tool_call=allowed)},
        target(URN, "tool", f"https://localhost:{server.port}/mcp", protocol="mcp"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n\n[limits]\njudged_body_bytes = {LIMIT}\n',
    )
    monitor.domain.add_agent("other")
    yield Place(monitor, server)
    server.close()


@pytest.fixture
def wire(place: Place) -> Iterator[Wire]:
    with Wire(place.monitor) as made:
        yield made


def event(message: Any) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def request(method: str, id: Any = 7, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def result(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": members}


GOOD = json.dumps(result(said=SECRET)).encode()
TOO_LARGE = json.dumps(result(said=SECRET, more="x" * LIMIT)).encode()
STOPPED: dict[str, tuple[tuple[str, ...], bytes, str]] = {
    "compressed": ((JSON, "Content-Encoding: gzip"), gzip.compress(GOOD), "encoded_answer"),
    "compressed stream": ((SSE, "Content-Encoding: br"), b"data: " + GOOD + b"\n\n", "encoded_answer"),
    "compression bomb": ((JSON, "Content-Encoding: gzip"), gzip.compress(b" " * (1 << 24) + GOOD), "encoded_answer"),
    "compressed twice": ((JSON, "Content-Encoding: identity", "Content-Encoding: gzip"), GOOD, "encoded_answer"),
    "other charset": (("Content-Type: application/json; charset=utf-16",), GOOD, "unparsable_answer"),
    "two content types": ((JSON, SSE), GOOD, "unparsable_answer"),
    "no content type": ((), GOOD, "unexpected_answer"),
    "text": (("Content-Type: text/plain",), GOOD, "unexpected_answer"),
    "not JSON": ((JSON,), GOOD[:-1], "unparsable_answer"),
    "member twice": ((JSON,), GOOD.replace(b'{"said"', b'{"said": 1, "said"'), "unparsable_answer"),
    "NaN": ((JSON,), GOOD.replace(b'"id": 1', b'"id": NaN'), "unparsable_answer"),
    "not UTF-8": ((JSON,), GOOD.replace(b'{"said"', b'{"\xff": 1, "said"'), "unparsable_answer"),
    "far too deep": ((JSON,), GOOD.replace(b'"xyzzy"', b"[" * 70 + b'"xyzzy"' + b"]" * 70), "unparsable_answer"),
    "no message": ((JSON,), b'{"said": "xyzzy"}', "unparsable_answer"),
    "result in another case": ((JSON,), GOOD.replace(b'{"said"', b'{"Tools": [], "said"'), "unparsable_answer"),
    "batch too long": ((JSON,), b"[" + b",".join([GOOD] * 65) + b"]", "unparsable_answer"),
    "event not JSON": ((SSE,), b"data: xyzzy\n\n", "unparsable_answer"),
    "event in pieces": ((SSE,), b'data: {"said":\ndata: "xyzzy"}\n\n', "unparsable_answer"),
    "request without an id to answer": ((SSE,), event(request("roots/list", None, said=SECRET)), "unparsable_answer"),
    "event too large": ((SSE,), b"data: " + TOO_LARGE + b"\n\n", "answer_too_large"),
    "event without end": ((SSE,), b"data: xyzzy" + b"x" * LIMIT, "answer_too_large"),
    "name that ends a line": ((SSE,), b"event: a\xe2\x80\xa8b\n" + b"data: " + GOOD + b"\n\n", "unparsable_answer"),
    "input requests in a list": ((JSON,), json.dumps(result(inputRequests=[SECRET])).encode(), "unparsable_answer"),
}


@pytest.mark.parametrize(("lines", "body", "reason"), STOPPED.values(), ids=STOPPED)
def test_an_answer_that_cannot_be_read_does_not_pass(
    place: Place, wire: Wire, lines: tuple[str, ...], body: bytes, reason: str
) -> None:
    before = len(place.monitor.entries())
    place.server.say(body, lines=lines)
    answer = place.post(wire, PING)
    assert answer.status in (0, 502)
    assert SECRET.encode() not in answer.body
    assert place.monitor.outcome(before)["answer_refused"] == reason
    if answer.status == 502:
        assert (answer.json()["id"], answer.json()["error"]["data"]["reason"]) == (1, reason)


def test_an_answer_beyond_the_limit_does_not_pass(place: Place, wire: Wire) -> None:
    before = len(place.monitor.entries())
    place.server.say(TOO_LARGE, lines=(JSON,))
    answer = place.post(wire, PING)
    assert answer.status == 502
    assert SECRET.encode() not in answer.body
    outcome = place.monitor.outcome(before)
    assert not outcome["complete"]
    assert f"exceeds {LIMIT} bytes" in outcome["error"]


def test_servers_are_asked_not_to_compress(place: Place, wire: Wire) -> None:
    place.server.say(GOOD, lines=(JSON,))
    assert place.post(wire, PING, "Accept-Encoding: gzip, br").json()["result"] == {"said": SECRET}
    assert place.server.requests[-1][2].get_all("accept-encoding") == ["identity"]


PLAIN = [
    b": comment\n\n",
    b"id: 5\nretry: 10\ndata:\n\n",
    b"event: message\r\nid: 6\r\ndata: " + GOOD + b"\r\n\r\n",
    DONE,
]


def test_a_stream_without_requests_passes_byte_for_byte(place: Place, wire: Wire) -> None:
    place.server.say(*(bytes([octet]) for octet in b"".join(PLAIN)))
    assert place.post(wire, PING).body == b"".join(PLAIN)
    outcome = place.monitor.wait_for(lambda e: e.get("outcome", {}).get("response_bytes") == len(b"".join(PLAIN)))
    assert outcome["outcome"]["complete"]


def test_an_event_passes_before_the_next_one_comes(place: Place, wire: Wire) -> None:
    place.server.say(PLAIN[2], DONE)
    place.server.go_on.clear()
    body = json.dumps(PING).encode()
    wire.tunnel(place.at).send(head("POST", "/mcp", f"Host: {place.at}", JSON, body=body) + body)
    wire.read_head()
    assert wire.read(int(wire.readline(), 16)) == PLAIN[2]
    place.server.go_on.set()
    wire.readline()
    assert wire.read(int(wire.readline(), 16)) == DONE


DENIED = [
    request("sampling/createMessage", said=SECRET),
    request("elicitation/create", "a", said=SECRET),
    request("tools/call", name="good", said=SECRET),
    request("Sampling/createMessage", said=SECRET),
]


@pytest.mark.parametrize("message", DENIED, ids=[message["method"] for message in DENIED])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_request_of_the_server_that_is_not_allowed(
    place: Place, wire: Wire, message: dict[str, Any], method: str
) -> None:
    before = len(place.monitor.entries())
    place.server.say(event(message) + DONE)
    if method == "POST":
        answer = place.post(wire, PING)
    else:
        wire.tunnel(place.at).send(head("GET", "/mcp", f"Host: {place.at}", "Accept: text/event-stream"))
        answer = place.read(wire)
    assert answer.body == DONE
    denied = place.monitor.wait_for(lambda e: e.get("decision") == "deny", before)
    assert denied["action_parameters"]["direction"] == "from_server"
    assert denied["action_parameters"]["rpc_method"] == message["method"]
    reasons = {"not_in_allowlist": f"{URN}#{message['method']}", "method_not_supported": URN}
    assert denied["action_target"] == reasons[denied["reason"]]


@pytest.mark.parametrize("separator", ["\u2028\u2028", "\x0b\x0b", "\x85\x85", "\r\r"])
def test_what_some_clients_would_take_for_another_event(place: Place, wire: Wire, separator: str) -> None:
    """Python's splitlines knows more line ends than the standard does."""
    hidden = event(request("sampling/createMessage")).decode()
    comment = f": harmless{separator}{hidden}".encode()
    text = json.dumps(result(said="a\u2028\u2028" + hidden), ensure_ascii=False).encode()
    place.server.say(comment + b"data: " + text + b"\n\n")
    answer = place.post(wire, PING).body
    assert not re.search("\u2028|\x0b|\x85|\r", answer.decode())
    (only,) = [line for line in answer.decode().splitlines() if line.startswith("data:") and "result" in line]
    assert json.loads(only[5:])["result"] == {"said": "a\u2028\u2028" + hidden}
    assert '"method":' not in answer.replace(b'\\"method\\":', b"").decode()


def test_input_requests_of_a_result(place: Place, wire: Wire) -> None:
    wanted = {"a": {"method": "roots/list"}, "b": {"method": "sampling/createMessage", "params": {"said": SECRET}}}
    place.server.say(json.dumps(result(inputRequests=wanted, requestState="s")).encode(), lines=(JSON,))
    answer = place.post(wire, PING)
    assert (answer.status, answer.json()["id"]) == (200, 1)
    assert "sampling/createMessage, which is not allowed" in answer.json()["error"]["message"]
    del wanted["b"]
    good = result(inputRequests=wanted, requestState="s")
    place.server.say(json.dumps(good).encode(), lines=(JSON,))
    with Wire(place.monitor) as second:
        assert place.post(second, PING).json() == good


def asked(place: Place, wire: Wire, *headers: str, id: Any = 7) -> str:
    """The id under which a request of the server arrives."""
    place.server.say(event(request("roots/list", id)) + DONE)
    first = place.post(wire, PING, *headers).body.partition(b"\n")[0]
    message = json.loads(first.removeprefix(b"data: "))
    assert message == request("roots/list", message["id"])
    return str(message["id"])


@pytest.mark.parametrize("own", [7, "seven", 'a"b', 2**70, -1])
def test_an_answer_to_what_was_let_in_goes_out_under_the_servers_id(place: Place, wire: Wire, own: Any) -> None:
    sealed = asked(place, wire, "Mcp-Session-Id: s1", id=own)
    place.server.say(b"", lines=())
    with Wire(place.monitor) as second:
        place.post(second, {"jsonrpc": "2.0", "id": sealed, "result": {"roots": []}}, "Mcp-Session-Id: s1")
    assert json.loads(place.server.requests[-1][3]) == {"jsonrpc": "2.0", "id": own, "result": {"roots": []}}


def test_an_answer_that_nobody_has_asked_for_does_not_go_out(place: Place, wire: Wire) -> None:
    sealed = asked(place, wire, "Mcp-Session-Id: s1")
    place.server.say(b"", lines=())
    seen = len(place.server.requests)
    forged = sealed[:-1] + ("A" if sealed[-1] != "A" else "B")
    for id_, session in ((7, "s1"), ("7", "s1"), (None, "s1"), (sealed, "s2"), (forged, "s1"), ("lictor.x.y", "s1")):
        with Wire(place.monitor) as second:
            answer = place.post(second, {"jsonrpc": "2.0", "id": id_, "result": {}}, f"Mcp-Session-Id: {session}")
            assert answer.status == 400, id_
            assert "unasked_answer" in answer.phrase
    with Wire(place.monitor, place.monitor.agent_context("other")) as other:
        answer = place.post(other, {"jsonrpc": "2.0", "id": sealed, "result": {}}, "Mcp-Session-Id: s1")
        assert answer.status == 400
    assert len(place.server.requests) == seen


def test_a_ping_of_the_server_needs_nobodys_leave_and_its_cancellation_finds_the_request(
    place: Place, wire: Wire
) -> None:
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7, "reason": "r"}}
    place.server.say(event(request("roots/list")) + event(cancel) + event(request("ping")) + DONE)
    lines = place.post(wire, PING).body.split(b"\n\n")[:3]
    wanted, cancelled, ping = (json.loads(line.removeprefix(b"data: ")) for line in lines)
    assert cancelled["params"] == {"requestId": wanted["id"], "reason": "r"}
    assert ping["id"] == wanted["id"]
    place.server.say(event(cancel))
    with Wire(place.monitor) as second:
        assert place.post(second, PING, "Mcp-Method: ping").body == event(cancel), "2026-07-28 has no such requests"


def test_an_error_that_is_no_message_arrives(place: Place, wire: Wire) -> None:
    def unauthorized(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 401 Unauthorized\r\n" + JSON.encode() + b"\r\nContent-Length: 13\r\n\r\n")
        handler.wfile.write(b'{"error": 1} ')

    answer, place.server.answer = place.server.answer, unauthorized  # type: ignore[method-assign]
    try:
        assert (place.post(wire, PING).status, place.server.requests[-1][1]) == (401, "/mcp")
    finally:
        place.server.answer = answer  # type: ignore[method-assign]
