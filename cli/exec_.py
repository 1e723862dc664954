"""`lictor exec`: run a program as an agent, with the monitor as its proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from ..certs.authority import read_certificate
from ..certs.contexts import client_context
from ..certs.domain import AgentFiles, TrustDomain
from ..formats.errors import FormatError, UsageError
from ..formats.names import parse_authority
from ..proxy.config import load
from ..proxy.sidecar.client_environment import agent_environment
from ..proxy.sidecar.sidecar import MonitorAddress, Sidecar

NOT_FOUND, NOT_EXECUTABLE = 127, 126
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (an address to connect to, not to bind)


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--agent", required=True, metavar="NAME", help="Which agent it is: see lictor agent list.")
@click.option("-c", "--config", type=click.Path(path_type=Path), metavar="FILE", help="[default: lictor.toml]")
@click.option("--monitor", metavar="HOST:PORT", help="The monitor's egress listener, in place of a configuration.")
@click.option("--trust", type=click.Path(path_type=Path), metavar="DIR", help="With --monitor: the trust directory.")
@click.argument("cmd", nargs=-1, required=True, type=click.UNPROCESSED)
def command(agent: str, config: Path | None, monitor: str | None, trust: Path | None, cmd: tuple[str, ...]) -> int:
    """Run CMD as the agent NAME: its HTTP and HTTPS go through the monitor.

    CMD gets proxy and CA variables for the common clients (docs/clients.md) and sees neither the agent's key nor its
    certificate: a sidecar in this process holds them. Signals are passed on. The exit code is that of CMD, 128 + N if
    signal N ended it, 127 if there is no such command, 126 if it cannot be run.

    Variables lead, they do not lock in: a program that ignores them goes direct.
    """
    domain, address = _where(config, monitor, trust)
    return asyncio.run(_run(_good(domain.agent(agent)), domain, address, cmd))


def _where(config: Path | None, monitor: str | None, trust: Path | None) -> tuple[TrustDomain, MonitorAddress]:
    """The trust domain, and the monitor to expect."""
    if monitor is None:
        if trust is not None:
            raise UsageError("--trust goes with --monitor HOST:PORT; a configuration names its own trust directory")
        settings = load(config or Path("lictor.toml"))
        host, port = settings.listen.egress
        domain = TrustDomain.open(settings.identity.trust)
        return domain, MonitorAddress(_EVERYWHERE.get(host, host), port, domain.name, settings.monitor.name)
    if config is not None:
        raise UsageError("-c and --monitor exclude each other: the configuration names the monitor's address")
    try:
        found, port = parse_authority(monitor, None)
    except FormatError as e:
        raise UsageError(f"--monitor {monitor!r} is not HOST:PORT: {e}") from None
    domain = TrustDomain.open(trust or Path("trust"))
    return domain, MonitorAddress(found, port, domain.name, None)


def _good(files: AgentFiles) -> AgentFiles:
    ends = read_certificate(files.cert).not_valid_after_utc
    if ends < datetime.now(UTC):
        raise UsageError(
            f"the certificate of {files.spiffe_id} expired at {ends:%Y-%m-%d %H:%M}Z: run lictor agent add {files.name}"
        )
    return files


async def _run(agent: AgentFiles, domain: TrustDomain, address: MonitorAddress, cmd: tuple[str, ...]) -> int:
    context = client_context(domain.identity_ca, agent.cert, agent.key)
    with _public_files(domain) as (ca_file, no_certs):
        async with Sidecar(agent.name, address, context, _complain) as sidecar:
            return await _child(cmd, agent_environment(os.environ, sidecar.url, ca_file, no_certs))


@contextlib.contextmanager
def _public_files(domain: TrustDomain) -> Iterator[tuple[Path, Path]]:
    """What CMD may read, apart from the trust directory: the root of intercepted TLS, and an empty directory."""
    with tempfile.TemporaryDirectory(prefix="lictor-exec-") as made:
        ca_file, no_certs = Path(made, "ca.pem"), Path(made, "no-certs")
        ca_file.write_bytes(domain.interception_root.read_bytes())
        no_certs.mkdir()
        yield ca_file, no_certs


def _complain(problem: str) -> None:
    click.echo(f"lictor exec: {problem}", err=True)


async def _child(cmd: tuple[str, ...], environment: dict[str, str]) -> int:
    with _forwarding() as forward_to:
        try:
            process = await asyncio.create_subprocess_exec(*cmd, env=environment)
        except FileNotFoundError:
            _complain(f"there is no command {cmd[0]}")
            return NOT_FOUND
        except OSError as e:
            _complain(f"{cmd[0]} cannot be run: {e.strerror}")
            return NOT_EXECUTABLE
        forward_to(process)
        code = await process.wait()
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _forwarding() -> Iterator[Callable[[asyncio.subprocess.Process], None]]:
    """Pass signals on to the child, those that come before it is there too.

    Of Ctrl-C and Ctrl-\\ the terminal has told it already. What we were told to ignore (nohup), it ignores as well.
    """
    child: list[asyncio.subprocess.Process] = []
    early: list[signal.Signals] = []

    def forward(number: signal.Signals) -> None:
        if number in _FROM_KEYBOARD and _in_foreground():
            return
        if not child:
            early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            child[0].send_signal(number)

    def forward_to(process: asyncio.subprocess.Process) -> None:
        child.append(process)
        for number in early:
            forward(number)

    loop = asyncio.get_running_loop()
    handled = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, forward, number)
    try:
        yield forward_to
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to our process group, which is the child's too."""
    try:
        return os.tcgetpgrp(sys.__stdin__.fileno()) == os.getpgrp() if sys.__stdin__ else False
    except (OSError, ValueError):
        return False
