"""`lictor binding replay`: a log judged by other bindings than those that were in force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..bindings.replaying import Change, Replay
from ..formats.errors import UsageError
from ..proxy.config import load
from ..proxy.state import Book
from .binding_files import load_unsigned
from .binding_log import Log, open_log
from .log_view import plain
from .output import console, errors, json_option, print_json

MAX_LISTED = 10_000
_FILE = click.Path(path_type=Path)
_WHY = {
    "parameters_not_kept": "a behavior looks at parameters, of which the log holds digests only",
    "batch": "denied because of another member of their batch",
    "connect": "denied at CONNECT, and no catalog (-c) says where that led",
    "refused_by_the_monitor": "refused by the monitor itself, whatever the bindings",
    "malformed": "not entries as a monitor writes them",
}


@click.command()
@click.argument("path", metavar="FILE|DIR", type=_FILE)
@click.option("--against", metavar="EVIDENCE.JSONL", type=_FILE, help="An evidence file; without it, the ledger of -c.")
@click.option("-c", "--config", type=_FILE, help="Configuration: its catalog, and its ledger.  [default: lictor.toml]")
@click.option("--agent", metavar="NAME|ID", help="Only this agent's actions.")
@json_option
@click.pass_context
def replay(
    ctx: click.Context, path: Path, against: Path | None, config: Path | None, agent: str | None, as_json: bool
) -> None:
    """Judge the actions of a log by the bindings FILE, or all of DIR, and list what would be decided otherwise.

    Exit 1 if anything changes. The bindings need not be signed.
    """
    bindings = load_unsigned(path)
    settings = Path("lictor.toml") if config is None else config
    catalog = load(settings).catalog() if config is not None or against is None else None
    replayed = Replay(bindings, Book(bindings), catalog, agent)
    listed: list[dict[str, Any]] = []
    with open_log(against, settings, "judging") as log:
        for change in _changes(replayed, log):
            if as_json and len(listed) < MAX_LISTED:
                listed.append(asdict(change))
            elif not as_json:
                _show(change)
    if agent is not None and not replayed.judged and not replayed.not_judged:
        raise UsageError(f"{log.origin} has no action of {agent}")
    if as_json:
        print_json({**_result(replayed, log), "changes": listed})
    else:
        _print_summary(replayed, log)
    ctx.exit(1 if replayed.changed else 0)


def _changes(replayed: Replay, log: Log) -> Iterator[Change]:
    first: int | None = None
    for seq, entry in log.entries:
        if first is None:
            first = seq
            if seq > 0:
                text = f"the log begins at entry {seq}: behaviors with a memory know nothing of what was before"
                errors.print(Text(text))
        change = replayed.take(entry, seq)
        if change is not None:
            yield change


def _result(replayed: Replay, log: Log) -> dict[str, Any]:
    return {
        "ok": not replayed.changed,
        "log": log.origin,
        "entries": log.count,
        "judged": replayed.judged,
        "changed": dict(replayed.changed),
        "not_judged": dict(replayed.not_judged),
    }


def _show(change: Change) -> None:
    colour = {"deny": "red", "allow": "green"}.get(change.after, "yellow")
    what = f"{change.action_type} {change.action_target}  {change.agent_id}"
    why = f"({change.reason_before} → {change.reason_after})"
    text = plain(f"{change.seq:>8}  {change.before} → {change.after}  {what}  {why}")
    # There may be very many, and to lay text out takes ten times as long as to judge.
    console.file.write((click.style(text, colour) if console.is_terminal else text) + "\n")


def _print_summary(replayed: Replay, log: Log) -> None:
    changed = ", ".join(f"{count} from {how}" for how, count in sorted(replayed.changed.items())) or "nothing"
    console.print(Text(f"{replayed.judged} actions of {log.origin} judged; changed: {changed}"))
    for why, count in sorted(replayed.not_judged.items()):
        console.print(Text(f"{count} cannot be judged: {_WHY[why]}"))
