"""`lictor agent quarantine` and `release`: orders to a running monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..formats.errors import UsageError
from .log_view import plain
from .ordering import Orders, ordering, why_option
from .output import console, json_option, print_json


@click.command("quarantine")
@click.argument("name")
@why_option
@ordering
@json_option
def quarantine(name: str, why: str, orders: Orders, as_json: bool) -> None:
    """Put the agent NAME (or SPIFFE ID) in quarantine: the running monitor denies everything that it does.

    What is open ends within a second. It lasts, over restarts too, until `lictor agent release`.
    """
    done = orders.give("quarantine", agent=orders.agent_id(name), why=why)
    if as_json:
        print_json({"ok": True, **done})
        return
    console.print(Text(plain(f"{done['agent']} is in quarantine since entry {done['entry']}: {done['why']}")))


@click.command("release")
@click.argument("name")
@why_option
@ordering
@json_option
def release(name: str, why: str, orders: Orders, as_json: bool) -> None:
    """Let the agent NAME (or SPIFFE ID) out of quarantine."""
    done = orders.give("release", agent=orders.agent_id(name), why=why)
    if as_json:
        print_json({"ok": True, **done})
        return
    console.print(Text(plain(f"{done['agent']} is released")))


def quarantined(config: Path) -> dict[str, dict[str, Any]] | None:
    """Who is in quarantine, by SPIFFE ID; None if no monitor of this configuration runs."""
    if not config.is_file():
        return None
    try:
        orders = Orders(config, None, "", None, None, Path("trust"))
        return {said["agent"]: said for said in orders.ask("quarantined")}
    except UsageError:
        return None
