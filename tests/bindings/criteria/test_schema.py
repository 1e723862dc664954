"""JSON Schema over parameters: nothing is looked up elsewhere, nothing is ignored, nothing is slow."""

import time
from typing import Any

import pytest

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Stateless
from lictor.bindings.model import Action, ActionType
from lictor.formats.errors import UsageError


def ready(schema: Any, **more: Any) -> Stateless:
    compiled = compile_criteria({"type": "schema", "schema": schema, **more})
    assert isinstance(compiled, Stateless)
    return compiled


def reason(compiled: Stateless, content: Any) -> str:
    return compiled.judge(Action("spiffe://e.example/a", ActionType.TOOL_CALL, "urn:e1:a", {}, content)).reason


TRANSFER = {
    "type": "object",
    "required": ["amount", "to"],
    "additionalProperties": False,
    "properties": {
        "amount": {"type": "integer", "minimum": 1, "maximum": 100},
        "to": {"$ref": "#/$defs/account"},
        "note": {"type": "string", "maxLength": 20},
    },
    "$defs": {"account": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{4}$"}},
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"amount": 5, "to": "DE1234"}, ""),
        ({"amount": 5, "to": "DE1234", "note": "rent"}, ""),
        ({"amount": 101, "to": "DE1234"}, "schema_violated"),
        ({"amount": 10**40, "to": "DE1234"}, "schema_violated"),
        ({"amount": "5", "to": "DE1234"}, "schema_violated"),
        ({"amount": True, "to": "DE1234"}, "schema_violated"),
        ({"amount": 5, "to": "DE1234\n"}, "schema_violated"),
        ({"amount": 5}, "schema_violated"),
        ({"amount": 5, "to": "DE1234", "cc": "X"}, "schema_violated"),
        ([], "schema_violated"),
    ],
)
def test_arguments(arguments: Any, expected: str) -> None:
    assert reason(ready(TRANSFER, parameter="/arguments"), {"method": "POST", "arguments": arguments}) == expected


@pytest.mark.parametrize("content", [None, {}, {"body": {"amount": 5, "to": "DE1234"}}])
def test_what_is_missing_is_refused(content: Any) -> None:
    assert reason(ready(TRANSFER, parameter="/arguments"), content) == "parameter_missing"


def test_over_all_of_the_content() -> None:
    only_get = ready({"properties": {"method": {"const": "GET"}}})
    assert only_get.reads == "body"
    assert reason(only_get, {"method": "GET"}) == ""
    assert reason(only_get, {"method": "POST"}) == "schema_violated"
    assert reason(only_get, None) == "parameter_missing"
    assert ready(True, parameter="/query").reads == "query"


def test_a_format_is_held_to() -> None:
    dated = ready({"format": "date"}, parameter="/body")
    assert [reason(dated, {"body": text}) for text in ("2026-02-28", "2026-02-30")] == ["", "schema_violated"]


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 100_000 + "!"),
        ({"patternProperties": {"^(a+)+$": True}, "additionalProperties": False}, {"a" * 100_000 + "!": 1}),
        ({"uniqueItems": True}, [*({"n": n} for n in range(20_000)), {"n": 1}]),
    ],
)
def test_hostile_values_are_judged_quickly(schema: Any, content: Any) -> None:
    compiled = ready(schema, parameter="/body")
    started = time.process_time()
    assert reason(compiled, {"body": content}) == "schema_violated"
    assert time.process_time() - started < 2


def test_deep_values() -> None:
    tree: dict[str, Any] = {}
    for _ in range(60):
        tree = {"child": tree}
    schema = {"type": "object", "additionalProperties": False, "properties": {"child": {"$ref": "#"}}}
    assert reason(ready(schema, parameter="/body"), {"body": tree}) == ""


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"$ref": "https://evil.example/schema"}, "only references into the schema itself"),
        ({"properties": {"a": {"items": {"$ref": "other.json#/x"}}}}, "/properties/a/items/\\$ref"),
        ({"anyOf": [{"$ref": "#anchor"}]}, "/anyOf/0/\\$ref"),
        ({"$id": "https://evil.example/"}, "/\\$id is not a keyword that is known here"),
        ({"$dynamicRef": "#x"}, "/\\$dynamicRef"),
        ({"properties": {"a": {"maxLenght": 3}}}, "/properties/a/maxLenght is not a keyword"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "expected 'https://json-schema.org/draft/2020-12"),
        ({"$ref": "#/$defs/none"}, "is not a JSON Schema"),
        ({"type": "strin"}, "is not a JSON Schema"),
        ({"properties": []}, "is not a JSON Schema"),
        ({"pattern": "(?=a)"}, "linear time"),
        ({"patternProperties": {"(a)\\1": True}}, "linear time"),
        ({"format": "postcode"}, "is not a JSON Schema"),
    ],
)
def test_a_schema_that_could_not_be_held_to_is_refused(schema: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        ready(schema)
