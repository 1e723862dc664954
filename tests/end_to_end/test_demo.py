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


def test_every_step_does_what_was_expected(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = lictor("demo", "--json", "--dir", str(folder))
    told = json.loads(done.stdout)
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert len(told["checks"]) > 20
    assert (done.returncode, told["ok"], told["folder"]) == (0, True, str(folder))
    assert running(folder) == []


def test_it_ends_with_its_files_and_three_commands_that_work(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = lictor("demo", "--dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    story, _, end = done.stdout.rpartition("\nEverything is in ")
    assert "✗ data_source_access urn:demo:data:payroll: not_in_allowlist" in story, "the DAG shows what was refused"
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
    failed = {check["what"] for check in json.loads(done.stdout)["checks"] if not check["ok"]}
    assert {"calls of delete_everything", "connections to the unapproved data source"} <= failed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    with subprocess.Popen([*LICTOR, "demo", "--json", "--dir", str(folder)], stderr=subprocess.PIPE) as demo:
        try:
            agent_b_is_up = folder / "output" / "agent-b.out"
            while not (agent_b_is_up.exists() and agent_b_is_up.stat().st_size):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"the demo ended with exit code {demo.wait(0.05)}: {demo.communicate()[1].decode()}")
            assert len(running(folder)) >= 6
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
