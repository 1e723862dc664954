"""`lictor log` as a person and as a script call it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import command_line
import pytest
from click.testing import CliRunner
from command_line import Done

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.cli import cli
from lictor.cli.log_view import plain
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats.keys import KeySigner

ORIGIN = "example.test/monitor/one"
TRUST = ("--trust", "trust/identity-ca.pem")
LEDGER = ("--ledger", "ledger.db")


def lictor(cwd: Path, *args: str | Path) -> Done:
    return command_line.lictor("log", *args, cwd=cwd)


def spawned(cwd: Path, *args: str | Path) -> Done:
    return command_line.spawned("log", *args, cwd=cwd)


def answer(cwd: Path, *args: str | Path) -> tuple[int, Any]:
    done = lictor(cwd, *args, "--json")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def entry(agent: str, kind: str, target: str, decision: str) -> dict[str, Any]:
    return {
        "agent_id": f"spiffe://example.test/agent/{agent}",
        "action_type": kind,
        "action_target": target,
        "action_parameters": {},
        "decision": decision,
        "reason": "allowed" if decision == "allow" else "not_in_allowlist",
        "behaviors": [],
        "wid": "w",
        "node": "n",
        "lineage": "root",
    }


def outcome(agent: str, of: int) -> dict[str, Any]:
    made = entry(agent, "http_request", "https://a.test/", "allow")
    for name in ("decision", "reason", "behaviors", "lineage"):
        del made[name]
    return {**made, "outcome_of": of, "outcome": {"status": 200, "duration_ms": 12.25}}


async def write(path: Path, files: Path, entries: list[dict[str, Any]]) -> None:
    signer = KeySigner.from_file(files / "evidence.key")
    ledger = Ledger.open(SqliteStore(path), ORIGIN, signer)
    ledger.put_document("key", signer.kid, evidence_jwk((files / "evidence.pem").read_bytes()))
    for fields in entries:
        ledger.add(fields)
    await ledger.close()


ENTRIES = [
    entry("alpha", "http_request", "https://a.test/", "allow"),
    entry("alpha", "tool_call", "urn:tool#tools/[red]add\x1b[2J", "deny"),
    outcome("alpha", 0),
    entry("beta", "http_request", "https://b.test/", "deny"),
]


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    domain = TrustDomain.create(tmp_path_factory.mktemp("cli") / "trust", "example.test")
    domain.add_monitor("one")
    return domain


@pytest.fixture
def place(tmp_path: Path, trust: TrustDomain) -> Path:
    """A directory with ledger.db and trust."""
    (tmp_path / "trust").symlink_to(trust.path)
    asyncio.run(write(tmp_path / "ledger.db", trust.path / "monitors" / "one", ENTRIES))
    return tmp_path


def test_show_is_a_table_that_nobody_else_can_paint(place: Path) -> None:
    done = spawned(place, "show", *LEDGER)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1][2:] == ["alpha", "deny", "not_in_allowlist", "tool_call", "urn:tool#tools/[red]add\\x1b[2J"]
    assert "0: 200, 12 ms" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 1, 2, 3]),
        (["--last", "2"], [2, 3]),
        (["--agent", "beta"], [3]),
        (["--agent", "spiffe://example.test/agent/alpha"], [0, 1, 2]),
        (["--agent", "eta"], []),
        (["--type", "tool_call"], [1]),
        (["--decision", "deny"], [1, 3]),
        (["--decision", "deny", "--last", "1"], [3]),
        (["--decision", "deny", "--agent", "alpha"], [1]),
    ],
)
def test_show_filters(place: Path, options: list[str], expected: list[int]) -> None:
    result = CliRunner().invoke(cli, ["log", "show", "--ledger", str(place / "ledger.db"), *options, "--json"])
    assert (result.exit_code, [found["seq"] for found in json.loads(result.output)]) == (0, expected)


def test_show_reads_a_long_log_from_its_end(tmp_path: Path, trust: TrustDomain) -> None:
    entries = [entry("beta" if i in (3, 1999) else "alpha", "tool_call", f"urn:t:{i}", "allow") for i in range(2500)]
    asyncio.run(write(tmp_path / "ledger.db", trust.path / "monitors" / "one", entries))
    assert [found["seq"] for found in answer(tmp_path, "show", *LEDGER)[1]] == list(range(2450, 2500))
    assert [found["seq"] for found in answer(tmp_path, "show", *LEDGER, "--agent", "beta")[1]] == [3, 1999]


def test_nothing_to_show(place: Path) -> None:
    done = lictor(place, "show", *LEDGER, "--agent", "gamma")
    assert (done.returncode, done.stdout) == (0, "no entry matches\n")


async def test_tail_follows_the_running_monitor(place: Path, trust: TrustDomain) -> None:
    command = [sys.executable, "-m", "lictor", "log", "tail", *LEDGER, "--agent", "alpha", "--json"]
    process = await asyncio.create_subprocess_exec(*command, cwd=place, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert [json.loads(await process.stdout.readline())["seq"] for _ in range(3)] == [0, 1, 2]
    signer = KeySigner.from_file(trust.path / "monitors" / "one" / "evidence.key")
    ledger = Ledger.open(SqliteStore(place / "ledger.db"), ORIGIN, signer)
    for agent in ("beta", "alpha"):
        ledger.add(entry(agent, "http_request", "https://new.test/", "allow"))
        await ledger.commit()
    assert json.loads(await process.stdout.readline())["seq"] == 5
    process.send_signal(signal.SIGINT)
    assert (await process.stdout.read(), await process.wait()) == (b"", 0)
    await ledger.close()


def test_export_then_verify(place: Path) -> None:
    code, result = answer(place, "export", "out.jsonl", *LEDGER)
    assert (code, result) == (0, {"ok": True, "file": "out.jsonl", "origin": ORIGIN, "entries": 4})
    code, result = answer(place, "verify", "out.jsonl", *TRUST)
    assert (code, result["ok"], result["verdict"], result["entries"]) == (0, True, "intact", 4)
    done = spawned(place, "verify", "out.jsonl", *TRUST)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("intact  out.jsonl\n")
    assert "4 of 4 read and in order; a signed root covers 4" in done.stdout


def test_verify_the_ledger_itself(place: Path) -> None:
    for named in (LEDGER, ("ledger.db",)):
        code, result = answer(place, "verify", *named, *TRUST)
        assert (code, result["verdict"]) == (0, "intact")


@pytest.mark.parametrize(
    ("spoil", "code", "verdict", "problem"),
    [
        (lambda lines: lines[:-2], 3, "prefix_only", "without its end line: expected 4 entries"),
        (lambda lines: lines[:3] + lines[4:], 3, "gap", "entry 1 is missing: expected seq 1, found seq 2 (at seq 1)"),
        (lambda lines: [line.replace(b"b.test", b"c.test") for line in lines], 1, "bad", "(at seq 3)"),
    ],
)
def test_verify_says_what_does_not_hold(place: Path, spoil: Any, code: int, verdict: str, problem: str) -> None:
    lictor(place, "export", "out.jsonl", *LEDGER)
    lines = (place / "out.jsonl").read_bytes().splitlines(keepends=True)
    (place / "out.jsonl").write_bytes(b"".join(spoil(lines)))
    done = lictor(place, "verify", "out.jsonl", *TRUST)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(verdict.replace("_", " "))
    assert problem in " ".join(done.stdout.split())
    assert answer(place, "verify", "out.jsonl", *TRUST)[1]["verdict"] == verdict


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["show"], "there is no lictor.toml: run `lictor init DIR`"),
        (["show", "--ledger", "none.db"], "there is no ledger at none.db"),
        (["show", *LEDGER, "--last", "0"], "Invalid value for '--last'"),
        (["show", *LEDGER, "--decision", "maybe"], "Invalid value for '--decision'"),
        (["verify", "none.jsonl", *TRUST], "none.jsonl cannot be read: No such file"),
        (["verify", *LEDGER], "name the identity CA's certificate with --trust CA.PEM (there is no lictor.toml)"),
        (["verify", *LEDGER, "--trust", "none.pem"], "the CA certificate none.pem cannot be read"),
        (["verify", *LEDGER, "--trust", "ledger.db"], "ledger.db: the identity CA's certificate cannot be used"),
        (["export", "none/out.jsonl", *LEDGER], "none/out.jsonl cannot be written"),
        (["export", *LEDGER], "Missing argument 'OUT'"),
    ],
)
def test_wrong_use_exits_with_2_and_names_the_mend(place: Path, args: list[str], message: str) -> None:
    done = lictor(place, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_script_sees_wrong_use_and_can_export(place: Path) -> None:
    wrong = spawned(place, "export", *LEDGER)
    assert (wrong.returncode, wrong.stdout, "Missing argument 'OUT'" in wrong.stderr) == (2, "", True)
    right = spawned(place, "export", "out.jsonl", *LEDGER)
    assert (right.returncode, right.stderr) == (0, "")


def test_reading_changes_nothing(place: Path) -> None:
    reader = SqliteReader(place / "ledger.db")
    before = (reader.head(), list(reader.entries()))
    lictor(place, "show", *LEDGER)
    lictor(place, "verify", *LEDGER, *TRUST)
    assert (reader.head(), list(reader.entries())) == before
    reader.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ü 漢", "plain ü 漢"), ("\x1b[31m", "\\x1b[31m"), ("a\nb", "a\\nb"), ("\u202eabc", "\\u202eabc")],
)
def test_nothing_an_agent_wrote_steers_the_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown
