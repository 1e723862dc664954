"""The programs of the demo are followed, stopped with all that they started, and stopped even if the demo is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor.cli.demo_processes import Program, Programs, ended_by_signals, free_ports
from lictor.formats.errors import LictorError

PARENT_OF_ANOTHER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
DEMO_THAT_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from lictor.cli.demo_processes import Programs
with Programs(Path(sys.argv[1])) as programs:
    program = programs.start("parent", [sys.executable, "-c", sys.argv[2]], dict(os.environ))
    print(program.process.pid, program.first_line(20), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Start a Python program under a `Programs` that is left when the test ends."""
    programs = Programs(tmp_path)

    def start(script: str) -> Program:
        return programs.start("program", [sys.executable, "-c", script], dict(os.environ))

    with programs:
        yield start


def alive(pid: int) -> bool:
    """Does the process run (a zombie does not)?"""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_until_gone(*pids: int) -> None:
    waiter = "import os, sys, time\nwhile any(os.path.exists(f'/proc/{p}') for p in sys.argv[1:]): time.sleep(0.02)"
    if sys.platform == "linux":
        subprocess.run([sys.executable, "-c", waiter, *map(str, pids)], timeout=20, check=True)
    assert not any(alive(pid) for pid in pids)


def test_lines_come_as_they_are_printed_and_end_with_the_program(start: Callable[[str], Program]) -> None:
    program = start("print('one', flush=True); print('two'); print('no line end', end='')")
    assert list(program.lines(20)) == ["one", "two"]
    assert program.stop() == 0


def test_a_program_that_ends_without_a_line_is_an_error_with_its_last_words(start: Callable[[str], Program]) -> None:
    program = start("import sys; sys.exit('the port is in use')")
    with pytest.raises(LictorError, match=r"program ended with exit code 1(.|\n)*the port is in use"):
        program.first_line(20)


def test_a_program_that_says_nothing_is_an_error_after_the_time_out(start: Callable[[str], Program]) -> None:
    with pytest.raises(LictorError, match=r"did not end within 0.1 s"):
        start("import time; time.sleep(600)").first_line(0.1)


def test_stop_takes_the_children_along(start: Callable[[str], Program]) -> None:
    program = start(PARENT_OF_ANOTHER)
    child = int(program.first_line(20))
    assert program.stop() == -signal.SIGTERM
    wait_until_gone(child)


def test_stop_does_not_ask_for_ever(start: Callable[[str], Program]) -> None:
    deaf = start("import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)")
    deaf.first_line(20)
    assert deaf.stop(timeout_s=0.2) == -signal.SIGKILL


@pytest.mark.parametrize("error", [KeyboardInterrupt, LictorError])
def test_an_error_inside_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), Programs(tmp_path) as programs:  # noqa: PT012 - leaving by an error is the subject
        program = programs.start("parent", [sys.executable, "-c", PARENT_OF_ANOTHER], dict(os.environ))
        child = int(program.first_line(20))
        raise error
    wait_until_gone(program.process.pid, child)


def test_a_demo_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DEMO_THAT_IS_KILLED, str(tmp_path), PARENT_OF_ANOTHER]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    wait_until_gone(*map(int, killed.stdout.split()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_unwind_as_ctrl_c_does(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_a_start_waits_until_the_program_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started: list[int] = []

    class InterruptedPopen(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            if len(started) == 1:
                os.kill(os.getpid(), number)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", InterruptedPopen)
    with pytest.raises(KeyboardInterrupt), ended_by_signals(), Programs(tmp_path) as programs:
        programs.start("program", [sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ))
    wait_until_gone(*started)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(8))) == 8
