"""Good bindings load; each broken one is refused by naming the file, the JSON path and what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lictor.bindings.model import ActionType
from lictor.bindings.schema import binding_schema, load_binding
from lictor.formats.canonical import digest
from lictor.formats.errors import UsageError

DATA = Path(__file__).parent / "data"
CRITERIA = r"\$\.expected_behaviors\[0\]\.compliance_criteria"

BROKEN = {
    "a_list": "JSON is not an object but list",
    "allowlist_with_a_string": rf"{CRITERIA}\.values: expected a JSON array, found 'urn:example:ds:approved-1'",
    "allowlist_with_an_unknown_member": rf"{CRITERIA}: unknown member 'value'; did you mean 'values'\?",
    "allowlist_without_values": rf"{CRITERIA}: expected the member 'values', found only 'type'",
    "bare_star": rf"{CRITERIA}: the pattern '\*' must start with urn: or with http://",
    "behavior_id_twice": r"\$\.expected_behaviors\[1\]\.behavior_id: 'bhv-001' stands twice",
    "criteria_without_type": rf"{CRITERIA}: expected the member 'type', found only 'values'",
    "double_star_in_the_middle_of_a_path": rf"{CRITERIA}: .* may have \*\* only as its last segment",
    "misspelt_member": r"\$: unknown member 'subject'; did you mean 'subjects'\?",
    "no_behavior_id": r"\$\.expected_behaviors\[0\]: expected the member 'behavior_id'",
    "no_criteria": r"\$\.expected_behaviors\[0\]: expected the member 'compliance_criteria'",
    "no_evaluation_mode": r"\$: expected the member 'evaluation_mode'",
    "no_observable_actions": r"\$\.expected_behaviors\[0\]\.observable_actions: expected at least 1 item",
    "no_policy_id": r"\$: expected the member 'policy_id'",
    "not_json": "not JSON: Expecting",
    "on_violation_ask": r"\.on_violation: expected one of 'deny', 'flag', 'hold', 'quarantine', found 'ask'",
    "policy_id_is_no_uri": r"\$\.policy_id: expected a URI that identifies the policy, found 'data access'",
    "policy_id_ends_with_a_newline": r"\$\.policy_id: expected a URI",
    "version_ends_with_a_newline": r"\$\.version: expected a semantic version",
    "behavior_id_with_a_space": r"\.behavior_id: expected a name without spaces",
    "policy_id_twice": "the member 'policy_id' stands twice",
    "star_in_the_middle_of_a_host": rf"{CRITERIA}: .* no usable host",
    "star_in_the_middle_of_a_urn": rf"{CRITERIA}: 'urn:example:\*:read' is not a URN",
    "star_over_a_top_level_domain": rf"{CRITERIA}: .* puts \*\. before 'com', which no one owner has",
    "star_over_all_urns": rf"{CRITERIA}: the pattern 'urn:\*' is not a URN",
    "subject_is_no_spiffe_id": r"\$\.subjects\[0\]: the subject 'researcher' is not a SPIFFE ID",
    "subjects_empty": r"\$\.subjects: expected at least 1 item",
    "unknown_action_type": r"\.observable_actions\[0\]: expected one of 'tool_call', .* found 'tool_calls'",
    "unknown_criteria_type": rf"{CRITERIA}: the criteria type 'magic' is not known here; known: allowlist, ",
    "unknown_evaluation_mode": r"\$\.evaluation_mode: expected one of 'continuous', 'on_demand', found 'sometimes'",
    "unknown_member_of_a_behavior": r"\$\.expected_behaviors\[0\]: unknown member 'colour'; known: behavior_id",
    "unknown_mode": r"\$\.mode: expected one of 'enforce', 'audit', found 'observe'",
    "unknown_severity": r"\.severity: expected one of 'low', 'medium', 'high', 'critical', found 'urgent'",
    "url_with_dot_segments": rf"{CRITERIA}: .* has a path that no judged request can have",
    "url_without_path": rf"{CRITERIA}: .* has no path: write https://example\.com/ for the root",
    "value_twice": rf"{CRITERIA}\.values: expected no item twice",
    "version_is_a_number": r"\$\.version: expected a JSON string, found 1\.0",
    "version_is_no_semver": r"\$\.version: expected a semantic version .*, found 'v1'",
}


def test_every_broken_file_has_its_complaint() -> None:
    assert {file.stem for file in (DATA / "broken").glob("*.json")} == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_binding_is_refused(name: str) -> None:
    file = DATA / "broken" / f"{name}.json"
    with pytest.raises(UsageError, match=f"^{name}: .*{BROKEN[name]}"):
        load_binding(file.read_bytes(), name)


@pytest.mark.parametrize("file", sorted((DATA / "good").glob("*.json")), ids=lambda file: file.stem)
def test_a_good_binding_loads(file: Path) -> None:
    binding = load_binding(file.read_bytes(), file.name)
    assert binding.document == json.loads(file.read_bytes())
    assert binding.digest == digest(json.loads(file.read_bytes()))


def test_the_example_of_the_draft_has_the_defaults() -> None:
    binding = load_binding((DATA / "good" / "the_example_of_the_draft.json").read_bytes(), "x")
    assert (binding.policy_id, binding.version) == ("urn:example:policy:data-access", "1.0")
    assert (binding.subjects, binding.mode, binding.evaluation_mode) == ((), "enforce", "continuous")
    (behavior,) = binding.behaviors
    assert behavior.observable_actions == {ActionType.DATA_SOURCE_ACCESS}
    assert (behavior.behavior_id, behavior.severity, behavior.on_violation) == ("bhv-001", "high", "deny")


def test_every_member_is_kept() -> None:
    binding = load_binding((DATA / "good" / "every_member.json").read_bytes(), "x")
    assert binding.subjects == ("spiffe://example.org/agent/researcher", "spiffe://example.org/team/*")
    assert [behavior.severity for behavior in binding.behaviors] == ["critical", "low", "high"]
    assert [behavior.on_violation for behavior in binding.behaviors] == ["deny", "flag", "deny"]


def test_digest_does_not_depend_on_white_space_or_order() -> None:
    data = (DATA / "good" / "every_member.json").read_bytes()
    document = json.loads(data)
    other = json.dumps(dict(reversed(document.items())), separators=(",", ":")).encode()
    assert load_binding(data, "x").digest == load_binding(other, "x").digest


def test_the_published_schema_is_a_schema_and_names_every_action_type() -> None:
    schema: dict[str, Any] = binding_schema()
    Draft202012Validator.check_schema(schema)
    named = schema["$defs"]["behavior"]["properties"]["observable_actions"]["items"]["enum"]
    assert named == [action_type.value for action_type in ActionType]


def test_a_huge_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.bindings.schema.MAX_BYTES", 10)
    with pytest.raises(UsageError, match="x: the binding has 11 bytes, more than 10"):
        load_binding(b"{         }", "x")


def test_a_value_without_canonical_form_is_refused() -> None:
    document = json.loads((DATA / "good" / "no_version.json").read_bytes())
    document["description"] = "\ue000"
    load_binding(json.dumps(document).encode(), "x")
    document["\ue000"] = 1
    with pytest.raises(UsageError, match=r"^x: "):
        load_binding(json.dumps(document).encode(), "x")
