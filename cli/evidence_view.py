"""BETs and delegation chains as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..evidence.bet import Bet
from ..formats.spiffe import trust_domain
from ..verifier.chain import Chain, Node
from .log_view import plain

COLOURS = {"pass": "green", "partial": "yellow", "fail": "red", "not-run": "dim"}
FILE = click.Path(path_type=Path)


def when(moment: float) -> str:
    """A NumericDate in UTC, to the second or, where it has a fraction, to the millisecond."""
    try:
        given = datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)
        return given.isoformat(" ", "milliseconds" if given.microsecond else "seconds")
    except (OverflowError, ValueError, OSError):
        return str(moment)


def short(identity: str) -> str:
    """The last two parts of a SPIFFE ID: `agent/a`."""
    return "/".join(identity.split("/")[-2:])


def naming(chain: Chain) -> Callable[[str], str]:
    """How the agents and monitors of a chain are called: with their trust domain where it has several."""
    identities = [identity for node in chain.nodes.values() for identity in (node.agent, node.ect.issuer)]

    if len(set(map(trust_domain, identities))) < 2:
        return short
    return lambda identity: f"{short(identity)} of {trust_domain(identity)}"


def _entries(count: str) -> str:
    return f"{count} entr{'y' if count == '1' else 'ies'}"


def bet_table(one: Bet) -> Table:
    """All of one BET that people ask about."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    trigger, count = plain(one.ext.get("trigger", "unknown")), plain(one.ext.get("count", "unknown"))
    rows = [
        ("result", Text(one.result, COLOURS.get(one.result, ""))),
        ("agent", Text(one.subject)),
        ("policy", Text(one.policy)),
        ("window", Text(f"{when(one.start)} to {when(one.end)} UTC, {_entries(count)}")),
        ("evidence", Text(one.evidence)),
        ("issued by", Text(one.issuer)),
        ("issued on", Text(f"{trigger}, {when(one.iat)} UTC, expires {when(one.exp)} UTC")),
        ("for", Text(", ".join(one.audience))),
        ("node", Text(f"{', '.join(one.parents)} of workflow {one.wid}")),
        ("id", Text(one.jti)),
    ]
    refused = one.ext.get("refused")
    if isinstance(refused, dict):
        target = refused.get("action_target", refused.get("action_target_digest"))
        rows.insert(1, ("refused", Text(plain(f"entry {refused.get('seq')}: {target} ({refused.get('reason')})"))))
    for name, value in rows:
        table.add_row(name, value)
    for item in one.details:
        result = str(item["result"])
        said = plain(f"{item.get('evaluated', '?')} evaluated, {item.get('violations', '?')} violations")
        said += "".join(f", {plain(item[name])} {name}" for name in ("held", "approved") if name in item)
        table.add_row("behavior", Text.assemble((result, COLOURS.get(result, "")), f" {item['behavior_id']}: {said}"))
    return table


def bets_table(bets: Sequence[Bet]) -> Table:
    """BETs as a list, one a line, oldest first; times are UTC, with the days they span in the title."""
    days = dict.fromkeys(when(moment)[:10] for moment in (bets[0].start, bets[-1].end))
    title = f"{' to '.join(days)} UTC"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_style="dim")
    for name in ("agent", "policy", "result", "trigger", "window"):
        table.add_column(name, no_wrap=name not in ("agent", "policy"), overflow="fold")
    table.add_column("entries", justify="right")
    for one in bets:
        table.add_row(
            plain(short(one.subject)),
            plain(one.policy),
            Text(one.result, COLOURS.get(one.result, "")),
            plain(one.ext.get("trigger", "unknown")),
            f"{when(one.start)[11:19]} to {when(one.end)[11:19]}",
            plain(one.ext.get("count", "unknown")),
        )
    return table


def chain_trees(chain: Chain) -> Iterator[Tree]:
    """A tree for each workflow; a node with several predecessors hangs under the first and names the others."""
    name = naming(chain)
    for wid, nodes in chain.workflows().items():
        tree = Tree(Text.assemble("workflow ", (wid or "without a name", "bold")))
        roots = [node for node in nodes if not node.parents]
        _grow(tree, roots, name)
        yield tree


def _grow(tree: Tree, roots: Iterable[Node], name: Callable[[str], str]) -> None:
    waiting = [(tree, node) for node in reversed(list(roots))]
    while waiting:
        above, node = waiting.pop()
        branch = above.add(_node_text(node, name))
        for one in _folded(node.bets):
            branch.add(one)
        own = [child for child in node.children if child.parents[0] is node]
        waiting += [(branch, child) for child in reversed(own)]


def _node_text(node: Node, name: Callable[[str], str]) -> Text:
    text = Text.assemble((name(node.agent), "bold"), f" {node.ect.exec_act} ", (f"{when(node.ect.iat)} UTC", "dim"))
    text.append(f", node {node.ect.jti[:8]} by {name(node.ect.issuer)}", "dim")
    others = [parent.ect.jti[:8] for parent in node.parents[1:]]
    if others:
        text.append(f", also after {', '.join(others)}", "dim")
    absent = len(node.ect.parents) - len(node.parents)
    if absent:
        text.append(f", {absent} predecessor{'s' * (absent > 1)} not in the files", "yellow")
    return text


def _folded(bets: Iterable[Bet]) -> Iterator[Text]:
    """One line a BET, oldest first."""
    for one in sorted(bets, key=lambda one: (one.start, one.policy)):
        trigger, count = plain(one.ext.get("trigger", "")), plain(one.ext.get("count", "?"))
        result = (one.result, COLOURS.get(one.result, ""))
        rest = (f" on {trigger}, {_entries(count)}, {one.jti[:8]}", "dim")
        yield Text.assemble("BET ", result, f" {one.policy}", rest)
