"""`lictor log`: the action log of a monitor. It is read beside the running monitor and never changed."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table
from rich.text import Text

from ..evidence.export import write_export
from ..evidence.sqlite_store import SqliteReader
from ..verifier.log import verify_log
from ..verifier.report import LogReport
from . import log_compare, log_disclose, log_erase, log_prove
from .log_options import find_ledger, ledger_option, policy_options, read_policy
from .log_view import entry_table, entry_text, report_table
from .output import console, errors, json_option, print_json, progress_bar
from .remote import UNREACHABLE, Auditor, auditor_options, sources
from .trusted import bundle_option, find_trust

_FILE = click.Path(path_type=Path)
_BLOCK = 1000
POLL = 0.3
"""Seconds between two looks at the ledger of `tail`."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries to show; None shows all. `agent` is a SPIFFE ID or the last part of one."""

    agent: str | None
    type: str | None
    decision: str | None

    def __call__(self, entry: dict[str, Any]) -> bool:
        agent = entry["agent_id"]
        return (
            (self.agent is None or agent == self.agent or agent.endswith(f"/{self.agent}"))
            and (self.type is None or entry["action_type"] == self.type)
            and (self.decision is None or entry.get("decision") == self.decision)
        )


def filter_options[F: Callable[..., Any]](command: F) -> F:
    """What `show` and `tail` can be narrowed to."""
    command = click.option("--decision", type=click.Choice(["allow", "flag", "hold", "deny"]))(command)
    command = click.option("--type", "kind", metavar="TYPE", help="An action type, such as http_request.")(command)
    return click.option("--agent", metavar="NAME|ID", help="An agent's name or SPIFFE ID.")(command)


@click.group()
def command() -> None:
    """The action log: show, tail, verify, export, and proofs of what is in it."""


for _proof in (log_prove.prove, log_prove.check, log_prove.key, log_disclose.make, log_disclose.check, log_erase.erase):
    command.add_command(_proof)
command.add_command(log_compare.compare_logs)


@command.command()
@ledger_option
@filter_options
@click.option("--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many entries at most.")
@json_option
def show(
    config: Path,
    ledger: Path | None,
    agent: str | None,
    kind: str | None,
    decision: str | None,
    last: int,
    as_json: bool,
) -> None:
    """Show the last entries of the log that match."""
    with closing(SqliteReader(find_ledger(config, ledger))) as reader:
        entries = last_entries(reader, Filter(agent, kind, decision), last)
    if as_json:
        print_json(entries)
    else:
        console.print(entry_table(entries) if entries else "no entry matches")


def last_entries(reader: SqliteReader, wanted: Filter, count: int) -> list[dict[str, Any]]:
    """The last `count` entries that are wanted, oldest first, read from the end."""
    head = reader.head()
    found: deque[dict[str, Any]] = deque()
    for end in range(head.size if head else 0, 0, -_BLOCK):
        block = [orjson.loads(data) for _, data in reader.entries(max(end - _BLOCK, 0), end)]
        for entry in reversed(block):
            if wanted(entry):
                found.appendleft(entry)
                if len(found) == count:
                    return list(found)
    return list(found)


@command.command()
@ledger_option
@filter_options
@json_option
def tail(
    config: Path, ledger: Path | None, agent: str | None, kind: str | None, decision: str | None, as_json: bool
) -> None:
    """Show the last ten entries, then each new one as it is recorded; with --json one a line. Stop with Ctrl-C."""
    try:
        with closing(SqliteReader(find_ledger(config, ledger))) as reader:
            for entry in follow(reader, Filter(agent, kind, decision)):
                if as_json:
                    click.echo(orjson.dumps(entry))
                else:
                    console.print(entry_text(entry))
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Whoever read has enough; without this the interpreter complains again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def follow(reader: SqliteReader, wanted: Filter) -> Iterator[dict[str, Any]]:
    """The last ten entries that are wanted, then every new one, for ever."""
    head = reader.head()
    size = head.size if head else 0
    yield from last_entries(reader, wanted, 10)
    while True:
        for seq, data in reader.entries(size):
            size = seq + 1
            entry = orjson.loads(data)
            if wanted(entry):
                yield entry
        time.sleep(POLL)


@command.command()
@click.argument("named", metavar="[FILE|LEDGER|URL]", required=False)
@ledger_option
@click.option(
    "--trust", metavar="CA.PEM", type=_FILE, help="The identity CA's certificate, the root of all trust here."
)
@bundle_option
@policy_options
@auditor_options
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    named: str | None,
    config: Path,
    ledger: Path | None,
    trust: Path | None,
    bundles: tuple[Path, ...],
    witnesses: tuple[Path, ...],
    quorum: int | None,
    auditor: Auditor,
    as_json: bool,
) -> None:
    """Verify an evidence file, or the ledger itself. Exit 0 intact, 1 bad, 3 a prefix only or a gap.

    With --witness every entry must be under a checkpoint that N of the witnesses cosigned, else it is a prefix only.
    URL is the API of a running monitor (https://HOST:PORT), which must let you have its log (api.auditors).
    """
    policy = read_policy(witnesses, quorum)
    log = named or str(find_ledger(config, ledger))
    ca = find_trust(trust, config, bundles).ca_pem
    with sources([log], trust, config, bundles, auditor) as (source,):
        if source.path is None:
            if as_json:
                print_json({"ok": False, "file": log, "verdict": "missing", "problem": {"what": source.problem}})
            else:
                click.echo(f"lictor: {source.problem}", err=True)
            ctx.exit(UNREACHABLE)
        with progress_bar(f"verifying {log}", "entries") as progress:
            report = verify_log(source.path, ca, policy, progress)
    if as_json:
        print_json({"ok": report.verdict == "intact", "file": log, **report.to_json()})
    else:
        _print_report(log, report)
    ctx.exit(report.exit_code)


def _print_report(log: str, report: LogReport) -> None:
    colours = {"intact": "green", "bad": "red", "prefix_only": "yellow", "gap": "yellow"}
    verdict = report.verdict.replace("_", " ")
    console.print(Text.assemble((verdict, f"bold {colours[report.verdict]}"), f"  {log}"))
    console.print(report_table(report))


@command.command()
@click.argument("out", type=_FILE)
@ledger_option
@json_option
def export(out: Path, config: Path, ledger: Path | None, as_json: bool) -> None:
    """Write the whole log with its keys, bindings and tokens as an evidence file that others can verify."""
    path = find_ledger(config, ledger)
    with closing(SqliteReader(path)) as reader, errors.status(Text(f"writing {out}")):
        header = write_export(reader, out)
    if as_json:
        print_json({"ok": True, "file": str(out), "origin": header.origin, "entries": header.count})
    else:
        table = Table.grid(padding=(0, 2))
        table.add_row("wrote", Text(str(out)))
        table.add_row("log", Text(header.origin))
        table.add_row("entries", str(header.count))
        console.print(table)
