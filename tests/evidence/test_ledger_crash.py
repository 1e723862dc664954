"""What is acknowledged is there: after kill -9, on a full disk, on a disk that turns read-only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner

ORIGIN = "example.test/monitor/one"
KEY = bytes(range(32))

APPENDER = """
import asyncio, resource, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.errors import LedgerError
from lictor.formats.keys import KeySigner

async def work(ledger, size):
    while True:
        seq = ledger.add({"padding": "x" * size}).seq
        await ledger.commit()
        print("durable", seq, flush=True)

async def main(path, size, limit):
    signer = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    ledger = Ledger.open(SqliteStore(Path(path)), "example.test/monitor/one", signer)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    tasks = [asyncio.create_task(work(ledger, size)) for _ in range(8)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    print("all dead", {type(outcome).__name__ for outcome in outcomes}, outcomes[0], flush=True)
    try:
        ledger.add({})
        print("still adds", flush=True)
    except LedgerError as e:
        print("refused", e, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def appender(path: Path, size: int, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDER, str(path), str(size), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def acknowledged(lines: list[str]) -> set[int]:
    return {int(line.split()[1]) for line in lines if line.startswith("durable") and line.endswith("\n")}


async def check_everything_is_there(path: Path, durable: set[int]) -> None:
    """The ledger opens (which checks it against its checkpoint), goes on, and has what was acknowledged."""
    ledger = Ledger.open(SqliteStore(path), ORIGIN, KeySigner.of(Ed25519PrivateKey.from_private_bytes(KEY)))
    assert ledger.size > max(durable)
    assert ledger.add({}).seq == ledger.size - 1
    await ledger.close()
    reader = SqliteReader(path)
    assert [seq for seq, _ in reader.entries()] == list(range(ledger.size))
    reader.close()


@pytest.mark.parametrize("acknowledgements", [1, 60, 700])
async def test_kill_9_loses_no_acknowledged_entry(tmp_path: Path, acknowledgements: int) -> None:
    path = tmp_path / "ledger.db"
    with appender(path, 2000) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledgements)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    durable = acknowledged(lines)
    assert len(durable) >= acknowledgements
    await check_everything_is_there(path, durable)


async def test_while_one_process_writes_a_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with appender(path, 10) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UsageError, match="another monitor writes the ledger"):
            SqliteStore(path)
        reader = SqliteReader(path)
        assert next(reader.entries())[0] == 0
        reader.close()
        process.kill()


async def test_a_file_that_may_not_grow_stops_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with appender(path, 3000, limit=1 << 20) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()
    check_death(lines, path)
    await check_everything_is_there(path, acknowledged(lines))


def check_death(lines: list[str], path: Path) -> None:
    """Every waiter got a LedgerError, and what was acknowledged is what is stored, not one more."""
    assert lines[-2].startswith("all dead {'LedgerError'}")
    assert f"{path} cannot be written" in lines[-2]
    assert lines[-1].startswith("refused")
    durable = acknowledged(lines)
    assert durable
    reader = SqliteReader(path)
    assert {seq for seq, _ in reader.entries()} == durable
    reader.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_stops_the_ledger(small_disk: Path) -> None:
    path = small_disk / "ledger.db"
    with appender(path, 3000) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()
    check_death(lines, path)
    assert "full" in lines[-1] or "I/O" in lines[-1]


async def test_a_ledger_on_a_read_only_disk_is_not_opened(small_disk: Path) -> None:
    path = small_disk / "ledger.db"
    SqliteStore(path).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UsageError, match="cannot be opened for writing: Read-only file system"):
        SqliteStore(path)
