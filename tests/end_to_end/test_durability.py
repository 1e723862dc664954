"""kill -9 at any moment: whatever an upstream has received is an entry, and the log goes on without a gap."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from command_line import lictor
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, target, until

THREADS = 8


@pytest.fixture
def running(make_monitor: Callable[..., Monitor], outside: Outside, server: Server) -> Monitor:
    return make_monitor(
        "durable",
        {"main": binding(http_request=[f"https://localhost:{server.port}/open/**"])},
        # Only so that loopback may be dialled: nothing that the agents ask for is this target.
        target("urn:test:data", "data_source", f"https://localhost:{server.port}/data"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        workers=2,
    )


@contextlib.contextmanager
def eight_clients(monitor: Monitor, at: str) -> Iterator[None]:
    """Each asks for one path after the other, none of them twice; a new connection when one ends."""
    ending = threading.Event()

    def work(number: int) -> None:
        count = itertools.count()
        while not ending.is_set():
            with contextlib.suppress(OSError, EOFError, AssertionError, ValueError), Wire(monitor) as wire:
                wire.tunnel(at)
                while not ending.is_set():
                    wire.request("POST", f"/open/{number}/{next(count)}", body=b"work")
            ending.wait(0.01)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join(20)


@pytest.mark.parametrize("victim", ["control", "worker", "both"])
def test_kill_9_under_load(running: Monitor, server: Server, victim: str) -> None:
    monitor, at = running, f"localhost:{server.port}"
    assert monitor.process is not None
    with eight_clients(monitor, at):
        until(lambda: len(server.requests) > 150)
        workers = monitor.workers()
        if victim == "worker":
            monitor.kill(workers[0])
            until(lambda: len(monitor.workers()) == 2 and workers[0] not in monitor.workers())
            reached = len(server.requests)
            until(lambda: len(server.requests) > reached + 50)
        elif victim == "control":
            monitor.kill()
        else:
            monitor.kill(monitor.process.pid, *workers)
    if monitor.process is None:
        monitor.start()
        with Wire(monitor) as wire:
            assert wire.tunnel(at).request("GET", "/open/again").status == 200
    monitor.stop()

    entries = monitor.entries()
    assert [e["seq"] for e in entries] == list(range(len(entries)))
    times = [e["timestamp"] for e in entries]
    assert times == sorted(set(times)), "strictly increasing, also across the restart"
    recorded = {e["action_target"] for e in entries if "outcome_of" not in e and e["decision"] == "allow"}
    received = {f"https://{at}{path}" for _, path, _, _ in server.requests}
    assert len(received) > 150
    assert received <= recorded
    lictor_verifies(monitor)


def test_kill_9_in_mid_upload(running: Monitor, server: Server) -> None:
    """The entry is there although the request never ended."""
    monitor, at = running, f"localhost:{server.port}"
    before = server.connections
    with Wire(monitor) as wire:
        wire.tunnel(at).send(
            f"POST /open/upload HTTP/1.1\r\nHost: {at}\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 10_000
        )
        until(lambda: server.connections > before)
        assert monitor.process is not None
        monitor.kill(monitor.process.pid, *monitor.workers())
    assert [e["action_target"] for e in monitor.of_agents()] == [f"https://{at}/open/upload"]


def test_outcomes_of_what_shutdown_cuts_off(running: Monitor, server: Server, monkeypatch: Any) -> None:
    """SIGTERM in the middle of a response: the outcome says that it is not complete, and it is not lost."""
    monitor, at = running, f"localhost:{server.port}"
    ending = threading.Event()

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"x" * 1000)
        ending.wait(20)

    monkeypatch.setattr(server, "answer", answer)
    with Wire(monitor) as wire:
        wire.tunnel(at).send(f"GET /open/slow HTTP/1.1\r\nHost: {at}\r\n\r\n".encode())
        assert wire.read_head()[0] == 200
        wire.read(1000)
        assert monitor.stop() == 0
    ending.set()
    action, outcome = monitor.of_agents()
    assert (outcome["outcome_of"], outcome["outcome"]["complete"]) == (action["seq"], False)
    assert outcome["outcome"]["response_bytes"] == 1000


def test_sigterm_lets_what_is_under_way_end(running: Monitor, server: Server, monkeypatch: Any) -> None:
    monitor, at = running, f"localhost:{server.port}"
    arrived, ending = threading.Event(), threading.Event()

    def answer(handler: Any) -> None:
        arrived.set()
        ending.wait(20)
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"ok")

    monkeypatch.setattr(server, "answer", answer)
    with Wire(monitor) as wire:
        wire.tunnel(at).send(f"GET /open/slow HTTP/1.1\r\nHost: {at}\r\n\r\n".encode())
        assert arrived.wait(20)
        assert monitor.process is not None
        monitor.process.terminate()
        until(lambda: is_closed(monitor.port), what="no new connection is taken")
        ending.set()
        assert wire.read_head()[0] == 200
        assert wire.read(2) == b"ok"
    assert monitor.stop() == 0
    assert monitor.entries()[-1]["outcome"]["complete"] is True


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def lictor_verifies(monitor: Monitor) -> None:
    """The log as it lies on disk agrees with its signed checkpoints, and its evidence is complete."""
    checked = lictor("log", "verify", "-c", monitor.config, "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
