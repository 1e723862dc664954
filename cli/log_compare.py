"""`lictor log compare`: several monitors that watch one agent, held against each other by their logs."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from ..formats.errors import UsageError
from ..proxy.config import load
from ..verifier.comparing import Comparison, compare
from ..verifier.log import verify_log
from .bet import Moment
from .evidence_view import when
from .log_view import plain
from .output import console, errors, json_option, print_json
from .trusted import find_trust, trust_options

_FILE = click.Path(path_type=Path)
INCOMPLETE = 3
SHOWN = 50


@click.command("compare")
@click.argument("files", metavar="FILE FILE…", nargs=-1, required=True, type=_FILE)
@click.option("--agent", required=True, metavar="NAME|ID", help="An agent's name or SPIFFE ID.")
@click.option("--from", "start", metavar="TIME", type=Moment(), help="Else what all logs cover.")
@click.option("--to", "end", metavar="TIME", type=Moment(), help="Else what all logs cover.")
@trust_options
@json_option
@click.pass_context
def compare_logs(
    ctx: click.Context,
    files: tuple[Path, ...],
    agent: str,
    start: float | None,
    end: float | None,
    trust: Path | None,
    config: Path,
    bundles: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Compare what the logs (evidence files or ledgers) of monitors that watch the same traffic tell of an agent.

    What one let out, every other must have seen, and it must have ended alike. Exit 0 if so, 1 if not or if a log does
    not hold, 3 if there is nothing to compare or a log has gaps.
    """
    if len(files) < 2:
        raise UsageError("name the evidence files of two monitors or more")
    ca_pem = find_trust(trust, config, bundles).ca_pem
    reports = {str(path): verify_log(path, ca_pem) for path in files}
    told = {name: report.verdict for name, report in reports.items()}
    code = max((report.exit_code for report in reports.values()), key=(0, INCOMPLETE, 1).index)
    for name, report in reports.items():
        if report.problem is not None:
            errors.print(Text(plain(f"{name}: {report.verdict.replace('_', ' ')}: {report.problem}"), "yellow"))
    if code == 1:
        ctx.exit(1)
    if len({report.origin for report in reports.values()}) < len(files):
        raise UsageError("two of these files are of one log: name one file of each monitor")
    found = compare(list(files), _agent(agent, trust, config), start, end)
    code = 1 if found.differences else INCOMPLETE if found.empty else code
    if as_json:
        print_json({"ok": code == 0, "logs": told, **found.to_json()})
    else:
        _show(found)
    ctx.exit(code)


def _agent(name: str, trust: Path | None, config: Path) -> str:
    if name.startswith("spiffe://"):
        return name
    if trust is not None or not config.exists():
        raise UsageError(f"say the whole SPIFFE ID of {name}: there is no configuration that names a trust domain")
    return f"spiffe://{load(config).monitor.trust_domain}/agent/{name}"


def _show(found: Comparison) -> None:
    if found.empty:
        console.print("there is nothing to compare: the logs cover no time in common, or nothing of the agent in it")
        return
    counted = ", ".join(f"{count} of {origin}" for origin, count in found.acts.items())
    console.print(f"actions from {when(found.start)} to {when(found.end)} UTC: {plain(counted)}", markup=False)
    for one in found.differences[:SHOWN]:
        where = f"{when(one.timestamp)} {one.log} entry {one.seq}, and {one.other}: {one.what}"
        console.print(Text(plain(where), "red"))
    if len(found.differences) > SHOWN:
        console.print(f"and {len(found.differences) - SHOWN} more (--json has all)")
    if not found.differences:
        console.print("they tell the same")
