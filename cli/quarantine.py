"""`lictor agent quarantine` and `release`: orders to a running monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..formats.errors import UsageError
from ..proxy.config import Config, load
from ..proxy.operator import ask
from .log_view import plain
from .output import console, json_option, print_json

config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=Path("lictor.toml"),
    show_default=True,
    help="The configuration of the monitor that is meant.",
)
_why = click.option("--why", metavar="TEXT", default="", help="Is written into the log.")


def agent_id(config: Config, name: str) -> str:
    """The SPIFFE ID of an agent given by name or by ID."""
    return name if "://" in name else f"spiffe://{config.monitor.trust_domain}/agent/{name}"


@click.command("quarantine")
@click.argument("name")
@_why
@config_option
@json_option
def quarantine(name: str, why: str, config: Path, as_json: bool) -> None:
    """Put the agent NAME (or SPIFFE ID) in quarantine: the running monitor denies everything that it does.

    What is open ends within a second. It lasts, over restarts too, until `lictor agent release`.
    """
    settings = load(config)
    done = ask(settings.ledger.path, "quarantine", agent=agent_id(settings, name), why=why)
    if as_json:
        print_json({"ok": True, **done})
        return
    console.print(Text(plain(f"{done['agent']} is in quarantine since entry {done['entry']}: {done['why']}")))


@click.command("release")
@click.argument("name")
@_why
@config_option
@json_option
def release(name: str, why: str, config: Path, as_json: bool) -> None:
    """Let the agent NAME (or SPIFFE ID) out of quarantine."""
    settings = load(config)
    done = ask(settings.ledger.path, "release", agent=agent_id(settings, name), why=why)
    if as_json:
        print_json({"ok": True, **done})
        return
    console.print(Text(plain(f"{done['agent']} is released")))


def quarantined(config: Path) -> dict[str, dict[str, Any]] | None:
    """Who is in quarantine, by SPIFFE ID; None if no monitor of this configuration runs."""
    if not config.is_file():
        return None
    try:
        return {said["agent"]: said for said in ask(load(config).ledger.path, "quarantined")}
    except UsageError:
        return None
