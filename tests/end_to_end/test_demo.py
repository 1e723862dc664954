"""`lictor demo` does all that it tells, fails when anything does not hold, and leaves no process behind."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LICTOR = [sys.executable, "-m", "lictor"]
PERMISSIVE = """
import lictor.cli
from lictor.cli import demo_world

strict = demo_world._allow
demo_world._allow = lambda name, text, action, values: strict(name, text, action, [*values, "urn:demo:*"])
demo_world.EVIDENCE_ASKED = {"max_depth": 9}
lictor.cli.main()
"""


def lictor(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LICTOR, *arguments], capture_output=True, text=True, timeout=100, cwd=folder, check=False)


def running(folder: Path) -> list[str]:
    """The processes that have a file of this demo in their arguments."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


def wait_until_none_runs(folder: Path, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while (left := running(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_every_step_does_what_was_expected_and_it_ends_with_three_commands_that_work(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = lictor("demo", "--dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert running(folder) == []
    assert "27 of 27 checks as expected. Everything held." in done.stdout
    story, _, end = done.stdout.rpartition("\nEverything is in ")
    assert "✗ data_source_access urn:demo:data:payroll: not_in_allowlist" in story, "the DAG shows what was refused"
    assert "✗ delegation urn:demo:agent:c: answered 403" in story
    _, _, last = story.partition("$ lictor chain verify a.jsonl b.jsonl c.jsonl --trust identity-ca.pem\n")
    assert [line.split()[0] for line in last.splitlines()[:3]] == ["intact"] * 3
    assert "1 delegation not taken by the callee" in last
    assert "✓ exit code of lictor chain verify: 0" in last
    assert end.startswith(str(folder))
    commands = [shlex.split(line) for line in end.splitlines() if line.startswith("    lictor ")]
    assert len(commands) == 3
    for command in commands:
        tried = lictor(*command[1:], folder=tmp_path)
        assert tried.returncode == 0, (command, tried.stdout, tried.stderr)


def test_it_fails_when_the_monitors_let_through_what_they_must_refuse(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PERMISSIVE, "demo", "--json", "--dir", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["ok"], told["folder"], len(told["checks"])) == (False, str(tmp_path / "demo"), 27)
    failed = {check["what"] for check in told["checks"] if not check["ok"]}
    assert {"calls of delete_everything", "connections to the unapproved data source"} <= failed
    assert {"calls of count_words (agent C's)", "refused by monitor c"} <= failed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    with subprocess.Popen([*LICTOR, "demo", "--json", "--dir", str(folder)], stderr=subprocess.PIPE) as demo:
        try:
            agent_b_is_up = folder / "output" / "agent-b.out"
            while not (agent_b_is_up.exists() and agent_b_is_up.stat().st_size):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"the demo ended with exit code {demo.wait(0.05)}: {demo.communicate()[1].decode()}")
            assert len(running(folder)) >= 9
            demo.send_signal(number)
            code = demo.wait(30)
        finally:
            demo.kill()
    assert code == (-number if number == signal.SIGKILL else 130)
    wait_until_none_runs(folder)


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    done = lictor("demo", "--dir", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path} is not an empty folder: name another one with --dir" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
