"""`lictor up`: run the monitor."""

from __future__ import annotations

from pathlib import Path

import click

from ..formats.plain import log_to_stderr
from ..proxy import loop
from ..proxy.config import load
from ..proxy.control import ControlProcess
from ..proxy.federated import check_bundles


@click.command("up")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=Path("lictor.toml"),
    show_default=True,
    help="The monitor.",
)
def command(config: Path) -> None:
    """Run the monitor of ./lictor.toml until Ctrl-C or SIGTERM.

    One control process keeps the log and the evidence key; worker processes carry the traffic. Agents reach it through
    `lictor exec`, or directly as an HTTPS proxy with their client certificate.
    """
    log_to_stderr("lictor: %(message)s")
    settings = load(config)
    check_bundles(settings)
    control = ControlProcess(settings, lambda text: click.echo(f"lictor: {text}"))
    loop.run(control.run())
    click.echo("lictor: stopped; every window is closed and on disk")
