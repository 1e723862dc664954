"""Expressions in linear time over targets and parameters; what is missing or of another type does not match."""

import time
from typing import Any

import pytest

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Outcome, Stateless
from lictor.bindings.model import Action, ActionType
from lictor.bindings.schema import load_binding
from lictor.formats.canonical import canonical
from lictor.formats.errors import UsageError


def ready(**criteria: Any) -> Stateless:
    compiled = compile_criteria({"type": "pattern", **criteria})
    assert isinstance(compiled, Stateless)
    return compiled


def judge(compiled: Stateless, content: Any = None, target: str = "urn:e1:tool:a") -> Outcome:
    return compiled.judge(Action("spiffe://e.example/a", ActionType.TOOL_CALL, target, {}, content))


@pytest.mark.parametrize(
    ("target", "ok"),
    [
        ("https://api.example/v1/x", True),
        ("https://api.example/v3/x", False),
        ("https://api.example/v1/x\n", False),
        ("xhttps://api.example/v1/x", False),
    ],
)
def test_the_whole_target_must_match(target: str, ok: bool) -> None:
    outcome = judge(ready(target=r"https://api\.example/v[12]/.*"), None, target)
    assert (outcome.ok, outcome.reason) == ((True, "") if ok else (False, "pattern_mismatch"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("/srv/data/a", ""),
        (["/srv/data/a", "/srv/data/b"], ""),
        ("/srv/data/../etc", "pattern_mismatch"),
        ("x/srv/data/a", "pattern_mismatch"),
        (["/srv/data/a", "/etc"], "pattern_mismatch"),
        ([], "pattern_mismatch"),
        (7, "pattern_mismatch"),
        (None, "pattern_mismatch"),
        ({"a": "/srv/data/a"}, "pattern_mismatch"),
    ],
)
def test_a_parameter_must_match_as_a_whole(value: Any, reason: str) -> None:
    compiled = ready(parameters={"/arguments/path": "/srv/data/[a-z]+"})
    assert judge(compiled, {"method": "POST", "arguments": {"path": value}}).reason == reason


@pytest.mark.parametrize("content", [None, {}, {"arguments": {}}, {"arguments": "path"}, {"body": {"path": "/a"}}])
def test_a_parameter_that_is_missing_does_not_match(content: Any) -> None:
    assert judge(ready(parameters={"/arguments/path": ".*"}), content).reason == "parameter_missing"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"arguments": {"sql": "select 1"}}, ""),
        ({"arguments": {"sql": "SELECT 1; DROP TABLE x"}}, "forbidden_pattern"),
        ({"arguments": {"more": [{"deep": "drop it"}]}}, "forbidden_pattern"),
        ({"arguments": {"drop": 1}}, "forbidden_pattern"),
        ({"method": "POST"}, ""),
        (None, "parameter_missing"),
    ],
)
def test_what_is_forbidden_may_be_nowhere_inside(content: Any, reason: str) -> None:
    assert judge(ready(forbidden={"/arguments": "(?i)drop"}), content).reason == reason


def test_how_much_is_read() -> None:
    assert ready(target="a").reads == "target"
    assert ready(target="a", parameters={"/query/q": "a", "/method": "GET"}).reads == "query"
    assert ready(parameters={"/query/q": "a"}, forbidden={"/arguments/x": "a"}).reads == "body"
    assert ready(forbidden={"": "a"}).reads == "body"


def test_hostile_text_is_matched_in_linear_time() -> None:
    compiled = ready(parameters={"/body": "(a|aa)+$"}, forbidden={"/body": "(x+x+)+y"})
    started = time.process_time()
    assert judge(compiled, {"body": "a" * 200_000 + "!"}).reason == "pattern_mismatch"
    assert judge(compiled, {"body": "aa"}).ok
    assert judge(ready(forbidden={"/body": "(x+x+)+y"}), {"body": "x" * 200_000}).ok
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("criteria", "complaint"),
    [
        ({"target": "(?=a)"}, "is not a regular expression as RE2 takes them: invalid perl operator"),
        ({"target": r"(a)\1"}, "invalid escape sequence"),
        ({"target": "a{2000}"}, "invalid repetition size"),
        ({"target": "("}, "missing \\)"),
        ({"parameters": {"/arguments/~2": "a"}}, "is not a JSON Pointer"),
        ({"parameters": {"arguments": "a"}}, "is not a JSON Pointer"),
        ({"parameters": {"/argument": "a"}}, "names nothing that an action has"),
        ({"parameters": {}}, "parameters"),
        ({}, "minProperties"),
    ],
)
def test_wrong_criteria_are_refused(criteria: dict[str, Any], complaint: str) -> None:
    behavior = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "pattern", **criteria},
    }
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    with pytest.raises(UsageError, match=complaint):
        load_binding(canonical(document), "x")
