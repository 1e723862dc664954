"""Work that is handed on where nobody may be allowed more: who says so, who keeps to it, what stands in the nodes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from remembering import PEER, TOOL, A, Monitor, draft, handed

from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.evidence.lineage import MAX_WITHIN
from lictor.evidence.sqlite_store import SqliteReader
from lictor.formats import base64url

CALLER, B = "spiffe://e.example/agent/caller", "spiffe://e.example/agent/b"
ATTENUATED = {"type": "delegation", "outgoing": {"child_binding": "subset"}}


def binding(name: str, subject: str, *tools: str, **more: Any) -> Binding:
    """What one agent may do: call tools, and hand on as `more` says."""
    behaviors = [
        {
            "behavior_id": "tools",
            "observable_actions": ["tool_call"],
            "compliance_criteria": {"type": "allowlist", "values": list(tools)},
        },
        {"behavior_id": "on", "observable_actions": ["delegation"], "compliance_criteria": more.pop("on", ATTENUATED)},
    ]
    document = {"policy_id": f"urn:{name}", "version": "1.0.0", "subjects": [subject], "evaluation_mode": "continuous"}
    return load_binding(json.dumps({**document, "expected_behaviors": behaviors}).encode(), name)


WIDE, NARROW = ("urn:example:tool:*",), (TOOL,)
CALLERS = binding("callers", CALLER, *WIDE)
PEERS = binding("peers", PEER)
WITHIN = [[CALLERS.digest]]


def extension(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64url.decode(token.split(".")[1]))["ext"]
    return found


@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    return Monitor(tmp_path)


async def test_a_delegation_says_what_it_is_within(monitor: Monitor) -> None:
    more = binding("more", CALLER, *WIDE, on={"type": "delegation", "outgoing": {"max_depth": 5}})
    monitor.start((CALLERS, more))
    receipt = await monitor.recorder.record_action(draft(type_="delegation", agent_id=CALLER, audience=[A]))
    assert receipt.decision == "allow"
    assert extension(receipt.execution_context[0])["within"] == [[CALLERS.digest, more.digest]]
    assert monitor.entries()[0]["action_parameters"]["within"] == [[CALLERS.digest, more.digest]]
    await monitor.ledger.close()


async def test_without_being_asked_it_says_nothing(monitor: Monitor) -> None:
    monitor.start((binding("callers", CALLER, *WIDE, on={"type": "delegation", "outgoing": {"max_depth": 5}}),))
    receipt = await monitor.recorder.record_action(draft(type_="delegation", agent_id=CALLER, audience=[A]))
    assert "within" not in extension(receipt.execution_context[0])
    await monitor.ledger.close()


async def test_work_is_taken_up_by_who_may_do_no_more_and_stays_within(monitor: Monitor) -> None:
    own = binding("own", A, *NARROW)
    monitor.start((CALLERS, PEERS, own))
    receipt = await monitor.recorder.accept_delegation(handed(1, within=WITHIN))
    assert (receipt.decision, extension(receipt.execution_context[0])["within"]) == ("allow", WITHIN)
    assert monitor.entries()[0]["action_parameters"]["within"] == WITHIN
    further = draft(type_="delegation", audience=[B], execution_context=receipt.execution_context)
    handed_on = await monitor.recorder.record_action(further)
    assert extension(handed_on.execution_context[0])["within"] == [*WITHIN, [own.digest]]
    await monitor.ledger.close()


@pytest.mark.parametrize(
    ("what", "bindings", "within"),
    [
        ("may do more", (CALLERS, PEERS, binding("own", A, "urn:other:tool")), WITHIN),
        ("a binding that is not known here", (PEERS, binding("own", A, *NARROW)), WITHIN),
        ("one of two groups is exceeded", (CALLERS, PEERS, binding("own", A, *NARROW)), [*WITHIN, [PEERS.digest]]),
        (
            "it cannot be told",
            (CALLERS, PEERS, binding("own", A, *NARROW, on={"type": "delegation", "outgoing": {"max_depth": 1}})),
            WITHIN,
        ),
    ],
)
async def test_work_is_refused_where_more_is_allowed_or_it_cannot_be_told(
    monitor: Monitor, what: str, bindings: tuple[Binding, ...], within: list[list[str]]
) -> None:
    monitor.start(bindings)
    receipt = await monitor.recorder.accept_delegation(handed(1, within=within))
    assert (receipt.decision, receipt.reason) == ("deny", "binding_not_subset")
    assert "urn:" not in receipt.detail, "the policy is not told"
    (entry,) = monitor.entries()
    assert (entry["agent_id"], entry["action_parameters"]["within"]) == (PEER, within)
    assert (await monitor.recorder.accept_delegation(handed(2))).decision == "allow", "without the condition"
    await monitor.ledger.close()


async def test_other_bindings_are_compared_anew(monitor: Monitor) -> None:
    monitor.start((CALLERS, PEERS, binding("own", A, *NARROW)))
    assert (await monitor.recorder.accept_delegation(handed(1, within=WITHIN))).decision == "allow"
    wider = (CALLERS, PEERS, binding("own", A, "urn:other:tool"))
    (await monitor.state.change(wider, monitor.ledger, lambda: SqliteReader(monitor.path)))()
    assert (await monitor.recorder.accept_delegation(handed(2, within=WITHIN))).reason == "binding_not_subset"
    await monitor.ledger.close()


async def test_more_bindings_than_a_node_can_name(monitor: Monitor) -> None:
    own = binding("own", A, *NARROW)
    monitor.start(
        (own, *(dataclasses.replace(own, policy_id=f"urn:{n}", digest=f"{n:043}") for n in range(MAX_WITHIN)))
    )
    receipt = await monitor.recorder.record_action(draft(type_="delegation", audience=[B]))
    assert (receipt.decision, receipt.reason) == ("deny", "too_many_bindings")
    await monitor.ledger.close()
