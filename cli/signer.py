"""`lictor signer`: a process that holds an evidence key and signs for a monitor, which never sees it."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import click

from ..certs.signing_agent import SigningAgent
from ..formats.keys import KeySigner
from ..formats.plain import log_to_stderr
from .output import console

_FILE = click.Path(path_type=Path)


@click.group("signer")
def command() -> None:
    """A signing key in a process of its own: up."""


@command.command("up")
@click.option("--key", type=_FILE, required=True, help="The private key (PEM, mode 0600).")
@click.option("--socket", "path", type=_FILE, required=True, help="Where to listen; the monitor's evidence.signer.")
@click.option("--user", "users", type=int, multiple=True, metavar="UID", help="Who may ask; without it, this user.")
@click.option("--rate", type=click.FloatRange(min=1), default=5000.0, show_default=True, help="Signatures a second.")
def up(key: Path, path: Path, users: tuple[int, ...], rate: float) -> None:
    """Sign for the monitor whose configuration says `evidence.signer = "unix:SOCKET"`. Stop with Ctrl-C or SIGTERM.

    For another user than this one open the socket's folder and the socket to it (chmod, setfacl).
    """
    log_to_stderr("%(asctime)s %(levelname)s %(message)s", logging.INFO)
    agent = SigningAgent(KeySigner.from_file(key), path, users or (os.geteuid(),), rate)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.close())
    console.print(f"signs at {path}", markup=False)
    agent.serve()
