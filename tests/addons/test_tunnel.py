"""A tunnel that is not intercepted is one action, judged by names that must agree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flows import FakeControl, make_flow, run

from lictor.addons.exchange import Exchange, attach, permitted
from lictor.addons.open_exchanges import OpenExchanges
from lictor.addons.outcome import Outcome
from lictor.addons.tunnel import Tunnels
from lictor.bindings.catalog import Catalog
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.bindings.target import Target
from lictor.engine.problem import Problem
from lictor.engine.tunnel_layer import Tunnel
from lictor.evidence.entry import Receipt
from lictor.formats.errors import LictorError, VerificationError

AGENT = "spiffe://x.test/agent/a"
URN = "urn:test:tool:pinned"
CATALOG = Catalog([Target(URN, "tool", ("https://pinned.example/**", "https://192.0.2.1/**"), passthrough=True)])


def policy(*values: str, catalog: Catalog = CATALOG) -> Policy:
    document = {
        "policy_id": "urn:test:policy",
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {
                "behavior_id": "b",
                "observable_actions": ["tunnel"],
                "compliance_criteria": {"type": "allowlist", "values": list(values)},
            }
        ],
    }
    return Policy([load_binding(json.dumps(document).encode(), "test")], catalog)


class Known:
    revoked = False

    def peer(self, client: object) -> None:
        if self.revoked:
            raise VerificationError("revoked")


class Connect:
    """One CONNECT that was answered with 200."""

    def __init__(self, control: FakeControl, rules: Policy, host: str = "pinned.example") -> None:
        self.control, self.known, self.rules = control, Known(), rules
        self.open = OpenExchanges(lambda: self.rules, lambda client: None, control.withdraw)
        identify: Any = self.known
        self.addon = Tunnels(lambda: self.rules, identify, control, Outcome(control, self.open), self.open)
        self.flow = make_flow("CONNECT", "", host=host, scheme="", authority=f"{host}:443")
        self.exchange = Exchange(AGENT, False, "https", host, 443, "/", "", salt=b"salt")
        attach(self.flow, self.exchange)
        self.tunnel = Tunnel(None, self.flow)  # type: ignore[arg-type]

    async def hello(self, name: str | None, problem: Problem | None = None) -> bool:
        self.tunnel.server_name, self.tunnel.problem = name, problem
        await run(self.addon.tunnel_opening(self.tunnel))
        return permitted(self.flow)


async def test_allowed(control: FakeControl) -> None:
    connect = Connect(control, policy(URN))
    assert await connect.hello("pinned.example")
    (entry,) = control.drafts
    assert (entry.action_type, entry.action_target, entry.decision) == ("tunnel", URN, "allow")
    assert entry.action_parameters == {"host": "pinned.example", "port": 443}
    assert len(connect.open) == 1


async def test_the_permit_is_for_this_tunnel_only(control: FakeControl) -> None:
    connect = Connect(control, policy(URN))
    assert await connect.hello("pinned.example")
    for scheme, host, port in (("https", "pinned.example", 443), ("", "other.example", 443), ("", "pinned.example", 1)):
        flow = make_flow(host=host, port=port, scheme=scheme or "https")
        flow.request.data.scheme = scheme.encode()
        attach(flow, connect.exchange)
        assert not permitted(flow)


@pytest.mark.parametrize("name", [None, "", "other.example", "pinned.example.", "www.pinned.example"])
async def test_another_name(control: FakeControl, name: str | None) -> None:
    connect = Connect(control, policy(URN))
    assert not await connect.hello(name)
    assert [(d.decision, d.reason) for d in control.drafts] == [("deny", "name_mismatch")]
    assert len(connect.open) == 0


@pytest.mark.parametrize(("name", "good"), [("", True), ("192.0.2.1", False), ("pinned.example", False)])
async def test_an_address_has_no_name(control: FakeControl, name: str, good: bool) -> None:
    assert await Connect(control, policy(URN), "192.0.2.1").hello(name) is good


@pytest.mark.parametrize("reason", ["not_tls", "encrypted_name"])
async def test_what_cannot_be_judged(control: FakeControl, reason: str) -> None:
    assert not await Connect(control, policy(URN)).hello(None, Problem(reason, "why"))
    assert [(d.decision, d.reason) for d in control.drafts] == [("deny", reason)]


async def test_denied_by_rules_that_came_into_force_since_the_connect(control: FakeControl) -> None:
    connect = Connect(control, policy("urn:test:other"))
    assert not await connect.hello("pinned.example")
    assert [(d.decision, d.reason) for d in control.drafts] == [("deny", "not_in_allowlist")]
    assert connect.exchange.refused


async def test_denied_by_the_control_process_or_not_recorded(control: FakeControl, monkeypatch: Any) -> None:
    monkeypatch.setattr(control, "answer", lambda draft: LictorError("no answer"))
    connect = Connect(control, policy(URN))
    assert not await connect.hello("pinned.example")
    assert connect.exchange.receipts == ()


async def test_a_denial_here_is_not_undone_by_a_receipt(control: FakeControl, monkeypatch: Any) -> None:
    monkeypatch.setattr(control, "answer", lambda draft: Receipt(0, 1.0, "allow", "allowed", "w", "n"))
    assert not await Connect(control, policy(URN)).hello("other.example")


async def test_revoked_since_the_connect(control: FakeControl) -> None:
    connect = Connect(control, policy(URN))
    connect.known.revoked = True
    assert not await connect.hello("pinned.example")
    assert control.drafts == []


@pytest.mark.parametrize("what", ["no exchange", "opened already", "intercepted by now"])
async def test_what_cannot_be(control: FakeControl, what: str) -> None:
    """The dispatcher cuts the connection of a hook that raises."""
    connect = Connect(control, policy(URN))
    if what == "no exchange":
        connect.flow.metadata.clear()
    elif what == "opened already":
        connect.exchange.permit = ("", "pinned.example", 443)
    else:
        connect.rules = policy(URN, catalog=Catalog(()))
    with pytest.raises(ValueError, match="a tunnel"):
        connect.addon.tunnel_opening(connect.tunnel)


@pytest.mark.parametrize(
    ("closed_by", "error", "ended_by", "expected"),
    [
        ("client", "", None, (True, None, "client")),
        ("server", "", None, (True, None, "server")),
        ("client", "", "policy_changed", (False, "policy_changed", "monitor")),
        (None, "connection refused", None, (False, "connection refused", None)),
    ],
)
async def test_the_end(control: FakeControl, closed_by: Any, error: str, ended_by: Any, expected: Any) -> None:
    connect = Connect(control, policy(URN))
    await connect.hello("pinned.example")
    connect.tunnel.passed.update(out=10, **{"in": 20})
    connect.tunnel.closed_by, connect.tunnel.error, connect.exchange.ended_by = closed_by, error, ended_by
    connect.addon.tunnel_ended(connect.tunnel)
    (outcome,) = (o.outcome for o in control.outcomes)
    assert (outcome["complete"], outcome.get("error"), outcome.get("closed_by")) == expected
    assert (outcome["request_bytes"], outcome["response_bytes"]) == (10, 20)
    assert not any(name.endswith("digest") for name in outcome)
    assert len(connect.open) == 0


async def test_the_end_of_what_was_not_opened(control: FakeControl) -> None:
    connect = Connect(control, policy(URN))
    connect.addon.tunnel_ended(connect.tunnel)
    assert control.outcomes == []
