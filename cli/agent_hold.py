"""`lictor agent hold`, `holds` and `unhold`: have what an agent does wait until a person decides."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ..bindings.model import ActionType
from ..formats.errors import UsageError
from .log_view import agent_name, plain
from .ordering import Orders, ordering, why_option
from .output import console, json_option, print_json

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command("hold")
@click.argument("name")
@click.option(
    "--for", "lasts", metavar="TIME", help="For so long: 90s, 10m, 2h, 1d. Without it, until it is taken back."
)
@click.option(
    "--action-type", "types", multiple=True, type=click.Choice([t.value for t in ActionType]), help="Only these."
)
@click.option("--target", "targets", multiple=True, metavar="PATTERN", help="Only on these targets, as in a binding.")
@click.option("--workflow", metavar="WID", help="Only in this workflow.")
@why_option
@ordering
@json_option
def hold(
    name: str,
    lasts: str | None,
    types: tuple[str, ...],
    targets: tuple[str, ...],
    workflow: str | None,
    why: str,
    orders: Orders,
    as_json: bool,
) -> None:
    """Have what the agent NAME (or SPIFFE ID) does wait until somebody decides (`lictor approve`).

    From now on, for every action that its bindings let out; its tunnels end. It lasts over restarts. Given again, the
    same hold stays, or lasts longer where that is what you say.
    """
    given = {"seconds": _seconds(lasts), "action_types": [*types], "targets": [*targets], "workflow": workflow}
    limits = {key: value for key, value in given.items() if value}
    done = orders.give("hold", agent=orders.agent_id(name), why=why, **limits)
    if as_json:
        print_json({"ok": True, **done})
        return
    ended = f"; {len(done['ended'])} open tunnels end" if done["ended"] else ""
    what = f"{_what(done)} of {agent_name(done['agent'])} waits, {_until(done)} (hold {done['hold']})"
    console.print(Text(plain(what + ended)))
    console.print("decide:  lictor approve;  take back:  lictor agent unhold NAME", markup=False)


@click.command("holds")
@ordering
@json_option
def holds(orders: Orders, as_json: bool) -> None:
    """List the holds that are demanded."""
    listed = orders.ask("holds")
    if as_json:
        print_json(listed)
        return
    if not listed:
        console.print("no hold is demanded")
        return
    table = Table("hold", "agent", "what waits", "until", "by", "why", box=None, padding=(0, 2, 0, 0))
    for one in listed:
        cells = (str(one["hold"]), agent_name(one["agent"]), _what(one), _until(one), one["by"], one["why"])
        table.add_row(*(Text(plain(cell)) for cell in cells))
    console.print(table)


@click.command("unhold")
@click.argument("name")
@click.option("--hold", "number", type=click.IntRange(min=0), metavar="N", help="Only this one (`lictor agent holds`).")
@why_option
@ordering
@json_option
def unhold(name: str, number: int | None, why: str, orders: Orders, as_json: bool) -> None:
    """Take back the holds that are demanded of the agent NAME. What waits already still waits (`lictor approve`)."""
    one = {} if number is None else {"hold": number}
    done = orders.give("unhold", agent=orders.agent_id(name), why=why, **one)
    if as_json:
        print_json({"ok": True, "ended": done})
        return
    for said in done:
        console.print(Text(plain(f"taken back: {_what(said)} of {agent_name(said['agent'])} waits no longer")))


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"--for: expected a time like 90s, 10m, 2h or 1d, found {text!r}")
    return float(found[1]) * _SECONDS[found[2]]


def _what(said: dict[str, Any]) -> str:
    types = ", ".join(said.get("action_types", ())) or "everything"
    where = f" on {', '.join(said['targets'])}" if "targets" in said else ""
    return types + where + (f" in workflow {said['workflow']}" if "workflow" in said else "")


def _until(said: dict[str, Any]) -> str:
    if "until" not in said:
        return "until it is taken back"
    return f"until {datetime.fromtimestamp(said['until'], UTC):%Y-%m-%d %H:%M:%S}Z"
