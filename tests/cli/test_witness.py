"""`lictor witness`: its key, and what it refuses to start with."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from lictor.cli import cli
from lictor.formats.cosignature import Witness
from lictor.formats.errors import UsageError


def run(*args: str | Path) -> str:
    done = CliRunner().invoke(cli, ["witness", *map(str, args)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = tmp_path / "key"
    first = run("key", "--name", "w.example/one", "--key", key).strip()
    assert Witness.parse(first).name == "w.example/one"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert json.loads(run("key", "--name", "w.example/one", "--key", key, "--json")) == {"ok": True, "key": first}


def test_a_name_that_no_signature_line_can_carry(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a key"):
        run("key", "--name", "a b", "--key", tmp_path / "key")


LOG = "log.example+a87d7b7d+AYqI49e0xKr23gKNJkUbZ3tRVjDyjJDZKDe3ElyC8TZP"


@pytest.mark.parametrize(
    ("listen", "keys", "more", "text"),
    [
        ("0.0.0.0:1", None, (), "without --cert only a loopback address"),
        ("example.com:1", None, (), "without --cert only a loopback address"),
        ("127.0.0.1", None, (), "must be HOST:PORT"),
        ("127.0.0.1:0", None, (), "must be HOST:PORT"),
        ("127.0.0.1:1", None, ("--cert", "c.pem"), "go together"),
        ("127.0.0.1:1", "# none\n", (), "names no key of any log"),
        ("127.0.0.1:1", "log.example+00000000+AQ==\n", (), "line 1"),
    ],
)
def test_what_it_does_not_start_with(
    tmp_path: Path, listen: str, keys: str | None, more: tuple[str, ...], text: str
) -> None:
    key, logs = tmp_path / "key", tmp_path / "logs"
    run("key", "--name", "w.example", "--key", key)
    logs.write_text(keys if keys is not None else f"{LOG}\n")
    start = ["--name", "w.example", "--key", key, "--log", logs, "--state", tmp_path / "s.db", "--listen", listen]
    with pytest.raises(UsageError, match=text):
        run("up", *start, *more)


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    run("key", "--name", "w.example", "--key", key)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        run("key", "--name", "w.example", "--key", key)
