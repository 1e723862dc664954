"""`lictor log erase`: retention by hand, on a running monitor."""

from __future__ import annotations

from pathlib import Path

import click

from ..formats.errors import UsageError
from ..proxy.orders.operator import ask
from .bet import Moment
from .log_options import find_ledger, ledger_option
from .output import console, json_option, print_json


@click.command("erase")
@click.option("--before", required=True, metavar="TIME", type=Moment(), help="Erase what is older than this.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@ledger_option
@json_option
def erase(before: float, yes: bool, config: Path, ledger: Path | None, as_json: bool) -> None:
    """Erase entries older than TIME for good, and say so in the log. The monitor must be running.

    Their leaf hashes stay, so that everything that remains can be verified. Entries of windows that are still open stay
    too. `evidence.retention_days` does this once a day.
    """
    path = find_ledger(config, ledger)
    if not yes and not click.confirm(f"Erase entries of {path} for good?", err=True):
        raise UsageError("nothing was erased")
    done = ask(path, "erase", before=before)
    if as_json:
        print_json({"ok": True, **done})
        return
    if not done["erased_now"]:
        console.print(f"nothing to erase; the first {done['end']} entries are erased")
        return
    console.print(f"erased {done['erased_now']} entries, all before entry {done['end']}")
    console.print(f"entry {done['announced_at']} says so")
    if not done["scrubbed"]:
        console.print("a reader of the ledger holds old copies; they go when it ends")
