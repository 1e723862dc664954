"""HTTP/2 from the agent, to servers of HTTP/1.1: refused and judged as HTTP/1.1 is, stream by stream."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest
from end_to_end.http2 import Http2, head
from end_to_end.place import Place
from end_to_end.refused_http2 import ENDED, REFUSED
from end_to_end.refused_requests import CALL, FORBIDDEN
from end_to_end.world import Monitor, Outside, Server, binding, target, until

URN_MCP = "urn:test:tool:mcp"


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(Server(outside)) as server:
        url = f"https://localhost:{server.port}"
        monitor = share_monitor(
            "http2",
            {"main": binding(tool_call=[URN_MCP, f"{URN_MCP}#tools/add"], http_request=[f"{url}/open/**"])},
            target(URN_MCP, "tool", f"{url}/mcp", protocol="mcp"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n[limits]\njudged_body_bytes = 65536\n',
        )
        yield Place(monitor, server)


@pytest.fixture(scope="module")
def client(place: Place) -> Iterator[Http2]:
    """One connection for all refusals of streams: none of them harms it."""
    with Http2(place.monitor, place.at) as made:
        yield made


@pytest.mark.parametrize("name", REFUSED)
def test_refused(place: Place, client: Http2, name: str) -> None:
    case, monitor = REFUSED[name], place.monitor
    seen, since = place.server.seen, len(monitor.entries())
    reply = client.answer(client.ask(case.fields(place.at), case.body))
    assert reply.status == case.status, reply
    told = reply.json()
    told = told[0] if isinstance(told, list) else told
    told = told["error"]["data"] if "error" in told else told
    assert told["reason"] == case.reason
    assert case.reason in reply.headers["proxy-status"]
    entries = [e for e in monitor.entries()[since:] if "outcome_of" not in e]
    assert told["entry"] in [e["seq"] for e in entries]
    assert {e["decision"] for e in entries} == {"deny"}
    assert case.reason in [e["reason"] for e in entries]
    assert place.server.seen == seen, "an upstream was reached"


def test_the_connection_of_all_refusals_is_still_good(place: Place, client: Http2) -> None:
    assert client.get("/open/after").json() == {"path": "/open/after"}


@pytest.mark.parametrize("name", ENDED)
def test_connection_ended(place: Place, name: str) -> None:
    case, monitor = ENDED[name], place.monitor
    seen, since = place.server.seen, len(monitor.entries())
    with Http2(monitor, place.at) as client:
        with contextlib.suppress(OSError):
            case.send(client)
        client.until_closed()
    found = until(lambda: [e for e in monitor.entries()[since:] if e.get("reason") == case.reason], what="an entry")
    assert {e["decision"] for e in found} == {"deny"}
    assert place.server.seen == seen, "an upstream was reached"
    with Http2(monitor, place.at) as client:
        assert client.get().status == 200


def test_allowed(place: Place) -> None:
    since = len(place.monitor.entries())
    with Http2(place.monitor, place.at) as client:
        assert client.get("/open/x?q=secret").json() == {"path": "/open/x?q=secret"}
        assert client.post("/open/y", b"abc").status == 200
        reply = client.post("/mcp", json.dumps(CALL).encode(), ("content-type", "application/json"))
        assert reply.status == 200
        assert client.answer(client.ask(head(place.at, "/open/z", "HEAD"))).status == 200
    until(lambda: sum("outcome_of" in e for e in place.monitor.entries_of(since)) == 4)
    entries = place.monitor.entries_of(since)
    actions = [e for e in entries if "outcome_of" not in e]
    assert [(e["action_type"], e["action_target"]) for e in actions] == [
        ("http_request", f"https://{place.at}/open/x"),
        ("http_request", f"https://{place.at}/open/y"),
        ("tool_call", f"{URN_MCP}#tools/add"),
        ("http_request", f"https://{place.at}/open/z"),
    ]
    assert "secret" not in json.dumps(entries)
    assert [e["outcome"]["status"] for e in entries if "outcome_of" in e] == [200] * 4
    assert [request[3] for request in place.server.requests[-4:-1]] == [b"", b"abc", json.dumps(CALL).encode()]


def test_what_a_server_of_http1_gets(place: Place) -> None:
    with Http2(place.monitor, place.at) as client:
        client.get("/open/x", ("cookie", "a=1"), ("cookie", "b=2"), ("x-mine", "1"), ("host", place.at))
    headers = place.server.requests[-1][2]
    assert headers.get_all("host") == [place.at]
    assert headers.get_all("cookie") == ["a=1; b=2"]
    assert headers["x-mine"] == "1"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_cannot_become_a_request(place: Place, announced: bool) -> None:
    """mitmproxy writes a body of unknown length behind a head without one; a server takes it for the next request."""
    smuggled = b"GET /closed HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = len(place.server.requests)
    more = [("content-length", str(len(smuggled)))] if announced else []
    with Http2(place.monitor, place.at) as client:
        stream = client.ask(head(place.at, "/open/x", "POST", *more), end=False)
        client.h2.send_data(stream, b"")
        client.h2.send_data(stream, smuggled[:10])
        client.h2.send_data(stream, b"")  # on the wire of HTTP/1.1 an empty chunk ends the body
        client.h2.send_data(stream, smuggled[10:], end_stream=True)
        client.send()
        assert client.answer(stream).status == 200
        assert client.get("/open/y").status == 200
    assert [(r[0], r[1], r[3]) for r in place.server.requests[before:]] == [
        ("POST", "/open/x", smuggled),
        ("GET", "/open/y", b""),
    ]


@pytest.mark.parametrize("how", ["too little", "too much", "too little, then trailers"])
def test_a_body_of_another_length_ends_its_stream_only(place: Place, how: str) -> None:
    since = len(place.monitor.entries())
    with Http2(place.monitor, place.at) as client:
        stream = client.ask(head(place.at, "/open/x", "POST", ("content-length", "5")), end=False)
        client.h2.send_data(stream, b"123456" if how == "too much" else b"1234", end_stream=how == "too little")
        if how.endswith("trailers"):
            client.h2.send_headers(stream, [("x-a", "b")], end_stream=True)
        client.send()
        assert client.answer(stream).reset is not None
        assert client.get().status == 200
    outcome = place.monitor.outcome(since)
    assert outcome["complete"] is False
    assert "malformed" in outcome["error"]


def test_a_refused_stream_leaves_the_others_alone(place: Place) -> None:
    with Http2(place.monitor, place.at) as client:
        first = client.ask(head(place.at, "/open/x", "POST"), end=False)
        asked = [client.ask(head(place.at, path)) for path in ("/closed", "/open/a", "/closed", "/open/b")]
        denied = client.ask(head(place.at, "/mcp", "POST", ("content-type", "application/json")), end=False)
        client.upload(first, b"first ")
        client.upload(denied, json.dumps(FORBIDDEN).encode())
        assert [client.answer(stream).status for stream in asked] == [403, 200, 403, 200]
        assert client.answer(denied).status == 403
        assert client.answer(first).status == 200


def test_requests_at_once_reuse_connections_one_at_a_time(place: Place) -> None:
    before = place.server.connections
    with Http2(place.monitor, place.at) as client:
        for _ in range(3):
            streams = [client.ask(head(place.at, f"/open/{n}")) for n in range(5)]
            assert [client.answer(s).json()["path"] for s in streams] == [f"/open/{n}" for n in range(5)]
    assert place.server.connections - before <= 5


def test_a_large_refused_upload_gets_its_answer(place: Place) -> None:
    seen = place.server.seen
    with Http2(place.monitor, place.at) as client:
        stream = client.ask(head(place.at, "/closed", "POST"), end=False)
        reply, sent = client.replies[stream], 0
        while reply.reset is None and sent < 5_000_000:
            if size := min(client.h2.local_flow_control_window(stream), 16384):
                client.h2.send_data(stream, bytes(size))
                client.send()
                sent += size
            else:
                client.pump()
        assert (reply.status, reply.ended) == (403, True)
        assert reply.reset == 0, "NO_ERROR: the answer is complete, and nobody reads on"
        assert client.get().status == 200
    assert place.server.seen[1] == seen[1] + 1


def test_a_request_taken_back_before_it_was_judged(place: Place) -> None:
    since = len(place.monitor.entries())
    with Http2(place.monitor, place.at) as client:
        stream = client.ask(head(place.at, "/mcp", "POST", ("content-type", "application/json")), end=False)
        client.h2.send_data(stream, b'{"jsonrpc"')
        client.h2.reset_stream(stream, 8)
        client.send()
        assert client.get().status == 200
    entry = place.monitor.wait_for(lambda e: e.get("reason") == "request_aborted", since)
    assert entry["decision"] == "deny"
