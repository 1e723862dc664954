"""What the tests of `lictor binding` on logs share: running it, evidence files, a working set with a ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lictor.cli import cli
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.canonical import canonical
from lictor.formats.keys import KeySigner

ORIGIN = "e.example/monitor/local"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in `tmp_path`: its exit code, and what it printed or complained of."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str | Path) -> tuple[int, str]:
        done = CliRunner().invoke(cli, list(map(str, args)), standalone_mode=False)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            return 2, str(done.exception)
        return done.return_value or done.exit_code, done.stdout

    return call


@pytest.fixture
def evidence(tmp_path: Path) -> Callable[[list[Any]], Path]:
    """Writes entries, or any bytes in place of one, as an evidence file."""

    def write(entries: list[Any]) -> Path:
        start = {"origin": ORIGIN, "checkpoint": "note", "first_seq": 0, "count": len(entries)}
        lines = [canonical({"lictor": "evidence/1", **start})]
        for seq, entry in enumerate(entries):
            data = entry if isinstance(entry, bytes) else json.dumps({"seq": seq, "timestamp": 1.5 + seq, **entry})
            text = data if isinstance(data, bytes) else data.encode()
            lines.append(b'{"entry":%s,"leaf":"%s"}' % (text, b"A" * 43))
        lines.append(canonical({"end": {"count": len(entries), "checkpoint": "note"}}))
        path = tmp_path / "evidence.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def working_set(tmp_path: Path, run: Run) -> Callable[[list[dict[str, Any]]], Path]:
    """Makes a working set with an agent `default` of e.example and a ledger with these entries; its `lictor.toml`."""

    def make(entries: list[dict[str, Any]]) -> Path:
        place = tmp_path / "set"
        assert run("init", place, "--trust-domain", "e.example", "--json")[0] == 0
        asyncio.run(_fill(place, entries))
        return place / "lictor.toml"

    return make


async def _fill(place: Path, entries: list[dict[str, Any]]) -> None:
    (place / "data").mkdir()
    signer = KeySigner.from_file(place / "trust" / "monitors" / "local" / "evidence.key")
    ledger = Ledger.open(SqliteStore(place / "data" / "ledger.sqlite"), ORIGIN, signer)
    for fields in entries:
        ledger.add(fields)
    await ledger.close()
