"""Every example in docs/bindings.md is a binding, a behavior or criteria that load; every type has one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lictor.bindings.criteria import CRITERIA
from lictor.bindings.schema import binding_schema, load_binding

TEXT = (Path(__file__).parents[3] / "docs" / "bindings.md").read_text("utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


def document(example: dict[str, Any]) -> dict[str, Any]:
    if "policy_id" in example:
        return example
    if "behavior_id" not in example:
        example = {"behavior_id": "b", "observable_actions": ["tool_call"], "compliance_criteria": example}
    return {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [example]}


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_loads(example: dict[str, Any]) -> None:
    load_binding(json.dumps(document(example)).encode(), "docs")


def test_every_type_is_documented_published_and_known() -> None:
    shown = {b["compliance_criteria"]["type"] for e in EXAMPLES for b in document(e)["expected_behaviors"]}
    branches = binding_schema()["$defs"]["behavior"]["properties"]["compliance_criteria"]["allOf"]
    published = {branch["if"]["properties"]["type"]["const"] for branch in branches}
    assert shown == published == set(CRITERIA)
    for name in CRITERIA:
        assert f"\n## `{name}`\n" in TEXT
