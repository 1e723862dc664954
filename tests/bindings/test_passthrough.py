"""Targets whose tunnels are not intercepted: alone on their authority, one action each, of one type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import classify
from lictor.bindings.facts import RequestFacts
from lictor.bindings.lint import lint
from lictor.bindings.model import ActionType
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.bindings.target import Target
from lictor.formats.errors import UsageError

AGENT = "spiffe://x.test/agent/a"
PINNED = Target(
    "urn:example:tool:pinned",
    "tool",
    ("https://pinned.example/**", "https://pinned.example:8443/**"),
    passthrough=True,
)
OTHER = Target("urn:example:tool:other", "tool", ("https://other.example/**",))
CATALOG = Catalog([PINNED, OTHER])


def changed(**change: Any) -> Target:
    fields: dict[str, Any] = {"urn": "urn:example:x", "kind": "tool", "match": ("https://x.example/**",)} | change
    return Target(**fields, passthrough=True)


def policy(type_: str, *values: str) -> Policy:
    document = {
        "policy_id": "urn:test:policy",
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {
                "behavior_id": "b",
                "observable_actions": [type_],
                "compliance_criteria": {"type": "allowlist", "values": list(values)},
            }
        ],
    }
    return Policy([load_binding(json.dumps(document).encode(), "test")], CATALOG)


def test_found_by_its_authority() -> None:
    assert CATALOG.passthrough("pinned.example", 443) is PINNED
    assert CATALOG.passthrough("pinned.example", 8443) is PINNED
    assert CATALOG.passthrough("pinned.example", 80) is None
    assert CATALOG.passthrough("other.example", 443) is None
    assert CATALOG.passthrough("unknown.example", 443) is None


@pytest.mark.parametrize(
    "target",
    [
        changed(match=("https://x.example/",)),
        changed(match=("https://x.example/api/**",)),
        changed(match=("https://*.x.example/**",)),
        changed(match=("http://x.example/**",)),
        changed(match=("https://x.example/**", "https://x.example/api")),
        changed(protocol="mcp"),
        changed(kind="agent", protocol="a2a"),
        changed(kind="agent", agent_id="spiffe://x.test/agent/b"),
        changed(ca=Path("ca.pem")),
        changed(client_cert=Path("cert.pem"), client_key=Path("key.pem")),
    ],
    ids=["root only", "a path", "a wildcard", "http", "a path besides", "mcp", "a2a", "agent", "ca", "client_cert"],
)
def test_what_does_not_go_with_it(target: Target) -> None:
    with pytest.raises(UsageError, match="passthrough"):
        Catalog([target])


@pytest.mark.parametrize(
    "match",
    [
        "https://pinned.example/api/**",
        "https://pinned.example:8443/x",
        "https://*.example/**",
        "http://pinned.example:443/",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_no_other_target_is_on_its_authority(match: str, first: bool) -> None:
    if match.startswith("https://*."):
        match = "https://*.pinned.example/**"
        pinned = changed(match=("https://eu.pinned.example/**",))
    else:
        pinned = PINNED
    other = Target("urn:example:tool:besides", "tool", (match,))
    with pytest.raises(UsageError, match="authority of its own"):
        Catalog([pinned, other] if first else [other, pinned])


@pytest.mark.parametrize("kind", ["tool", "data_source", "model", "agent"])
def test_every_kind_is_a_tunnel(kind: Any) -> None:
    assert changed(kind=kind).action_type is ActionType.TUNNEL


def test_connect_is_judged_as_a_tunnel_and_as_nothing_else() -> None:
    place = ("pinned.example", 443)
    assert policy("tunnel", PINNED.urn).judge_authority(AGENT, *place) is None
    for type_, value in (
        ("tool_call", PINNED.urn),
        ("http_request", "https://pinned.example/**"),
        ("tunnel", OTHER.urn),
    ):
        assert policy(type_, value).judge_authority(AGENT, *place) is not None
    assert policy("tunnel", OTHER.urn).judge_authority(AGENT, "other.example", 443) is not None


def test_explained_as_a_tunnel() -> None:
    facts = RequestFacts("POST", "https", "pinned.example", 443, "/x", body=b"not JSON")
    for reads in ("target", "query", "body"):
        (action,) = classify(CATALOG, facts, reads)  # type: ignore[arg-type]
        assert (action.type, action.target) == (ActionType.TUNNEL, PINNED.urn)
        assert action.parameters == action.content == {"host": "pinned.example", "port": 443}


def test_what_messages_carry_is_read_only_where_a_behavior_asks() -> None:
    asks = policy("websocket_message", "urn:example:y")
    assert not asks.reads_of(AGENT, ActionType.WEBSOCKET_MESSAGE)
    document = json.loads(json.dumps(asks.bindings[0].document))
    document["expected_behaviors"][0]["compliance_criteria"] = {"type": "pattern", "parameters": {"/json/op": "list"}}
    reading = Policy([load_binding(json.dumps(document).encode(), "test")], CATALOG)
    assert reading.reads_of(AGENT, ActionType.WEBSOCKET_MESSAGE)
    assert not reading.reads_of(AGENT, ActionType.TOOL_CALL)


@pytest.mark.parametrize(
    ("type_", "urn", "warned"),
    [
        ("tunnel", PINNED.urn, False),
        ("tool_call", PINNED.urn, True),
        ("websocket_message", PINNED.urn, True),
        ("tunnel", OTHER.urn, True),
        ("websocket_message", OTHER.urn, False),
    ],
)
def test_check_knows_what_can_be_done_to_a_target(type_: str, urn: str, warned: bool) -> None:
    found = lint(policy(type_, urn).bindings, CATALOG)
    assert [one.kind for one in found] == (["unknown_target"] if warned else [])
