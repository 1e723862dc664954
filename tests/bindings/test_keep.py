"""What is kept of an action's content: what was asked for, less what was redacted, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lictor.bindings.catalog import Catalog, Target
from lictor.bindings.keep import MAX_KEPT, MAX_VALUE, Keep, keep
from lictor.bindings.model import Action, ActionType
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.formats.errors import UsageError

AGENT, URN = "spiffe://a.test/agent/a", "urn:test:tool:mcp"
CONTENT = {
    "method": "POST",
    "query": {"page": "2"},
    "arguments": {
        "user": {"name": "Ada", "password": "s3cret", "tags": ["x", "y"], "empty": {}},
        "rows": [{"id": 1, "pin": "1"}, {"id": 2, "pin": "2"}],
        "a/b": {"~": True},
        "none": None,
    },
}


@pytest.mark.parametrize(
    ("values", "redact", "expected"),
    [
        (["/arguments/user/name"], [], {"/arguments/user/name": "Ada"}),
        (["/arguments/none"], [], {"/arguments/none": None}),
        (["/arguments/missing"], [], {}),
        (["/arguments/use"], [], {}),
        (["/arguments/user/name/x"], [], {}),
        (["/arguments/rows/1/id"], [], {"/arguments/rows/1/id": 2}),
        (["/arguments/rows/*/id"], [], {"/arguments/rows/0/id": 1, "/arguments/rows/1/id": 2}),
        (["/arguments/a~1b/~0"], [], {"/arguments/a~1b/~0": True}),
        (["/query"], [], {"/query/page": "2"}),
        (["/arguments/user/empty"], [], {"/arguments/user/empty": {}}),
        (
            ["/arguments/user"],
            ["/arguments/user/password", "/arguments/user/tags"],
            {"/arguments/user/name": "Ada", "/arguments/user/empty": {}},
        ),
        (["/arguments/rows"], ["/arguments/*/*/pin"], {"/arguments/rows/0/id": 1, "/arguments/rows/1/id": 2}),
        (["/arguments/user"], ["/arguments"], {}),
    ],
)
def test_what_is_kept(values: list[str], redact: list[str], expected: dict[str, Any]) -> None:
    kept = keep([Keep({"values": values, **({"redact": redact} if redact else {})})], CONTENT)
    assert dict(kept.values) == expected
    assert kept.omitted == 0


def test_what_one_redacts_no_other_keeps() -> None:
    rules = [Keep({"values": ["/arguments/user"]}), Keep({"values": ["/query"], "redact": ["/arguments/*/password"]})]
    kept = dict(keep(rules, CONTENT).values)
    assert "/arguments/user/name" in kept
    assert "s3cret" not in kept.values()


def test_too_many_and_too_long_values_are_counted() -> None:
    content = {"arguments": {"long": "x" * MAX_VALUE, **{f"n{n}": n for n in range(MAX_KEPT + 5)}}}
    kept = keep([Keep({"values": ["/arguments"]})], content)
    assert (len(kept.values), kept.omitted) == (MAX_KEPT, 6)


def document(**behavior: Any) -> bytes:
    one = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "allowlist", "values": ["urn:test:tool:*"]},
        **behavior,
    }
    binding = {"policy_id": "urn:p", "version": "1.0.0", "evaluation_mode": "continuous", "expected_behaviors": [one]}
    return json.dumps(binding).encode()


@pytest.mark.parametrize(
    ("keep_", "message"),
    [
        ({"values": ["arguments"]}, r"keep: 'arguments' is not a JSON Pointer"),
        ({"values": ["/argument"]}, "names nothing that an action has"),
        ({"values": ["/arguments"], "redact": ["/x"]}, "names nothing that an action has"),
        ({"values": []}, "at least 1 item"),
        ({"values": ["/arguments"], "hide": ["/x"]}, "unknown member 'hide'"),
        ({}, "expected the member 'values'"),
    ],
)
def test_a_wrong_keep_is_refused(keep_: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_binding(document(keep=keep_), "test")


def policy(**behavior: Any) -> Policy:
    target = Target(URN, "tool", ("https://mcp.test/mcp",), "mcp", None, None, None, None)
    return Policy([load_binding(document(**behavior), "test")], Catalog([target]))


def test_content_is_read_only_where_it_is_kept() -> None:
    url = ("https", "mcp.test", 443, "/mcp")
    keeping = {"values": ["/arguments/user"]}
    for made, expected in (
        (policy(), "target"),
        (policy(keep=keeping), "body"),
        (policy(keep={"values": ["/query"]}), "query"),
    ):
        target = made.catalog.find(*url)
        assert made.reads(AGENT, target, url) == expected


def test_only_observed_actions_are_kept() -> None:
    made = policy(keep={"values": ["/arguments/user/name"]}, targets=[f"{URN}#tools/*"])
    action = Action(AGENT, ActionType.TOOL_CALL, f"{URN}#tools/abc", {}, CONTENT)
    assert dict(made.kept(action).values) == {"/arguments/user/name": "Ada"}
    assert made.kept(Action(AGENT, ActionType.TOOL_CALL, f"{URN}#prompts/get", {}, CONTENT)).values == ()
    assert made.kept(Action(AGENT, ActionType.DELEGATION, URN, {}, CONTENT)).values == ()
    assert policy().kept(action).values == ()
    assert made.kept(Action(AGENT, ActionType.TOOL_CALL, f"{URN}#tools/abc", {})).values == ()
