"""Criteria of type `schema`: JSON Schema 2020-12 over an action's parameters.

Only what is understood is taken: an unknown keyword, an unknown format and a `$ref` to anywhere else are refused.
Expressions in `pattern` and `patternProperties` run in linear time or are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from ...formats.errors import UsageError
from ..criterion import PASS, Outcome, Reads, Stateless
from ..model import Action
from ..pointer import MISSING, Pointer

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ONE = frozenset(
    [
        "additionalProperties",
        "items",
        "contains",
        "not",
        "if",
        "then",
        "else",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_LIST = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_MAP = frozenset(("properties", "patternProperties", "$defs", "dependentSchemas"))
_PLAIN = frozenset(
    [
        "type",
        "enum",
        "const",
        "multipleOf",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "format",
        "maxItems",
        "minItems",
        "uniqueItems",
        "maxContains",
        "minContains",
        "maxProperties",
        "minProperties",
        "required",
        "dependentRequired",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$comment",
        "$schema",
        "$ref",
    ]
)
_VIOLATED = Outcome(False, "schema_violated")
_MISSING = Outcome(False, "parameter_missing")


class CompiledSchema(Stateless):
    """A validator for the value that `parameter` names."""

    __slots__ = ("_pointer", "_validator", "reads")

    def __init__(self, pointer: Pointer, schema: Any) -> None:
        self._pointer = pointer
        self.reads: Reads = pointer.reads
        _check(schema, "")
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                schema,
                validate_formats=True,
                ignore_unknown_formats=False,
                pattern_options=jsonschema_rs.RegexOptions(),
                offline=True,
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as e:
            raise UsageError(f"the schema is not a JSON Schema (2020-12) that runs in linear time: {e}") from None

    def judge(self, action: Action) -> Outcome:
        value = self._pointer.find(action.content)
        if value is MISSING or action.content is None:
            return _MISSING
        return PASS if self._validator.is_valid(value) else _VIOLATED


def _check(schema: Any, path: str) -> None:
    """Raises UsageError for a keyword that would be ignored, or that would look elsewhere for a schema."""
    if not isinstance(schema, dict):
        return  # true and false; anything else the validator refuses
    for keyword, value in schema.items():
        here = f"{path}/{keyword}"
        if keyword in _ONE:
            _check(value, here)
        elif keyword in _LIST and isinstance(value, list):
            for i, one in enumerate(value):
                _check(one, f"{here}/{i}")
        elif keyword in _MAP and isinstance(value, dict):
            for name, one in value.items():
                _check(one, f"{here}/{name}")
        elif keyword == "$ref" and not (isinstance(value, str) and (value == "#" or value.startswith("#/"))):
            raise UsageError(f"the schema's {here} is {value!r}: only references into the schema itself are followed")
        elif keyword == "$schema" and value != _DIALECT:
            raise UsageError(f"the schema's {here} is {value!r}, expected {_DIALECT!r}")
        elif keyword not in _PLAIN | _LIST | _MAP:
            raise UsageError(f"the schema's {here} is not a keyword that is known here, and would be ignored")


class Schema:
    """`{"type": "schema", "parameter": "/arguments", "schema": {…}}`; without `parameter`, over all of the content."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledSchema:
        return CompiledSchema(Pointer(criteria.get("parameter", "")), criteria["schema"])
