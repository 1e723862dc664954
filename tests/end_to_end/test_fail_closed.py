"""What breaks in the monitor refuses; it never lets through."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, alive, binding, target, until

Make = Callable[..., Monitor]


def settings(server: Server, outside: Outside, more: str = "") -> dict[str, Any]:
    return {
        "bindings": {"main": binding(data_source_access=["urn:test:data"], tool_call=["urn:test:mcp"])},
        "targets": target("urn:test:data", "data_source", f"https://localhost:{server.port}/data/**")
        + target("urn:test:mcp", "tool", f"https://localhost:{server.port}/mcp", protocol="mcp"),
        "more": f'[interception]\nupstream_ca = "{outside.ca}"\n{more}',
    }


def get(monitor: Monitor, at: str, path: str = "/data/x") -> int:
    """The status of one request on a new connection; 0: closed without an answer."""
    try:
        with Wire(monitor) as wire:
            return wire.tunnel(at).request("GET", path).status
    except (OSError, EOFError, AssertionError):
        return 0


@contextlib.contextmanager
def load(monitor: Monitor, at: str, threads: int = 4) -> Iterator[list[list[int]]]:
    """Requests without end on kept connections while the block runs; every thread's list gets every status."""
    said: list[list[int]] = [[] for _ in range(threads)]
    ending = threading.Event()

    def work(statuses: list[int]) -> None:
        while not ending.is_set():
            try:
                with Wire(monitor) as wire:
                    wire.tunnel(at)
                    while not ending.is_set():
                        statuses.append(wire.request("GET", "/data/x").status)
            except (OSError, EOFError, AssertionError, ValueError):
                statuses.append(0)
                time.sleep(0.01)

    started = [threading.Thread(target=work, args=(statuses,)) for statuses in said]
    for thread in started:
        thread.start()
    try:
        yield said
    finally:
        ending.set()
        for thread in started:
            thread.join(20)


def test_control_process_killed(make_monitor: Make, outside: Outside, server: Server) -> None:
    """Its workers refuse, send nothing more upstream, and are gone soon after."""
    monitor = make_monitor("killed", **settings(server, outside), workers=2)
    at, workers = f"localhost:{server.port}", monitor.workers()
    assert len(workers) == 2
    with load(monitor, at) as said, Wire(monitor) as held:
        held.tunnel(at)
        until(lambda: len(server.requests) > 20)
        assert monitor.process is not None
        os.kill(monitor.process.pid, signal.SIGKILL)
        monitor.process.wait()
        dead, answered = time.monotonic(), [len(statuses) for statuses in said]
        answer = held.request("GET", "/data/held")
        assert (answer.status, answer.json()["reason"]) == (503, "monitor_error")
        assert "control process is gone" in answer.json()["detail"]
        for statuses, count in zip(said, answered, strict=True):
            until(lambda one=statuses, count=count: len(one) > count, what="what was on its way has ended")
        reached = len(server.requests)
        until(lambda: not any(map(alive, workers)))
        assert time.monotonic() - dead < 10
    assert len(server.requests) == reached
    assert {status for one, n in zip(said, answered, strict=True) for status in one[n + 1 :]} <= {0, 503}
    assert get(monitor, at) == 0
    assert {status for one in said for status in one} <= {0, 200, 503}


def test_control_process_stopped(make_monitor: Make, outside: Outside, server: Server) -> None:
    """It hangs: requests are refused after `limits.receipt_timeout_s`, and are served again when it goes on."""
    monitor = make_monitor("stopped", **settings(server, outside, "[limits]\nreceipt_timeout_s = 1.5\n"))
    assert monitor.process is not None
    at = f"localhost:{server.port}"
    with Wire(monitor) as wire:
        assert wire.tunnel(at).request("GET", "/data/x").status == 200
        os.kill(monitor.process.pid, signal.SIGSTOP)
        try:
            reached = len(server.requests)
            answer = wire.request("GET", "/data/x")
            assert (answer.status, answer.json()["reason"]) == (503, "overloaded")
        finally:
            os.kill(monitor.process.pid, signal.SIGCONT)
        assert len(server.requests) == reached
        assert wire.request("GET", "/data/y").status == 200
    assert server.requests[-1][1] == "/data/y"


def test_disk_full(make_monitor: Make, outside: Outside, server: Server) -> None:
    monitor = make_monitor("full", **settings(server, outside), start=False)
    limit = 250_000

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    monitor.start(preexec_fn=small_disk)
    at = f"localhost:{server.port}"
    with Wire(monitor) as wire:
        wire.tunnel(at)
        while (answer := wire.request("GET", "/data/x")).status == 200:
            assert len(server.requests) < 5000, "the disk never filled"
        reached = len(server.requests)
        assert (answer.status, answer.json()["reason"]) == (503, "monitor_error")
        assert str(monitor.path) not in answer.body.decode(), "where the log lies is the operator's"
        assert "the log cannot be written" in answer.json()["detail"]
        for _ in range(3):
            assert wire.request("GET", "/data/x").status == 503
        said = until(lambda: [line for line in monitor.output().splitlines() if "lictor: the ledger" in line])
        time.sleep(2.5)  # upkeep goes on every second
    assert [line for line in monitor.output().splitlines() if "lictor: the ledger" in line] == said
    assert len(said) == 1
    assert "nothing more is recorded until the monitor is started again" in said[0]
    assert len(server.requests) == reached
    assert len([e for e in monitor.of_agents() if "outcome_of" not in e]) == reached
    process = monitor.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) != 0, "what could not be written is not a good end"
    monitor.process = None
    assert "Traceback" not in monitor.output()
    assert "ledger" in monitor.output()
    monitor.start()
    assert get(monitor, at) == 200


def refused_start(monitor: Monitor, **popen: Any) -> str:
    """The output of a start that must fail with exit code 2."""
    process = monitor.launch(**popen)
    code = process.wait(30)
    monitor.process = None
    assert code == 2, monitor.output()
    assert "Traceback" not in monitor.output()
    return monitor.output()


def obey_modes() -> None:
    """Root is not above the modes of files (the capabilities DAC_OVERRIDE and DAC_READ_SEARCH are gone after exec)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)


@pytest.mark.parametrize("what", ["directory", "file", "file in place of the directory"])
def test_ledger_that_cannot_be_written(make_monitor: Make, outside: Outside, server: Server, what: str) -> None:
    monitor = make_monitor("readonly", **settings(server, outside), start=False)
    folder = monitor.path / "data"
    if what == "file in place of the directory":
        folder.write_text("")
    elif what == "directory":
        folder.mkdir(mode=0o500)
    else:
        monitor.start().stop()
        (folder / "ledger.sqlite").chmod(0o400)
    assert str(folder) in refused_start(monitor, preexec_fn=obey_modes)


def test_binding_that_disappears(make_monitor: Make, outside: Outside, server: Server) -> None:
    """Whoever can write the directory, but not sign, takes nothing away: not while it runs, and not for a start."""
    monitor = make_monitor("gone", **settings(server, outside))
    (folder := monitor.path / "bindings").rename(aside := monitor.path / "aside")
    folder.mkdir()
    until(lambda: "was in force and is gone" in monitor.output(), what="the report")
    assert get(monitor, f"localhost:{server.port}") == 200
    monitor.stop()
    assert "was in force and is gone" in refused_start(monitor)
    folder.rmdir()
    aside.rename(folder)
    assert get(monitor.start(), f"localhost:{server.port}") == 200


def test_two_monitors_on_one_ledger(make_monitor: Make, outside: Outside, server: Server) -> None:
    first = make_monitor("first", **settings(server, outside))
    second = make_monitor("second", **settings(server, outside), start=False)
    second.config.write_text(
        second.config.read_text().replace("data/ledger.sqlite", str(first.path / "data/ledger.sqlite"))
    )
    assert "ledger" in refused_start(second)
    assert get(first, f"localhost:{server.port}") == 200


@pytest.mark.parametrize("which", ["egress", "ingress"])
def test_port_in_use(make_monitor: Make, outside: Outside, server: Server, which: str) -> None:
    ingress = 'agent = "spiffe://test.internal/agent/b"\nurn = "urn:test:b"\nupstream = "http://127.0.0.1:1"'
    monitor = make_monitor("port", **settings(server, outside), ingress=ingress, start=False)
    taken = monitor.port if which == "egress" else monitor.ingress_port
    text = monitor.config.read_text()
    monitor.config.write_text(text.replace(f"127.0.0.1:{taken}", f"127.0.0.1:{server.port}"))
    said = refused_start(monitor)
    assert f"listen.{which}: 127.0.0.1:{server.port}" in said
    assert "choose another port" in said


def test_worker_that_crashes_is_started_again(make_monitor: Make, outside: Outside, server: Server) -> None:
    monitor = make_monitor("respawn", **settings(server, outside))
    at = f"localhost:{server.port}"
    assert get(monitor, at) == 200
    (first,) = monitor.workers()
    os.kill(first, signal.SIGKILL)
    until(lambda: get(monitor, at) == 200)
    assert first not in monitor.workers()
    assert "is started again" in monitor.output()


def test_sigterm_ends_all_in_order(make_monitor: Make, outside: Outside, server: Server) -> None:
    monitor = make_monitor("orderly", **settings(server, outside), workers=2)
    workers = monitor.workers()
    assert get(monitor, f"localhost:{server.port}") == 200
    assert monitor.stop() == 0
    assert not any(map(alive, workers))
    assert [e.get("outcome_of") for e in monitor.of_agents()] == [None, 1]
    assert len(monitor.tokens("bets")) == 1, "the window was closed at shutdown"
