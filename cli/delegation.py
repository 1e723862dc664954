"""`lictor delegation`: the delegations that are open at a running monitor, and how one is revoked."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from .log_view import agent_name, moment, plain
from .ordering import Orders, ordering, why_option
from .output import console, json_option, print_json


@click.group("delegation")
def command() -> None:
    """Delegations of a running monitor: list, revoke."""


@command.command("list")
@ordering
@json_option
def list_(orders: Orders, as_json: bool) -> None:
    """Show the delegations that are open, by their nodes: from whom, to whom, since when; and those revoked."""
    found = orders.ask("delegations")
    if as_json:
        print_json(found)
        return
    if not found["open"]:
        console.print("no delegation is open")
    else:
        table = _table("node", "from", "to", "workflow", "since")
        for one in found["open"]:
            _row(table, one["node"], *_ends(one), one["wid"], moment(one["since"]))
        console.print(table)
        console.print("end one:  lictor delegation revoke NODE", markup=False)
    if found["revoked"]:
        table = _table("node", "agent", "by", "why", "at", title="revoked")
        for one in found["revoked"]:
            _row(table, one["node"], agent_name(one["agent"]), one["by"], one["why"], moment(one["since"]))
        console.print(table)


@command.command("revoke")
@click.argument("node")
@why_option
@ordering
@json_option
def revoke(node: str, why: str, orders: Orders, as_json: bool) -> None:
    """End the delegation that NODE (its id) is of, at the monitor of whoever handed it on or of whoever works on it.

    What is done under it ends within a second, and nothing more is let out that names it or is taken for it.
    """
    done = orders.give("revoke_delegation", node=node, why=why)
    if as_json:
        print_json({"ok": True, **done})
        return
    ended = len(done["ended"])
    text = f"revoked: {done['node']} of {agent_name(done['agent'])}, entry {done['entry']}; {ended} open actions end"
    console.print(Text(plain(text)))


def _ends(one: dict[str, Any]) -> tuple[str, str]:
    """From whom, to whom: the local agent by its name, the other, which may be of elsewhere, by its whole id."""
    own = agent_name(one["agent"])
    return (one["other"], own) if one["direction"] == "in" else (own, one["other"])


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(plain(cell)) for cell in cells))
