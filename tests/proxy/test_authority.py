"""Quarantine, standing approvals, and what the control process decides by them.

All are kept with the entries that say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.bindings.schema import load_binding
from lictor.evidence.entry import ActionDraft, InboundDraft, Resolution
from lictor.evidence.ledger import Ledger
from lictor.evidence.lineage import Within
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.state import Judged
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.proxy.authority import Authority
from lictor.proxy.orders import demanded_holds
from lictor.proxy.orders.approvals import MOST, Approvals
from lictor.proxy.orders.demanded_holds import DemandedHolds
from lictor.proxy.orders.quarantine import Quarantine, quarantining

A, B = "spiffe://e.example/agent/a", "spiffe://e.example/agent/b"
MONITOR = "spiffe://e.example/monitor/m"


class World:
    """A ledger that can be opened again, with who is in quarantine and what is approved."""

    def __init__(self, path: Path) -> None:
        self._path = path / "ledger.sqlite"
        self._signer = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))

    def open(self) -> World:
        self.store = SqliteStore(self._path)
        self.ledger = Ledger.open(self.store, "e.example/monitor/m", self._signer)
        self.changes: list[list[str]] = []
        self.quarantine = Quarantine(
            self.ledger, self.store, MONITOR, lambda: self.changes.append(self.quarantine.agents())
        )
        self.approvals = Approvals(self.ledger, self.store, MONITOR)
        self.demanded = DemandedHolds(self.ledger, self.store, MONITOR)
        return self

    async def again(self) -> World:
        await self.ledger.close()
        return self.open()

    async def entries(self) -> list[tuple[str, dict[str, Any]]]:
        await self.ledger.commit()
        entries = [json.loads(data) for _, data in self.store.entries()]
        return [(entry["action_type"], entry["action_parameters"]) for entry in entries]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_quarantine_is_told_written_down_and_kept(world: World) -> None:
    world.open().quarantine.put(A, "user:me", "strange", 7)
    world.quarantine.put(A, "user:other", "again")
    world.quarantine.put(B, "monitor", "x")
    world.quarantine.release(B, "user:me", "")
    assert world.changes == [[A], [A, B], [A]]
    assert await world.entries() == [
        ("agent_quarantine", {"agent": A, "by": "user:me", "why": "strange", "cause": 7}),
        ("agent_quarantine", {"agent": B, "by": "monitor", "why": "x"}),
        ("agent_release", {"agent": B, "by": "user:me", "why": ""}),
    ]
    before = world.quarantine.listed()
    await world.again()
    assert (world.quarantine.listed(), A in world.quarantine, B in world.quarantine) == (before, True, False)
    with pytest.raises(UsageError, match=r"agent/b is not in quarantine; spiffe://e.example/agent/a"):
        world.quarantine.release(B, "user:me", "")
    await world.ledger.close()


async def test_a_partner_of_whom_very_many_are_in_quarantine_is_in_it_as_a_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever it names next adds nothing; the own trust domain is left alone."""
    monkeypatch.setattr("lictor.proxy.orders.quarantine.MOST_OF_PARTNER", 3)
    partners = [f"spiffe://partner.example/agent/{n}" for n in range(4)]
    world.open()
    for n, agent in enumerate([*partners, *(f"spiffe://e.example/agent/{n}" for n in range(3))]):
        assert (agent in world.quarantine) == (agent == partners[3]), "after the third"
        world.quarantine.put(agent, "monitor", "x", n)
    assert partners[3] not in world.quarantine.agents()
    said = {p["agent"]: p.get("and_all_of") for _, p in await world.entries() if p["agent"] in partners}
    assert said == {partners[0]: None, partners[1]: None, partners[2]: "partner.example"}
    assert "spiffe://e.example/agent/other" not in world.quarantine
    world.quarantine.put(partners[3], "user:me", "by name")
    assert partners[3] in world.quarantine.agents(), "an order is an order"
    await world.again()
    assert "spiffe://partner.example/agent/new" in world.quarantine
    for agent in partners[:2]:
        world.quarantine.release(agent, "user:me", "")
    assert "spiffe://partner.example/agent/new" not in world.quarantine
    await world.ledger.close()


def held(*failed: str, agent: str = A, target: str = "urn:x") -> ActionDraft:
    behaviors = [{"policy_id": "urn:p", "behavior_id": name, "result": "fail"} for name in failed]
    behaviors.append({"policy_id": "urn:p", "behavior_id": "other", "result": "pass"})
    return ActionDraft(agent, "tool_call", target, {}, "hold", "not_in_allowlist", behaviors)


async def test_a_standing_approval_is_for_what_it_was_given_for(world: World) -> None:
    approvals = world.open().approvals
    number = approvals.give(held("b1", "b2"), "user:me", "reads only")
    yes = Resolution(True, "approved_always", "user:me")
    assert [approvals.resolution(one) for one in (held("b1"), held("b1", "b2"))] == [yes, yes]
    others = [held("b1", "b3"), held("b1", agent=B), held("b1", target="urn:y")]
    assert [approvals.resolution(one) for one in others] == [None] * 3
    await world.again()
    approvals = world.approvals
    assert approvals.resolution(held("b2")) == yes
    assert [(one["approval"], one["why"]) for one in approvals.listed()] == [(number, "reads only")]
    assert approvals.revoke(number, "user:you", "no more")["agent"] == A
    assert approvals.resolution(held("b1")) is None
    with pytest.raises(UsageError, match="there is no standing approval 0; there are: none"):
        approvals.revoke(number, "user:you", "")
    assert [kind for kind, _ in await world.entries()] == ["standing_approval", "standing_approval_revoked"]
    await world.ledger.close()


async def test_standing_approvals_are_bounded(world: World) -> None:
    approvals = world.open().approvals
    approvals._given = {n: {"agent": A, "action_type": "", "action_target": "", "behaviors": []} for n in range(MOST)}
    with pytest.raises(UsageError, match=f"there are {MOST} standing approvals already"):
        approvals.give(held("b1"), "user:me", "")
    await world.ledger.close()


class Nothing:
    """Memories that let everything pass as it is."""

    def idle(self, agent_id: str) -> bool:
        return True

    def judge(self, draft: ActionDraft, wid: str, now: float, depth: int | None = None, within: Within = ()) -> Judged:
        return Judged(draft)

    def admit(self, draft: InboundDraft, now: float) -> InboundDraft:
        return draft

    def take(self, entry: Any, seq: int, timestamp: float) -> None:
        pass


def bound(mode: str = "enforce") -> Any:
    document = {
        "policy_id": "urn:p",
        "evaluation_mode": "continuous",
        "mode": mode,
        "expected_behaviors": [
            {
                "behavior_id": name,
                "observable_actions": ["tool_call"],
                "compliance_criteria": {"type": "allowlist", "values": []},
                "on_violation": effect,
            }
            for name, effect in (("trap", "quarantine"), ("no", "deny"))
        ],
    }
    return (load_binding(json.dumps(document).encode(), "test"),)


def entry(behavior: str, result: str = "fail", decision: str = "deny") -> dict[str, Any]:
    behaviors = [{"policy_id": "urn:p", "behavior_id": behavior, "result": result}]
    return {"agent_id": A, "decision": decision, "reason": "not_in_allowlist", "behaviors": behaviors}


@pytest.fixture
def authority(world: World) -> Callable[..., Authority]:
    def make(mode: str = "enforce") -> Authority:
        world.open()
        return Authority(Nothing(), world.quarantine, world.demanded, world.approvals, bound(mode))  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(
    ("taken", "mode", "isolated"),
    [
        (entry("trap"), "enforce", True),
        (entry("no"), "enforce", False),
        (entry("trap", "pass"), "enforce", False),
        (entry("trap", "prevented"), "enforce", False),
        (entry("trap", decision="flag"), "enforce", False),
        (entry("trap"), "audit", False),
    ],
)
async def test_what_puts_an_agent_in_quarantine(
    world: World, authority: Any, taken: dict[str, Any], mode: str, isolated: bool
) -> None:
    made = authority(mode)
    made.take(taken, 3, 1.0)
    assert (A in world.quarantine) is isolated
    if isolated:
        assert (await world.entries())[0][1]["cause"] == 3
    await world.ledger.close()


async def test_everything_of_an_agent_in_quarantine_is_denied(world: World, authority: Any) -> None:
    made = authority()
    allowed = ActionDraft(A, "tool_call", "urn:x", {}, "allow", "allowed", [])
    assert (made.judge(allowed, "w", 1.0), made.idle(A)) == (Judged(allowed), True)
    world.quarantine.put(A, "user:me", "")
    judged = made.judge(allowed, "w", 1.0)
    assert (judged.draft.decision, judged.draft.reason, made.idle(A)) == ("deny", "quarantined", False)
    assert "operator" in judged.hint
    assert made.judge(held("b1"), "w", 1.0).draft.reason == "quarantined", "nothing of it waits"
    for agent, peer in ((A, B), (B, A)):
        refused = made.admit(InboundDraft(agent, peer, "urn:x", {}, "allow", "allowed"), 1.0)
        assert (refused.decision, refused.reason) == ("deny", "quarantined")
    assert (
        made.judge(ActionDraft(B, "tool_call", "urn:x", {}, "allow", "allowed", []), "w", 1.0).draft.decision == "allow"
    )
    await world.ledger.close()


def letting(
    agent: str = A, target: str = "urn:xx:tool", type_: str = "tool_call", decision: str = "allow"
) -> ActionDraft:
    return ActionDraft(agent, type_, target, {}, decision, "allowed", [])


async def test_a_demanded_hold_is_for_what_it_says(world: World, authority: Any) -> None:
    made = authority()
    world.demanded.put(
        A, "user:me", "odd", None, {"action_types": ["tool_call"], "targets": ["urn:xx:*"], "workflow": "w"}
    )

    def judged(draft: ActionDraft, wid: str = "w") -> tuple[str, str]:
        found = made.judge(draft, wid, 1.0).draft
        return found.decision, found.reason

    assert (made.idle(A), made.idle(B)) == (False, True)
    assert judged(letting()) == ("hold", "hold_demanded")
    assert judged(letting(decision="flag")) == ("hold", "hold_demanded")
    for other in (letting(B), letting(target="urn:y"), letting(type_="delegation")):
        assert judged(other) == ("allow", "allowed")
    assert judged(letting(), "other") == ("allow", "allowed")
    assert judged(letting(decision="deny")) == ("deny", "allowed")
    world.quarantine.put(A, "user:me", "")
    assert judged(letting()) == ("deny", "quarantined")
    await world.ledger.close()


async def test_no_standing_approval_answers_a_demand(world: World, authority: Any) -> None:
    made = authority()
    world.approvals.give(held("b1"), "user:me", "")
    assert made.judge(held("b1"), "w", 1.0).resolution is not None
    world.demanded.put(A, "user:me", "", None, {})
    for draft, reason in ((held("b1"), "not_in_allowlist"), (letting(), "hold_demanded")):
        judged = made.judge(draft, "w", 1.0)
        assert (judged.draft.decision, judged.draft.reason, judged.resolution) == ("hold", reason, None)
    await world.ledger.close()


async def test_what_a_caller_hands_over_may_be_held_too(world: World, authority: Any) -> None:
    made = authority()
    parent = {"jti": "j", "wid": "w", "agent_id": "spiffe://e.example/agent/c"}
    came = InboundDraft(A, B, "urn:me", {}, "allow", "allowed", wid="w", parents=[parent])
    assert made.admit(came, 1.0) == came
    world.demanded.put(B, "user:me", "", None, {"action_types": ["delegation"]})
    judged = made.admit(came, 1.0)
    assert (judged.draft.agent_id, judged.draft.decision, judged.draft.reason) == (B, "hold", "hold_demanded")
    assert judged.draft.action_parameters["callee"] == A
    world.demanded.take_back(B, None, "user:me", "")
    assert made.admit(came, 1.0) == came
    await world.ledger.close()


async def test_demanded_holds_are_written_down_kept_and_end(world: World) -> None:
    demanded = world.open().demanded
    first = demanded.put(A, "user:me", "odd", 10.0, {"action_types": ["tool_call"]}).said
    second = demanded.put(A, "user:me", "", None, {}).said
    assert first["until"] == pytest.approx(first["since"] + 10, abs=0.1)
    await world.again()
    demanded = world.demanded
    assert demanded.listed() == [first, second]
    demanded.expire(first["until"] - 1)
    assert len(demanded.listed()) == 2
    demanded.expire(first["until"])
    assert demanded.listed() == [second]
    with pytest.raises(UsageError, match=rf"no hold 99 of {A} is in force; there are: {second['hold']}"):
        demanded.take_back(A, 99, "user:me", "")
    assert demanded.take_back(A, second["hold"], "user:you", "fine") == [second]
    assert A not in demanded
    with pytest.raises(UsageError, match="there are: none"):
        demanded.take_back(A, None, "user:me", "")
    kinds = await world.entries()
    assert [kind for kind, _ in kinds] == ["hold_demanded", "hold_demanded", "hold_ended", "hold_ended"]
    assert kinds[2][1] == {"hold": first["hold"], "agent": A, "by": "monitor", "why": "its time is up"}
    assert kinds[3][1] == {"hold": second["hold"], "agent": A, "by": "user:you", "why": "fine"}
    await world.ledger.close()


async def test_the_same_hold_twice_is_one(world: World) -> None:
    """The same limits, by the same: it stays as it was, unless it shall last longer; then it goes on as another."""
    demanded = world.open().demanded
    few, many = {"action_types": ["tool_call", "delegation"]}, {"action_types": ["delegation", "tool_call"]}
    first = demanded.put(A, "user:me", "odd", 10.0, few).said
    assert demanded.put(A, "user:me", "again", 5.0, many).said == first
    others = [
        demanded.put(*one).said
        for one in (
            (A, "user:you", "", 5.0, few),
            (A, "user:me", "", 5.0, {}),
            (A, "user:me", "", 5.0, {**few, "workflow": "w"}),
            (A, "user:me", "", 5.0, {**few, "targets": ["urn:test:x"]}),
            (B, "user:me", "", 5.0, few),
        )
    ]
    assert demanded.listed() == [first, *others]
    longer = demanded.put(A, "user:me", "longer", 20.0, many).said
    for_ever = demanded.put(A, "user:me", "for ever", None, few).said
    assert demanded.put(A, "user:me", "", 60.0, few).said == demanded.put(A, "user:me", "", None, few).said == for_ever
    await world.again()
    assert world.demanded.listed() == [*others, for_ever]
    kinds = [(kind, said["hold"], said["why"]) for kind, said in await world.entries() if kind == "hold_ended"]
    assert kinds == [
        ("hold_ended", first["hold"], f"it goes on as hold {longer['hold']}"),
        ("hold_ended", longer["hold"], f"it goes on as hold {for_ever['hold']}"),
    ]
    await world.ledger.close()


async def test_a_hold_is_over_when_its_time_is_up_and_not_only_when_that_is_written(world: World) -> None:
    demanded = world.open().demanded
    until = demanded.put(A, "user:me", "", 10.0, {}).said["until"]
    assert demanded.covers(A, "tool_call", "urn:x", "w", until - 0.1)
    assert not demanded.covers(A, "tool_call", "urn:x", "w", until)
    await world.ledger.close()


async def test_demanded_holds_are_bounded_and_their_patterns_are_read_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demanded_holds, "MOST", 1)
    demanded = world.open().demanded
    with pytest.raises(UsageError):
        demanded.put(A, "user:me", "", None, {"targets": ["https://"]})
    demanded.put(A, "user:me", "", 10.0, {})
    with pytest.raises(UsageError, match="there are 1 demanded holds already"):
        demanded.put(B, "user:me", "", None, {})
    assert len(await world.entries()) == 1
    demanded.put(A, "user:me", "", None, {})
    assert len(demanded.listed()) == 1, "it takes no more room"
    await world.ledger.close()


async def test_other_bindings_say_what_calls_for_it(world: World, authority: Any) -> None:
    made = authority()
    assert quarantining(bound()) == {("urn:p", "trap")}
    made.put_in_force(bound("audit"))
    made.take(entry("trap"), 3, 1.0)
    assert A not in world.quarantine
    await world.ledger.close()
