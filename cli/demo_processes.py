"""The programs that the demo runs: started, followed through their output files, and always stopped.

Each program leads a session of its own, so that it can be stopped with everything it started. Should the demo itself be
killed, a small shell that waits for the end of a pipe stops the programs in its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..formats.errors import LictorError

_POLL_S = 0.02
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A program tells its process group before it becomes what it is to be, so that the demo's death cannot come in between.
_ANNOUNCED = 'echo "$$" >&0; exec "$@" </dev/null'
_REAPER = """
groups=
while read -r line; do
    if [ "$line" = done ]; then exit 0; fi
    groups="$groups -$line"
done
if [ -n "$groups" ]; then
    kill -s TERM -- $groups
    sleep 2
    kill -s KILL -- $groups
fi 2>/dev/null
"""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(s.getsockname()[1]) for s in sockets]


@dataclass(frozen=True, slots=True)
class Program:
    """One running program. `out` and `err` are the files of its standard output and standard error."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def lines(self, timeout_s: float) -> Iterator[str]:
        """The lines that the program prints, until it ends. Raises LictorError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self.out.open(encoding="utf-8") as file:
            text = ""
            while True:
                ended = self.process.poll() is not None
                text += file.read()
                *complete, text = text.split("\n")
                yield from complete
                if ended:
                    return
                if time.monotonic() > deadline:
                    raise LictorError(f"{self.name} did not end within {timeout_s:g} s{self._last_words()}")
                time.sleep(_POLL_S)

    def first_line(self, timeout_s: float) -> str:
        """The first line that the program prints. Raises LictorError if it ends or takes longer."""
        for line in self.lines(timeout_s):
            return line
        raise LictorError(f"{self.name} ended with exit code {self.process.returncode}{self._last_words()}")

    def stop(self, timeout_s: float = 10) -> int:
        """Ask the program to end, kill what is left of its session, return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def _last_words(self) -> str:
        words = self.err.read_text("utf-8", "replace").strip().splitlines()[-5:]
        return "\n".join([f"; the end of {self.err}:", *words]) if words else ""


class Programs:
    """The programs that run; leaving the context stops them, the youngest first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Program] = []
        self._reaper = subprocess.Popen(
            ["/bin/sh", "-c", _REAPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Program:
        """Start a program in a session of its own, with its output in `<logs>/<name>.out` and `.err`."""
        out, err = self._logs / f"{name}.out", self._logs / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr, _held_back():
            process = subprocess.Popen(
                ["/bin/sh", "-c", _ANNOUNCED, "sh", *command],
                env=environment,
                stdin=self._reaper.stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            program = Program(name, process, out, err)
            self._running.append(program)
        return program

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _signals(signal.SIG_IGN, *_ENDING):
            for program in reversed(self._running):
                program.stop(timeout_s=3)
            self._reaper.communicate(b"done\n")


@contextlib.contextmanager
def _signals(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    """Handle these signals with `handler` for a while."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Let signals that end the demo wait, so that nothing is started without being remembered."""
    came: list[int] = []
    with _signals(lambda number, frame: came.append(number), *_ENDING):
        yield
    for number in came:
        signal.raise_signal(number)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that contexts are left in order."""
    with _signals(_interrupt, signal.SIGTERM, signal.SIGHUP):
        yield
