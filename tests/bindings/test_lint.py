"""What a review of bindings finds, and what it leaves alone."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.bindings.catalog import Catalog, Target
from lictor.bindings.lint import MAX_OF_A_LIST, lint
from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.formats.cosignature import Witness

H = "https://h.example"
MCP, DATA, PEER = "urn:e1:tool:mcp", "urn:e1:ds:data", "urn:e1:agent:b"
MODEL, GRAPH = "urn:e1:model:o", "urn:e1:tool:graph"
CATALOG = Catalog(
    [
        Target(MCP, "tool", ("https://mcp.example/**",), "mcp"),
        Target(DATA, "data_source", ("https://data.example/**",)),
        Target(PEER, "agent", ("https://b.example/**",), "a2a"),
        Target(MODEL, "model", ("https://o.example/**",), "openai"),
        Target(GRAPH, "tool", ("https://g.example/graphql",), "graphql"),
    ]
)


def behavior(kind: str, name: str = "", types: str = "http_request", **more: Any) -> dict[str, Any]:
    outer = {key: more.pop(key) for key in ("targets", "on_violation") if key in more}
    criteria = {"type": kind, **more}
    return {
        "behavior_id": name or kind,
        "observable_actions": types.split(),
        "compliance_criteria": criteria,
        **outer,
    }


def allow(*values: str, **more: Any) -> dict[str, Any]:
    return behavior("allowlist", values=list(values), **more)


def deny(*values: str, **more: Any) -> dict[str, Any]:
    return behavior("denylist", values=list(values), **more)


def bound(*behaviors: dict[str, Any], name: str = "p", **more: Any) -> Binding:
    document = {
        "policy_id": f"urn:policy:{name}",
        "evaluation_mode": "continuous",
        "expected_behaviors": list(behaviors),
        **more,
    }
    return load_binding(json.dumps(document).encode(), name)


def rate(**more: Any) -> dict[str, Any]:
    return behavior("rate", limit=1, period_s=1, **more)


VALUES = "$.expected_behaviors[0].compliance_criteria.values"


@pytest.mark.parametrize(
    ("behaviors", "kind", "where"),
    [
        ([allow(f"{H}/a/*", f"{H}/a/b")], "shadowed", f"{VALUES}[1]"),
        ([allow(f"{H}/a", f"{H}:443/a")], "duplicate", f"{VALUES}[1]"),
        ([allow("urn:e1:t#tools/*", "urn:e1:t#tools/x", types="tool_call")], "shadowed", f"{VALUES}[1]"),
        ([allow(f"{H}/a", targets=[f"{H}/**", f"{H}/a"])], "shadowed", "$.expected_behaviors[0].targets[1]"),
        ([allow("https://*.h.example/**")], "broad", f"{VALUES}[0]"),
        ([allow("urn:e1:tool:*", types="tool_call")], "broad", f"{VALUES}[0]"),
        ([allow(f"{H}/a/b", f"{H}/c"), deny(f"{H}/a/**")], "unreachable", f"{VALUES}[0]"),
        ([allow(f"{H}/a", f"{H}/b", targets=[f"{H}/a"])], "unreachable", f"{VALUES}[1]"),
        ([allow(f"{H}/a", name="x"), allow(f"{H}/b", name="y")], "disjoint", "$.expected_behaviors[1]"),
        ([deny(f"{H}/a")], "opens", "$.expected_behaviors[0]"),
        ([rate()], "opens", "$.expected_behaviors[0]"),
        ([rate(types="tool_call"), allow(f"{H}/a")], "opens", "$.expected_behaviors[0]"),
        ([rate(), allow(f"{H}/a", targets=[f"{H}/**"])], "opens", "$.expected_behaviors[0]"),
        ([rate(), allow(f"{H}/a", on_violation="flag")], "opens", "$.expected_behaviors[0]"),
        (
            [
                behavior(
                    "sequence",
                    scope="agent",
                    never_after=[DATA],
                    targets=[f"{H}/x"],
                    **{"except": ["https://*.i.example/**"]},
                ),
                allow(f"{H}/x"),
            ],
            "broad",
            "$.expected_behaviors[0].compliance_criteria.except[0]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." not in value else "",
)
def test_what_is_found(behaviors: list[dict[str, Any]], kind: str, where: str) -> None:
    assert [(f.kind, f.where) for f in lint([bound(*behaviors)])] == [(kind, where)]


@pytest.mark.parametrize(
    "behaviors",
    [
        [allow(f"{H}/**")],
        [allow(f"{H}/a/*", f"{H}/a/*/c", f"{H}/a/")],
        [allow("urn:e1:t", "urn:e1:t#tools/*", types="tool_call")],
        [allow(f"{H}/a", f"{H}/a/**"), deny(f"{H}/a/b")],
        [allow(f"{H}/a"), deny(f"{H}/**", on_violation="flag")],
        [allow(f"{H}/a"), deny(f"{H}/a", targets=[f"{H}/b"])],
        [allow(f"{H}/a", types="http_request tool_call"), deny(f"{H}/a")],
        [allow(f"{H}/a*", name="x"), allow(f"{H}/*b", name="y")],
        [allow(f"{H}/a", name="x"), allow(f"{H}/b", name="y", targets=[f"{H}/b"])],
        [rate(targets=[f"{H}/a/x"]), allow(f"{H}/a/*", targets=[f"{H}/a/**"])],
    ],
)
def test_what_is_left_alone(behaviors: list[dict[str, Any]]) -> None:
    assert lint([bound(*behaviors)]) == []


@pytest.mark.parametrize(
    ("count", "quorum", "found"),
    [
        (1, 1, False),
        (2, 1, True),
        (2, 2, False),
        (3, 1, True),
        (3, 2, False),
        (4, 2, True),
        (5, 3, False),
        (4, None, False),
    ],
)
def test_so_few_witnesses_that_two_histories_could_have_enough(count: int, quorum: int | None, found: bool) -> None:
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key() for number in range(count)]
    asked: dict[str, Any] = {"keys": [str(Witness("w.example", key)) for key in keys]}
    if quorum is not None:
        asked["quorum"] = quorum
    asks = behavior("delegation", types="delegation", incoming={"witnesses": asked})
    where = "$.expected_behaviors[0].compliance_criteria.incoming.witnesses.quorum"
    said = [(f.kind, f.where) for f in lint([bound(asks, allow(PEER, types="delegation"))])]
    assert said == ([("split", where)] if found else [])


def test_bindings_in_force_together_are_looked_at_together() -> None:
    allows, denies = bound(allow(f"{H}/a"), name="p"), bound(deny(f"{H}/**"), name="q")
    assert {(f.policy_id, f.kind) for f in lint([allows, denies])} == {("urn:policy:p", "unreachable")}
    agent, other = "spiffe://e.example/agent/a", "spiffe://e.example/agent/b"
    elsewhere = bound(deny(f"{H}/**"), allow(f"{H}b/x"), name="q", subjects=[other])
    assert [f.kind for f in lint([bound(allow(f"{H}/a"), name="p", subjects=[agent]), elsewhere])] == []
    within = bound(allow(f"{H}/a"), name="p", subjects=[agent])
    above = bound(deny(f"{H}/**"), name="q", subjects=["spiffe://e.example/agent/*"])
    assert "unreachable" in {f.kind for f in lint([within, above])}


def test_an_audit_binding_denies_nothing() -> None:
    audit = bound(deny(f"{H}/**"), name="q", mode="audit")
    assert lint([bound(allow(f"{H}/a")), audit]) == []


@pytest.mark.parametrize(
    ("value", "types", "text"),
    [
        ("urn:e1:tool:mpc", "tool_call", "is not in the catalog, did you mean urn:e1:tool:mcp?"),
        ("urn:e1:tool:mcp2#tools/x", "tool_call", "is not in the catalog"),
        (f"{MCP}#tools/x", "data_source_access", "never looked at: it is a target of tool_call"),
        ("https://data.example/x", "http_request", f"matches nothing: the catalog knows this address as {DATA}"),
        (f"{DATA}#rows", "data_source_access", "speaks http and has nothing inside"),
        (f"{PEER}#tasks/*", "delegation", "speaks a2a and has nothing inside"),
        (f"{MODEL}#model/small", "model_inference", "speaks openai and has inside only what begins with models/ or /"),
        (f"{MODEL}#small*", "model_inference", "has inside only"),
        (f"{GRAPH}#user", "tool_call", "has inside only what begins with query/ or mutation/"),
    ],
)
def test_values_that_the_catalog_does_not_know(value: str, types: str, text: str) -> None:
    binding = bound(allow(value, types=types))
    (found,) = lint([binding], CATALOG)
    assert (found.kind, text in found.text) == ("unknown_target", True)
    assert lint([binding]) == []


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (f"{MCP}#anything", "tool_call"),
        (f"{MODEL}#models/small", "model_inference"),
        (f"{MODEL}#mod*", "model_inference"),
        (f"{MODEL}#*", "model_inference"),
        (f"{MODEL}#/v1/files", "model_inference"),
        (f"{GRAPH}#query/user", "tool_call"),
        (f"{GRAPH}#persisted/*", "tool_call"),
    ],
)
def test_values_that_something_inside_can_have(value: str, types: str) -> None:
    assert lint([bound(allow(value, types=types))], CATALOG) == []


def test_of_its_own_agent_the_monitor_knows_the_paths() -> None:
    card = bound(allow(f"{PEER}#/.well-known/agent-card.json", types="http_request"))
    assert lint([card], CATALOG, PEER) == []


def test_values_that_the_catalog_knows() -> None:
    values = [MCP, f"{MCP}#tools/*", DATA, PEER, "https://b.example/card", "https://free.example/x", "urn:e1:me#/x"]
    binding = bound(allow(*values, types="tool_call data_source_access delegation http_request"))
    assert lint([binding], CATALOG, "urn:e1:me") == []


def test_a_long_list_is_looked_through_quickly_and_reported_shortly() -> None:
    values = [f"{H}/a/{i}" for i in range(20_000)] + [f"{H}/b*c{i}/**" for i in range(20_000)] + [f"{H}/a/*"]
    began = time.perf_counter()
    found = lint([bound(allow(*values, name="x"), allow(*values, name="y"))])
    assert time.perf_counter() - began < 20
    assert [f.kind for f in found[:2]] == ["shadowed", "shadowed"]
    assert len(found) == 2 * (MAX_OF_A_LIST + 1)
    assert found[MAX_OF_A_LIST].text == f"{20_000 - MAX_OF_A_LIST} more like these"
