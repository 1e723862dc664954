"""Orders: what makes no sense is refused with what would, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence.entry import ActionDraft
from lictor.evidence.held import Holds
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.proxy.orders.approvals import Approvals
from lictor.proxy.orders.catalogue import Order, decided
from lictor.proxy.orders.decisions import Decisions
from lictor.proxy.orders.quarantine import Quarantine

A, MONITOR = "spiffe://e.example/agent/a", "spiffe://e.example/monitor/m"


class World:
    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path / "ledger.sqlite")
        signer = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
        self.ledger = Ledger.open(self.store, "e.example/monitor/m", signer)
        self.holds = Holds(self.ledger)
        quarantine = Quarantine(self.ledger, self.store, MONITOR, lambda: None)
        approvals = Approvals(self.ledger, self.store, MONITOR)
        self.orders: Any = decided(Decisions(self.ledger, quarantine, self.holds, approvals))

    async def give(self, name: str, **arguments: Any) -> Any:
        order: Order = self.orders[name]
        return await order(arguments, "user:me")

    def hold(self) -> int:
        behaviors = [{"policy_id": "urn:p", "behavior_id": "b", "result": "fail"}]
        draft = ActionDraft(A, "tool_call", "urn:x", {}, "hold", "not_in_allowlist", behaviors)
        stamped = self.ledger.add({"agent_id": A})
        self.holds.add(stamped, draft, None)
        return stamped.seq


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.ledger.close()


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("quarantine", {}, "the order quarantine takes agent, why"),
        ("quarantine", {"agent": A, "by": "user:root"}, "the order quarantine takes agent, why"),
        ("quarantine", {"agent": "a"}, "expected the SPIFFE ID of an agent, found 'a'"),
        ("quarantine", {"agent": 1}, "expected the SPIFFE ID of an agent, found 1"),
        ("quarantine", {"agent": A, "why": "x" * 501}, "why: expected at most 500 printable characters"),
        ("quarantine", {"agent": A, "why": "\x1b[2J"}, "why: expected at most 500 printable characters"),
        ("release", {"agent": A}, "agent/a is not in quarantine; nobody is"),
        ("waiting", {"a": 1}, "the order waiting takes nothing"),
        ("decide", {"seq": 0}, "the order decide takes seq, allow, always, why"),
        ("decide", {"seq": 9, "allow": True}, "no action waits with entry 9; those that wait: 0"),
        ("decide", {"seq": "0", "allow": True}, "seq: expected the number of an entry, found '0'"),
        ("decide", {"seq": True, "allow": True}, "seq: expected the number of an entry, found True"),
        ("decide", {"seq": 0, "allow": "yes"}, "allow: expected true or false, found 'yes'"),
        ("decide", {"seq": 0, "allow": True, "always": 1}, "always: expected true or false, found 1"),
        ("decide", {"seq": 0, "allow": False, "always": True}, "an action is denied once"),
        ("revoke", {"approval": 5}, "there is no standing approval 5; there are: none"),
    ],
)
async def test_what_makes_no_sense(world: World, name: str, arguments: dict[str, Any], text: str) -> None:
    world.hold()
    with pytest.raises(UsageError, match=text):
        await world.give(name, **arguments)
    assert (await world.give("quarantined"), len(await world.give("waiting"))) == ([], 1)
    await world.ledger.commit()
    assert len(list(world.store.entries())) == 1


async def test_what_waits_is_shown_with_what_a_person_needs(world: World) -> None:
    seq = world.hold()
    [one] = await world.give("waiting")
    assert one.pop("waiting_s") >= 0
    assert one.pop("since") > 0
    assert one == {
        "seq": seq,
        "agent": A,
        "action_type": "tool_call",
        "action_target": "urn:x",
        "action_parameters": {},
        "reason": "not_in_allowlist",
        "behaviors": [{"policy_id": "urn:p", "behavior_id": "b"}],
    }


async def test_always_gives_a_standing_approval(world: World) -> None:
    done = await world.give("decide", seq=world.hold(), allow=True, always=True, why="reads only")
    assert (done["allowed"], done["by"]) == (True, "user:me")
    [standing] = await world.give("standing")
    assert (standing["approval"], standing["by"], standing["why"]) == (done["approval"], "user:me", "reads only")
    entry = json.loads(list(world.store.entries())[done["approval"]][1])
    assert entry["action_type"] == "standing_approval"
    assert await world.give("revoke", approval=done["approval"]) == standing
    assert await world.give("standing") == []


async def test_an_order_of_quarantine_is_durable_when_it_is_answered(world: World) -> None:
    said = await world.give("quarantine", agent=A)
    assert (said["agent"], said["why"], said["by"]) == (A, "ordered", "user:me")
    assert len(list(world.store.entries())) == said["entry"] + 1
    assert await world.give("quarantined") == [said]
