"""What is open when the rules change: streams and downloads that are denied now end at once, others go on."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from end_to_end.wire import Wire, chunked, head
from end_to_end.world import Monitor, Outside, Server, binding, target, until

from lictor.certs.domain import TrustDomain
from lictor.cli.init import write_binding

SIZE = 1 << 40


class Endless(Server):
    """`…/events` is a stream of events that goes on when told to, `…/big` a download that takes long."""

    def __init__(self, outside: Outside) -> None:
        super().__init__(outside)
        self.go_on = threading.Event()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            if handler.path.endswith("/events"):
                self._start(handler, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
                for number in range(2):
                    handler.wfile.write(next(chunked([b"data: %d\n\n" % number])))
                    self.go_on.wait(30)
                handler.wfile.write(b"0\r\n\r\n")
            elif handler.path.endswith("/big"):
                self._start(handler, f"Content-Length: {SIZE}")
                for _ in range(20_000):
                    handler.wfile.write(b"x" * 4096)
                    time.sleep(0.001)
            else:
                super().answer(handler)

    def _start(self, handler: http.server.BaseHTTPRequestHandler, *headers: str) -> None:
        handler.send_response(200)
        for line in headers:
            handler.send_header(*line.split(": ", 1))
        handler.end_headers()


@dataclass
class Place:
    monitor: Monitor
    server: Endless
    domain: TrustDomain

    def put_in_force(self, version: str, *urns: str) -> None:
        said = len(self.monitor.output())
        document = binding(version=version, data_source_access=list(urns))
        write_binding(self.monitor.path / "bindings/main.json", document, self.domain)
        until(lambda: f"urn:test:policy:main {version}" in self.monitor.output()[said:])

    @contextlib.contextmanager
    def begun(self, path: str, agent: str = "default") -> Iterator[Wire]:
        """A response of which the first bytes are read."""
        at = f"localhost:{self.server.port}"
        with Wire(self.monitor, self.monitor.agent_context(agent)) as wire:
            wire.tunnel(at).send(head("GET", path, f"Host: {at}"))
            assert wire.read_head()[0] == 200
            wire.read_some()
            yield wire

    def outcome_of(self, path_urn: str, since: int) -> dict[str, object]:
        found = self.monitor.wait_for(lambda e: "outcome_of" in e and e["action_target"] == path_urn, since)
        outcome: dict[str, object] = found["outcome"]
        return outcome


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside, domain: TrustDomain) -> Iterator[Place]:
    with contextlib.closing(Endless(outside)) as server:
        monitor = share_monitor(
            "open",
            {"main": binding(data_source_access=["urn:test:*"])},
            "".join(
                target(f"urn:test:{name}", "data_source", f"https://localhost:{server.port}/{name}/**")
                for name in ("kept", "stream", "big")
            ),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
            workers=2,
        )
        yield Place(monitor, server, domain)
        server.go_on.set()


def test_other_bindings_end_what_they_deny(place: Place) -> None:
    since = len(place.monitor.entries())
    with place.begun("/kept/events") as kept, place.begun("/stream/events") as stream, place.begun("/big/big") as big:
        place.put_in_force("2.0.0", "urn:test:kept")
        assert b"data: 1" not in stream.read_rest()
        assert len(big.read_rest()) < SIZE
        place.server.go_on.set()
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += kept.read_some()
        assert b"data: 1" in rest
    for name in ("stream", "big"):
        outcome = place.outcome_of(f"urn:test:{name}", since)
        assert (outcome["error"], outcome["complete"]) == ("policy_changed", False)
    assert place.outcome_of("urn:test:kept", since)["complete"] is True
