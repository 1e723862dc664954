"""Pictures of evidence files for people: the log, the BETs, the delegation DAG as a tree. Nothing is verified here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from ..evidence.bet import Bet
from ..evidence.export import EntryLine, TokenLine, open_lines, read_records
from ..formats import strict_json
from ..verifier.bets import parse_bet
from ..verifier.chain import Chain, Node
from .evidence_view import short
from .log_view import plain


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an evidence file says: entries as objects, BETs as read."""

    entries: tuple[Mapping[str, Any], ...]
    bets: tuple[Bet, ...]

    @property
    def actions(self) -> list[Mapping[str, Any]]:
        """The entries that are actions, not outcomes."""
        return [entry for entry in self.entries if "decision" in entry]

    @property
    def statuses(self) -> Mapping[int, Any]:
        """What actions were answered with, by their seq."""
        ended = (entry for entry in self.entries if "outcome" in entry)
        return {entry["outcome_of"]: entry["outcome"].get("status", "") for entry in ended}


def read_evidence(path: Path) -> Evidence:
    """Read an evidence file without verifying it. Raises FormatError, VerificationError, UsageError."""
    entries, bets = [], []
    with open_lines(path) as lines:
        for _, record in read_records(lines):
            if isinstance(record, EntryLine):
                entries.append(strict_json.loads_object(record.data))
            elif isinstance(record, TokenLine) and record.kind == "bet":
                bets.append(parse_bet(record.token))
    return Evidence(tuple(entries), tuple(bets))


def log_table(evidence: Evidence) -> Table:
    """One row an action, with the status of its outcome where there is one."""
    table = _table("entry", "agent", "decision", "action and target")
    status = evidence.statuses
    for entry in evidence.actions:
        decision = f"{_colour(entry)}{_safe(entry['decision'])}[/] {status.get(entry['seq'], '')}"
        table.add_row(str(entry["seq"]), _safe(short(entry["agent_id"])), decision, _safe(_action(entry)))
    return table


def bet_table(bets: Iterable[Bet]) -> Table:
    """One row a BET."""
    table = _table("BET", "agent", "policy", "result", "issued on", "entries")
    for one in bets:
        first, count = one.ext["first_seq"], one.ext["count"]
        entries = f"{first}-{first + count - 1}" if count > 1 else str(first) if count else "none"
        trigger = _safe(str(one.ext["trigger"]))
        table.add_row(one.jti[:8], _safe(short(one.subject)), _safe(one.policy), _result(one.result), trigger, entries)
    return table


def dag_trees(chain: Chain, files: Iterable[Evidence]) -> Iterator[Tree]:
    """A tree from each node without predecessor, with the actions and BETs of the nodes. Each node is drawn once."""
    actions: defaultdict[str, list[tuple[Mapping[str, Any], Any]]] = defaultdict(list)
    for evidence in files:
        statuses = evidence.statuses
        for entry in evidence.actions:
            actions[entry["node"]].append((entry, statuses.get(entry["seq"])))
    drawn: set[str] = set()

    def grow(tree: Tree, node: Node) -> None:
        drawn.add(node.ect.jti)
        branch = tree.add(f"[bold]{_safe(short(node.agent))}[/] {_node(node)}")
        for entry, status in actions[node.ect.jti]:
            refused = isinstance(status, int) and status >= 400
            mark = "✗" if refused or entry["decision"] == "deny" else "✓"
            answered = f": answered {status}" if refused else ""
            branch.add(f"{'[red]' if refused else _colour(entry)}{mark}[/] {_safe(_action(entry) + answered)}")
        for one in node.bets:
            branch.add(f"BET {one.jti[:8]} {_safe(one.policy)} {_result(one.result)}")
        for child in node.children:
            if child.ect.jti not in drawn:
                grow(branch, child)

    for wid, nodes in chain.workflows().items():
        for root in nodes:
            if not root.parents:
                tree = Tree(f"workflow {_safe(wid)}")
                grow(tree, root)
                yield tree


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _safe(value: object) -> str:
    """Text that is neither markup nor steers a terminal."""
    return escape(plain(value))


def _node(node: Node) -> str:
    return f"[dim]node {node.ect.jti[:8]}, minted by {_safe(short(node.ect.issuer))}[/]"


def _action(entry: Mapping[str, Any]) -> str:
    """Type and target; the method where an MCP session itself is the target; the reason of what was denied."""
    text = f"{entry['action_type']} {entry['action_target']}"
    method = entry["action_parameters"].get("rpc_method")
    if method and entry["action_type"] == "tool_call" and "#" not in entry["action_target"]:
        text += f" ({method})"
    return f"{text}: {entry['reason']}" if entry["decision"] == "deny" else text


def _colour(entry: Mapping[str, Any]) -> str:
    return "[red]" if entry["decision"] == "deny" else "[green]"


def _result(result: str) -> str:
    return f"[{'green' if result == 'pass' else 'yellow'}]{_safe(result)}[/]"
