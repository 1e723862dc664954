"""What was let out is judged again when other rules come into force, and ended if they deny it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flows import FakeControl, make_flow
from mitmproxy import connection, http
from mitmproxy import flow as mitm_flow

from lictor.addons import open_exchanges
from lictor.addons.exchange import Exchange, attach, exchange_of
from lictor.addons.open_exchanges import CALLER_GONE, POLICY_CHANGED, OpenExchanges
from lictor.addons.outcome import Outcome
from lictor.addons.settling import permit
from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import Classified
from lictor.bindings.model import ActionType
from lictor.bindings.policy import QUARANTINED, Policy
from lictor.bindings.schema import load_binding
from lictor.evidence.entry import Receipt

AGENT = "spiffe://x.test/agent/a"


def policy(*behaviors: dict[str, Any]) -> Policy:
    document = {
        "policy_id": "urn:test:policy",
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {"behavior_id": f"b{i}", "observable_actions": ["tool_call"], **behavior}
            for i, behavior in enumerate(behaviors)
        ],
    }
    return Policy([load_binding(json.dumps(document).encode(), "test")], Catalog(()))


def allow(*values: str, **more: Any) -> dict[str, Any]:
    return {"compliance_criteria": {"type": "allowlist", "values": list(values)}, **more}


BOTH = policy(allow("urn:test:one", "urn:test:two"))


class World:
    """A worker's open exchanges, and what was cut."""

    def __init__(self, control: FakeControl) -> None:
        self.policy, self.cut = BOTH, list[connection.Client]()
        self.open = OpenExchanges(lambda: self.policy, self.cut.append, control.withdraw)
        self.control = control
        self.outcome = Outcome(control, self.open)

    def let_out(self, *targets: str, client: connection.Client | None = None) -> http.HTTPFlow:
        flow = make_flow()
        flow.client_conn = client or flow.client_conn
        exchange = Exchange(AGENT, False, "https", "api.example", 443, "/", "")
        exchange.classified = tuple(Classified(ActionType.TOOL_CALL, target) for target in targets)
        exchange.receipts = (Receipt(7, 1.0, "allow", "allowed", "w", "n"),)
        attach(flow, exchange)
        permit(flow, exchange, self.open)
        return flow

    def change(self, made: Policy) -> None:
        self.policy = made
        self.open.judge_again()

    def errors(self, *flows: http.HTTPFlow) -> list[str]:
        """What the outcomes say when the engine has ended these exchanges."""
        for flow in flows:
            flow.error = mitm_flow.Error("client disconnected")
            self.outcome.error(flow)
        return [draft.outcome["error"] for draft in self.control.outcomes]


@pytest.fixture
def world(control: FakeControl) -> World:
    return World(control)


def test_what_is_denied_now_is_ended(world: World) -> None:
    stays, ends = world.let_out("urn:test:one"), world.let_out("urn:test:two")
    world.change(policy(allow("urn:test:one")))
    assert world.cut == [ends.client_conn]
    assert world.errors(stays, ends) == ["client disconnected", POLICY_CHANGED]


@pytest.mark.parametrize(
    "other",
    [
        BOTH,
        policy(allow("urn:test:one"), allow("urn:test:nothing", on_violation="flag")),
        policy(allow("urn:test:one"), {"compliance_criteria": {"type": "rate", "limit": 1, "period_s": 60}}),
    ],
    ids=["the same", "flagged", "limited by a rate"],
)
def test_what_is_not_denied_goes_on(world: World, other: Policy) -> None:
    world.let_out("urn:test:one")
    world.change(other)
    assert world.cut == []


def test_no_policy_is_denied(world: World) -> None:
    flow = world.let_out("urn:test:one")
    world.change(Policy((), Catalog(())))
    assert world.cut == [flow.client_conn]


def test_one_denied_member_ends_a_batch(world: World) -> None:
    flow = world.let_out("urn:test:one", "urn:test:two")
    world.change(policy(allow("urn:test:one")))
    assert world.cut == [flow.client_conn]


def test_all_on_one_connection_end_together(world: World) -> None:
    first = world.let_out("urn:test:one")
    second = world.let_out("urn:test:two", client=first.client_conn)
    world.change(policy(allow("urn:test:one")))
    assert world.cut == [first.client_conn]
    assert world.errors(first, second) == [POLICY_CHANGED] * 2


def test_judged_by_the_former_rules_and_permitted_after(world: World) -> None:
    flow = make_flow()
    exchange = Exchange(AGENT, False, "https", "api.example", 443, "/", "")
    exchange.classified = (Classified(ActionType.TOOL_CALL, "urn:test:two"),)
    world.change(policy(allow("urn:test:one")))
    permit(flow, exchange, world.open)
    assert world.cut == [flow.client_conn]


def test_begun_after_the_change_is_not_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.change(BOTH)
    monkeypatch.setattr(world, "policy", None)
    world.let_out("urn:test:one")
    assert world.cut == []


def test_an_error_in_judging_ends(world: World) -> None:
    flow = world.let_out("urn:test:one")
    world.change(None)  # type: ignore[arg-type]
    assert world.cut == [flow.client_conn]
    assert world.errors(flow) == ["monitor_error"]


def test_idle_connections_are_cut_too(world: World) -> None:
    idle = make_flow().client_conn
    world.open.end([idle], "revoked")
    assert world.cut == [idle]


def test_what_has_ended_is_forgotten(world: World) -> None:
    flow = world.let_out("urn:test:one")
    flow.response = http.Response.make(200)
    world.outcome.response(flow)
    assert len(world.open) == 0
    world.change(Policy((), Catalog(())))
    assert world.cut == []


class TestHeld:
    """Exchanges that wait for a person's decision."""

    def hold(self, world: World, *seqs: int, target: str = "urn:test:one") -> tuple[http.HTTPFlow, Exchange]:
        flow = make_flow()
        exchange = Exchange(AGENT, False, "https", "api.example", 443, "/", "")
        exchange.classified = (Classified(ActionType.TOOL_CALL, target),)
        for seq in seqs:
            world.open.hold(flow, exchange, seq)
        return flow, exchange

    def test_a_client_that_goes_away_takes_back_what_it_asked_for(self, world: World) -> None:
        flow, _ = self.hold(world, 3, 4)
        self.hold(world, 5)
        world.open.client_disconnected(flow.client_conn)
        assert world.control.withdrawn == [(3, CALLER_GONE), (4, CALLER_GONE)]
        world.open.client_disconnected(flow.client_conn)
        assert len(world.control.withdrawn) == 2

    def test_a_client_that_is_gone_already(self, world: World) -> None:
        flow, exchange = self.hold(world)
        flow.client_conn.state = connection.ConnectionState.CLOSED
        world.open.hold(flow, exchange, 3)
        assert world.control.withdrawn == [(3, CALLER_GONE)]

    def test_what_was_decided_is_not_taken_back(self, world: World) -> None:
        flow, exchange = self.hold(world, 3)
        world.open.decided(exchange)
        world.open.client_disconnected(flow.client_conn)
        assert world.control.withdrawn == []

    @pytest.mark.parametrize(
        ("made", "withdrawn"),
        [
            (policy(allow("urn:test:nothing", on_violation="hold")), []),
            (BOTH, []),
            (policy(allow("urn:test:nothing")), [(3, POLICY_CHANGED)]),
            (policy(allow("urn:test:one")).with_quarantined({AGENT}), [(3, QUARANTINED)]),
        ],
        ids=["held still", "allowed", "denied", "quarantined"],
    )
    def test_other_rules_are_asked(self, world: World, made: Policy, withdrawn: list[tuple[int, str]]) -> None:
        self.hold(world, 3)
        world.change(made)
        assert world.control.withdrawn == withdrawn


@pytest.mark.parametrize("reason", ["approved", "approved_always", "allowed"])
def test_what_would_be_held_by_now_ends_unless_a_person_let_it_out(world: World, reason: str) -> None:
    flow = world.let_out("urn:test:one")
    exchange = exchange_of(flow)
    assert exchange is not None
    exchange.receipts = (Receipt(7, 1.0, "allow", reason, "w", "n"),)
    world.change(policy(allow("urn:test:nothing", on_violation="hold")))
    assert world.cut == ([] if reason.startswith("approved") else [flow.client_conn])


def test_a_quarantined_agent_is_ended_on_both_sides(world: World) -> None:
    mine, called, other = world.let_out("urn:test:one"), world.let_out("urn:test:one"), world.let_out("urn:test:one")
    for flow, agent, callee in ((mine, "urn:x:bad", ""), (called, AGENT, "urn:x:bad"), (other, AGENT, "urn:x:good")):
        exchange = exchange_of(flow)
        assert exchange is not None
        exchange.agent_id, exchange.callee = agent, callee
    world.change(BOTH.with_quarantined({"urn:x:bad"}))
    assert world.cut == [mine.client_conn, called.client_conn]
    assert world.errors(mine, called) == [QUARANTINED] * 2


def test_what_was_ordered_to_end_ends_by_its_entries(world: World) -> None:
    first, second = world.let_out("urn:test:one"), world.let_out("urn:test:one")
    named = exchange_of(second)
    assert named is not None
    named.receipts = (Receipt(8, 1.0, "allow", "allowed", "w", "n"),)
    world.open.end_actions([8, 9], "delegation_revoked")
    assert world.cut == [second.client_conn]
    assert world.errors(first, second) == ["client disconnected", "delegation_revoked"]


def test_what_gets_its_permit_only_then_ends_too(world: World) -> None:
    world.open.end_actions([7], "delegation_revoked")
    flow = world.let_out("urn:test:one")
    assert world.cut == [flow.client_conn]
    assert world.errors(flow) == ["delegation_revoked"]


def test_what_was_ordered_to_end_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_exchanges, "MAX_ENDED", 3)
    world.open.end_actions([7, 1, 2, 3], "delegation_revoked")
    world.open.end_actions([4], "delegation_revoked")
    assert list(world.open._ended) == [2, 3, 4]
    world.let_out("urn:test:one")
    assert world.cut == []
