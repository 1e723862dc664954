"""The pictures show what the evidence says, all of it once, and nothing in it can steer a terminal."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from lictor.cli.demo_pictures import Evidence, bet_table, dag_trees, log_table
from lictor.evidence.bet import Bet
from lictor.evidence.ect import Ect
from lictor.verifier.chain import Chain, Node

AGENT = "spiffe://example.test/agent/a"
MONITOR = "spiffe://example.test/monitor/a"


def shown(picture: RenderableType) -> str:
    console = Console(width=110, record=True, file=StringIO())
    console.print(picture)
    return console.export_text()


def node(jti: str, *parents: str) -> Ect:
    return Ect(MONITOR, AGENT, (), jti, "workflow-1", "agent_execution", parents, 0, 0, {}, "")


def bet(jti: str, parent: str, first: int, count: int) -> Bet:
    ext = {"first_seq": first, "count": count, "trigger": "interval"}
    claims = (MONITOR, AGENT, (), jti, 0, 0, "workflow-1", (parent,), "urn:example:policy", "pass", "")
    return Bet(*claims, 0.0, 1.0, (), ext, "")


def entry(seq: int, **members: Any) -> dict[str, Any]:
    basis = {"agent_id": AGENT, "action_type": "tool_call", "action_target": "urn:example:tool", "node": "node-1"}
    return {"seq": seq, **basis, "action_parameters": {}, "decision": "allow", "reason": "allowed", **members}


def test_a_log_row_has_the_status_of_its_outcome() -> None:
    outcome = {"seq": 1, "outcome_of": 0, "outcome": {"status": 200}}
    table = shown(log_table(Evidence((entry(0), outcome), ())))
    assert "0      agent/a  allow 200  tool_call urn:example:tool" in table
    assert len(table.strip().splitlines()) == 2


def test_a_denied_action_says_why() -> None:
    denied = entry(3, decision="deny", reason="not_in_allowlist")
    assert "deny      tool_call urn:example:tool: not_in_allowlist" in shown(log_table(Evidence((denied,), ())))


def test_what_was_let_out_and_refused_elsewhere_is_marked_in_the_tree() -> None:
    outcome = {"seq": 1, "outcome_of": 0, "outcome": {"status": 403}}
    (tree,) = dag_trees(chain(node("node-1")), [Evidence((entry(0, node="node-1"), outcome), ())])
    assert "✗ tool_call urn:example:tool: answered 403" in shown(tree)


def test_a_session_of_a_tool_says_what_for() -> None:
    session = entry(0, action_parameters={"rpc_method": "tools/list"})
    assert "urn:example:tool (tools/list)" in shown(log_table(Evidence((session,), ())))


@pytest.mark.parametrize(("count", "window"), [(0, "none"), (1, "4"), (3, "4-6")])
def test_a_bet_row_names_its_window(count: int, window: str) -> None:
    row = shown(bet_table([bet("bet-1", "node-1", 4, count)])).strip().splitlines()[-1]
    assert row.split() == ["bet-1", "agent/a", "urn:example:policy", "pass", "interval", window]


def chain(*nodes: Ect, bets: tuple[Bet, ...] = ()) -> Chain:
    chain = Chain({("workflow-1", one.jti): Node(one) for one in nodes})
    for one in chain.nodes.values():
        one.parents = [chain.nodes["workflow-1", jti] for jti in one.ect.parents if ("workflow-1", jti) in chain.nodes]
        for parent in one.parents:
            parent.children.append(one)
    for said in bets:
        chain.nodes["workflow-1", said.parents[0]].bets.append(said)
    return chain


def test_a_join_node_is_drawn_once_with_what_belongs_to_it() -> None:
    nodes = (node("node-1"), node("node-2", "node-1"), node("node-3", "node-1"), node("node-4", "node-2", "node-3"))
    evidence = Evidence((entry(0, node="node-4"),), ())
    (tree,) = dag_trees(chain(*nodes, bets=(bet("bet-1", "node-4", 0, 1),)), [evidence])
    text = shown(tree)
    assert [text.count(f"node {one.jti}") for one in nodes] == [1, 1, 1, 1]
    assert text.count("tool_call") == text.count("BET bet-1") == 1


def test_a_node_whose_parent_is_not_there_is_a_root() -> None:
    assert len(list(dag_trees(chain(node("node-2", "node-1")), []))) == 1


def test_text_of_an_agent_steers_nothing() -> None:
    hostile = entry(0, action_target="urn:x:\x1b[2J[red]")
    text = shown(log_table(Evidence((hostile,), ())))
    assert "\x1b" not in text
    assert "[red]" in text
