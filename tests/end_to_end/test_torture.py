"""`make torture` in its short form, and a ledger whose file was spoilt."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, lictor
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Server, binding, target
from torture.run import VICTIMS, torture

PAGE = 4096
SECONDS = 6.0


def test_processes_are_killed_under_load(tmp_path: Path) -> None:
    score = torture(tmp_path, SECONDS, random.randrange(1 << 32), lambda _: None)
    assert score.problems == [], score
    assert {*score.kills} == {*VICTIMS}
    assert score.received > 50
    assert score.entries > 100
    assert score.bets >= 1, "those of the end at least"


@pytest.fixture
def stopped(make_monitor: Callable[..., Monitor], server: Server, outside: Any) -> Monitor:
    """A monitor that has recorded some actions and ended well."""
    monitor = make_monitor(
        "spoilt",
        {"main": binding(data_source_access=["urn:test:data"])},
        target("urn:test:data", "data_source", f"https://localhost:{server.port}/data/**"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
    )
    for number in range(5):
        assert get(monitor, server, number) == 200
    assert monitor.stop() == 0
    return monitor


def get(monitor: Monitor, server: Server, number: int) -> int:
    with Wire(monitor) as wire:
        return wire.tunnel(f"localhost:{server.port}").request("GET", f"/data/{number}").status


def verify(monitor: Monitor) -> Done:
    return lictor("log", "verify", "-c", monitor.config)


def page_of(file: Path, data: bytes) -> int:
    return file.read_bytes().index(data) // PAGE * PAGE


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as f:
        f.seek(offset)
        f.write(data)


@pytest.mark.parametrize("what", ["the header", "the page of the entries", "a bit of an entry", "the end of the file"])
def test_a_spoilt_ledger_is_not_gone_on_with(stopped: Monitor, server: Server, what: str) -> None:
    file = stopped.path / "data/ledger.sqlite"
    entry = b'"action_target":"urn:test:data"'
    if what == "the header":
        overwrite(file, 0, b"\x00" * 100)
    elif what == "the page of the entries":
        overwrite(file, page_of(file, entry), random.randbytes(PAGE))
    elif what == "a bit of an entry":
        overwrite(file, file.read_bytes().index(entry) + len(entry) - 2, b"b")
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // PAGE // 2 * PAGE])
    spoilt = file.read_bytes()
    reached = server.seen
    process = stopped.launch()
    assert process.wait(30) in (1, 2)
    stopped.process = None
    said = stopped.output()
    assert "Traceback" not in said
    assert "ledger" in said
    assert server.seen == reached
    assert file.read_bytes() == spoilt, "nothing is written to what cannot be trusted"
    checked = verify(stopped)
    assert checked.returncode in (1, 2)
    assert "Traceback" not in checked.stderr
