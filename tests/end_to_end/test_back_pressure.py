"""A ledger that is slow, or does not answer at all: requests wait or are refused at the stated limits, and no more.

The slow disk is another connection that holds the write lock of the SQLite file for a while, again and again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from end_to_end.wire import Answer, Wire
from end_to_end.world import Monitor, Server, binding, target, until

LIMIT, TIMEOUT_S, AT_ONCE_S = 10, 6.0, 4.0
"""The only agent has half of what may wait."""
TOO_LATE = "refused: the receipt came too late, nothing was forwarded"


@pytest.fixture
def monitor(make_monitor: Callable[..., Monitor], server: Server, outside: Any) -> Monitor:
    return make_monitor(
        "pressed",
        {"main": binding(data_source_access=["urn:test:data"])},
        target("urn:test:data", "data_source", f"https://localhost:{server.port}/**"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n\n'
        f"[limits]\nreceipt_timeout_s = {TIMEOUT_S}\nwaiting_actions = {2 * LIMIT}\n",
    )


def at_once(monitor: Monitor, server: Server, count: int) -> list[tuple[Answer, float]]:
    """Answers to `count` requests at the same time, each on its own connection, and the seconds that they took."""

    def ask(number: int) -> tuple[Answer, float]:
        with Wire(monitor) as wire:
            wire.tunnel(f"localhost:{server.port}")
            ready.wait(30)
            began = time.monotonic()
            return wire.request("GET", f"/{number}"), time.monotonic() - began

    ready = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def resident(pid: int) -> int:
    """Resident memory in kB that is the process's own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


@contextlib.contextmanager
def slow_disk(monitor: Monitor, seconds: float) -> Iterator[None]:
    """Every write waits for up to `seconds`."""
    ending = threading.Event()

    def hold() -> None:
        path = monitor.path / "data/ledger.sqlite"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
            while not ending.is_set():
                db.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                db.execute("ROLLBACK")
                time.sleep(0.15)  # longer than SQLite sleeps between two tries, so that each gap is found

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        yield
    finally:
        ending.set()
        holding.join()


def test_with_a_slow_ledger_requests_wait(monitor: Monitor, server: Server) -> None:
    with slow_disk(monitor, 0.3):
        answers = at_once(monitor, server, LIMIT - 2)
    assert Counter(answer.status for answer, _ in answers) == {200: LIMIT - 2}
    assert max(took for _, took in answers) > 0.2
    assert len(server.requests) == LIMIT - 2


def test_with_a_ledger_that_hangs_they_are_refused_at_the_limits(monitor: Monitor, server: Server) -> None:
    assert at_once(monitor, server, 1)[0][0].status == 200
    assert monitor.process is not None
    control, [worker] = monitor.process.pid, monitor.workers()
    used: list[int] = []
    reached = len(server.requests)
    os.kill(control, signal.SIGSTOP)
    try:
        for _ in range(50):  # 1500 connections: the first thousand warm allocator and collector up
            answers = at_once(monitor, server, 3 * LIMIT)
            assert {(answer.status, answer.json()["reason"]) for answer, _ in answers} == {(503, "overloaded")}
            used.append(resident(worker))
            if len(used) == 1:
                waited = [answer for answer, took in answers if took >= TIMEOUT_S * 0.9]
                assert len(waited) == LIMIT, "so many wait for the stated time"
                assert all(f"no receipt within {TIMEOUT_S:g} seconds" in answer.json()["detail"] for answer in waited)
            else:
                assert max(took for _, took in answers) < AT_ONCE_S, "the others are refused at once"
    finally:
        os.kill(control, signal.SIGCONT)
    assert len(server.requests) == reached, "nothing went upstream"
    assert used[-1] - used[-10] < 8192, f"each of 300 connections kept more than 27 kB in the worker: {used} kB"

    def late() -> bool:
        return sum(e.get("outcome", {}).get("error") == TOO_LATE for e in monitor.entries()) == LIMIT

    until(late, what="what was recorded too late says that it was not forwarded")
    assert at_once(monitor, server, LIMIT)[0][0].status == 200, "it goes on"


def test_the_control_process_keeps_its_size_while_the_ledger_is_slow(monitor: Monitor, server: Server) -> None:
    assert monitor.process is not None
    used: list[int] = []
    with slow_disk(monitor, 0.1):
        for _ in range(24):
            answers = at_once(monitor, server, LIMIT - 2)
            assert {answer.status for answer, _ in answers} == {200}
            used.append(resident(monitor.process.pid))
    assert used[-1] - used[2] < 2048, f"the control process's memory grew: {used} kB"
