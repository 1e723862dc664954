"""`lictor approve`: decide on the actions that a running monitor holds."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ..formats.errors import UsageError
from .log_view import agent_name, moment, plain
from .ordering import Orders, ordering
from .output import console, json_option, print_json


@click.command("approve")
@click.argument("seq", type=click.IntRange(min=0), required=False)
@click.option("--always", is_flag=True, help="Let this agent do this on this target from now on.")
@click.option("--deny", is_flag=True, help="Deny the action instead.")
@click.option("--revoke", type=click.IntRange(min=0), metavar="N", help="Take the standing approval N back.")
@click.option("--why", metavar="TEXT", default="", help="Is written into the log; an agent that is denied is told.")
@ordering
@json_option
def command(
    seq: int | None, always: bool, deny: bool, revoke: int | None, why: str, orders: Orders, as_json: bool
) -> None:
    """List the actions that wait for a decision and the standing approvals, or let the action of entry SEQ out.

    Every decision is an entry of the log, with who made it.
    """
    if revoke is not None and (seq is not None or always or deny):
        raise UsageError("--revoke stands alone")
    if seq is None and (always or deny):
        raise UsageError("--always and --deny are about one action: give its SEQ")
    if revoke is not None:
        given = orders.give("revoke", approval=revoke, why=why)
        _tell(as_json, {"ok": True, **given}, f"revoked: {_what(given)} is held again")
    elif seq is not None:
        done = orders.give("decide", seq=seq, allow=not deny, always=always, why=why)
        said = "denied" if deny else "approved"
        standing = f", and its like from now on (standing approval {done['approval']})" if always else ""
        _tell(as_json, {"ok": True, **done}, f"{said}: {_what(done)}{standing}")
    else:
        _list(orders.ask("waiting"), orders.ask("standing"), as_json)


def _tell(as_json: bool, result: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(result)
    else:
        console.print(Text(plain(text)))


def _what(said: dict[str, Any]) -> str:
    return f"{said['action_type']} {said['action_target']} of {agent_name(said['agent'])}"


def _list(waiting: list[dict[str, Any]], standing: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"waiting": waiting, "standing": standing})
        return
    if not waiting:
        console.print("nothing waits for a decision")
    else:
        table = _table("seq", "agent", "action", "held by", "waits")
        for one in waiting:
            held = f"{_behaviors(one)}: {plain(one['reason'])}"
            _row(table, one, held, f"{one['waiting_s']:.0f} s", number=one["seq"])
        console.print(table)
        console.print("decide:  lictor approve SEQ [--always | --deny]", markup=False)
    if standing:
        table = _table("N", "agent", "approved from now on", "for", "by", title="standing approvals")
        for one in standing:
            _row(table, one, _behaviors(one), f"{plain(one['by'])}, {moment(one['since'])}", number=one["approval"])
        console.print(table)
        console.print("take back:  lictor approve --revoke N", markup=False)


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, one: dict[str, Any], *more: str, number: int) -> None:
    action = f"{plain(one['action_type'])} {plain(one['action_target'])}"
    table.add_row(*(Text(cell) for cell in (str(number), agent_name(one["agent"]), action, *more)))


def _behaviors(one: dict[str, Any]) -> str:
    return plain(", ".join(f"{said['behavior_id']} of {said['policy_id']}" for said in one["behaviors"]))
