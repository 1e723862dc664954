"""`lictor exec` as a shell runs it: exit codes, signals, what the program sees."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lictor.certs.domain import TrustDomain
from lictor.cli.exec_ import _forwarding

LICTOR = (sys.executable, "-m", "lictor")
NOWHERE = ("--monitor", "127.0.0.1:1")
DUMP = "import json, os; print(json.dumps(dict(os.environ)))"
READY_THEN_CODE = """
import signal, sys
signal.signal(signal.{name}, lambda *_: sys.exit(9))
print("ready", flush=True)
signal.pause()
"""
COUNT_SIGINT = """
import signal, time
hits = []
signal.signal(signal.SIGINT, lambda *_: hits.append(1))
print("ready", flush=True)
end = time.monotonic() + 30
while not hits and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.5)
print(f"hits={len(hits)}", flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with trust/ and the agent alice."""
    made = tmp_path_factory.mktemp("exec")
    TrustDomain.create(made / "trust", "acme.example").add_agent("alice")
    return made


def lictor(place: Path, *cmd: str, agent: str = "alice", options: tuple[str, ...] = NOWHERE):
    command = [*LICTOR, "exec", "--agent", agent, *options, *cmd]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_exit_code_is_the_commands(place: Path, script: str, code: int) -> None:
    assert lictor(place, "--", "sh", "-c", script).returncode == code


def test_no_such_command_127(place: Path) -> None:
    done = lictor(place, "--", "no-such-command")
    assert (done.returncode, done.stderr) == (127, "lictor exec: there is no command no-such-command\n")


def test_a_file_that_cannot_be_run_126(place: Path) -> None:
    (place / "data.txt").write_text("text")
    done = lictor(place, "--", str(place / "data.txt"))
    assert done.returncode == 126
    assert "cannot be run: Permission denied" in done.stderr


def test_options_after_the_command_are_its_own(place: Path) -> None:
    assert lictor(place, "echo", "--agent", "-c", "--help").stdout == "--agent -c --help\n"
    assert lictor(place, "--", "echo", "--", "-x").stdout == "-- -x\n"


def test_input_and_output_are_the_commands_own(place: Path) -> None:
    command = [*LICTOR, "exec", "--agent", "alice", *NOWHERE, "--", "cat"]
    done = subprocess.run(command, cwd=place, input=b"\x00in\xff", capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"\x00in\xff", b"")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_signals_are_passed_on(place: Path, name: str) -> None:
    code = READY_THEN_CODE.format(name=name)
    command = [*LICTOR, "exec", "--agent", "alice", *NOWHERE, "--", sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, name))
        assert process.wait(20) == 9


def test_what_the_command_sees(place: Path) -> None:
    """The way to the monitor and the root of intercepted TLS; no key, no certificate, no path to them."""
    script = (
        DUMP
        + "; p = os.environ['SSL_CERT_FILE']; print(json.dumps([open(p).read(), os.stat(os.path.dirname(p)).st_mode]))"
    )
    done = lictor(place, "--", sys.executable, "-c", script)
    environment, (ca, mode) = map(json.loads, done.stdout.splitlines())
    assert environment["HTTPS_PROXY"].startswith("http://lictor:")
    assert ca == (place / "trust" / "interception-root.pem").read_text()
    assert stat.S_IMODE(mode) == 0o700
    assert not [name for name, value in environment.items() if str(place / "trust") in value and name != "PWD"]
    assert not os.path.exists(environment["SSL_CERT_FILE"]), "gone with the run"


def test_without_a_monitor_the_program_is_told_and_so_is_the_person(place: Path) -> None:
    done = lictor(place, "--", "curl", "-sS", "-i", "http://api.example/")
    assert done.stdout.startswith("HTTP/1.1 502 lictor exec: monitor unreachable")
    assert "Start it with lictor up" in done.stderr


@pytest.mark.parametrize(
    ("agent", "options", "reason"),
    [
        ("bob", NOWHERE, "there is no agent bob in trust (there: alice): run lictor agent add bob"),
        ("a/b", NOWHERE, "'a/b' is not a name"),
        ("alice", (*NOWHERE, "-c", "lictor.toml"), "-c and --monitor exclude each other"),
        ("alice", ("--trust", "trust"), "--trust goes with --monitor"),
        ("alice", ("--monitor", "host"), "'host' is not HOST:PORT"),
        ("alice", ("--monitor", "127.0.0.1:1", "--trust", "none"), "none is not a trust domain"),
        ("alice", (), "there is no lictor.toml"),
        ("alice", ("-c", "none.toml"), "there is no none.toml"),
    ],
)
def test_wrong_use_runs_nothing(place: Path, agent: str, options: tuple[str, ...], reason: str) -> None:
    done = lictor(place, "--", "echo", "ran", agent=agent, options=options)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_an_expired_certificate_is_named_before_anything_runs(tmp_path: Path) -> None:
    TrustDomain.create(tmp_path / "trust", "acme.example").add_agent("alice", days=1e-9)
    done = lictor(tmp_path, "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run lictor agent add alice" in done.stderr


async def test_a_signal_before_the_program_is_there_is_passed_on_too() -> None:
    sent: list[int] = []
    handled = asyncio.Event()
    with _forwarding() as forward_to:
        os.kill(os.getpid(), signal.SIGUSR1)
        asyncio.get_running_loop().call_later(0.1, handled.set)
        await handled.wait()
        forward_to(SimpleNamespace(send_signal=sent.append))  # type: ignore[arg-type]
    assert sent == [signal.SIGUSR1]


def test_what_was_to_be_ignored_is(place: Path) -> None:
    """As under nohup: SIGHUP does nothing to either process."""
    code = "import os, signal; os.kill(os.getppid(), signal.SIGHUP); print(signal.getsignal(signal.SIGHUP).name)"
    ignore = "import os, signal, sys; signal.signal(1, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    ignoring = [sys.executable, "-c", ignore]
    command = [*ignoring, *LICTOR, "exec", "--agent", "alice", *NOWHERE, "--", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "SIG_IGN\n")


def test_ctrl_c_reaches_the_program_once(place: Path) -> None:
    """The terminal tells both processes; passing it on as well would interrupt the program twice."""
    outer, inner = os.openpty()
    on_terminal = [sys.executable, "-c", "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"]
    command = [*on_terminal, *LICTOR, "exec", "--agent", "alice", *NOWHERE, "--", sys.executable, "-c", COUNT_SIGINT]
    with subprocess.Popen(command, cwd=place, stdin=inner) as process, os.fdopen(outer, "r+b", buffering=0) as screen:
        os.close(inner)
        shown = b""
        while b"ready" not in shown:
            shown += screen.read(1024)
        screen.write(b"\x03")
        while b"hits=" not in shown:
            shown += screen.read(1024)
        assert process.wait(20) == 0
    assert b"hits=1" in shown
