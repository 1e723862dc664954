"""Reading a binding: strict JSON, the published JSON Schema, then what a schema cannot say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from ..formats import strict_json
from ..formats.canonical import digest
from ..formats.errors import FormatError, UsageError
from .criteria import compile_criteria
from .keep import Keep
from .model import ActionType, Behavior, Binding
from .patterns import AllowSet
from .subjects import check_subject

MAX_BYTES = 32 * 1024 * 1024


@cache
def binding_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a binding."""
    text = resources.files(__package__).joinpath("binding.schema.json").read_text(encoding="utf-8")
    return strict_json.loads_object(text)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(binding_schema())


def load_binding(data: bytes, source: str) -> Binding:
    """Read one binding. Raises UsageError: `source`, the JSON path, what was expected and what was found."""
    document = load_document(data, source)
    try:
        return _to_binding(document, digest(document))
    except (FormatError, UsageError) as e:
        raise UsageError(f"{source}: {e}") from None


def load_document(data: bytes, source: str) -> dict[str, Any]:
    """The JSON object of a binding file, its form not checked yet. Raises UsageError."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{source}: the binding has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        return strict_json.loads_object(data)
    except FormatError as e:
        raise UsageError(f"{source}: {e}") from None


def _to_binding(document: dict[str, Any], document_digest: str) -> Binding:
    error = best_match(_validator().iter_errors(document))
    if error is not None:
        raise UsageError(_explain(error))
    behaviors = [
        _to_behavior(item, f"$.expected_behaviors[{i}]") for i, item in enumerate(document["expected_behaviors"])
    ]
    _check_unique(behaviors)
    for i, subject in enumerate(document.get("subjects", ())):
        _at(f"$.subjects[{i}]", check_subject, subject)
    return Binding(
        policy_id=document["policy_id"],
        version=document.get("version", ""),
        subjects=tuple(document.get("subjects", ())),
        behaviors=tuple(behaviors),
        evaluation_mode=document["evaluation_mode"],
        mode=document.get("mode", "enforce"),
        digest=document_digest,
        document=document,
    )


def _to_behavior(item: dict[str, Any], path: str) -> Behavior:
    _at(f"{path}.compliance_criteria", compile_criteria, item["compliance_criteria"])
    targets = item.get("targets")
    if targets is not None:
        _at(f"{path}.targets", AllowSet, targets)
    if "keep" in item:
        _at(f"{path}.keep", Keep, item["keep"])
    return Behavior(
        behavior_id=item["behavior_id"],
        description=item.get("description", ""),
        observable_actions=frozenset(ActionType(name) for name in item["observable_actions"]),
        criteria=item["compliance_criteria"],
        severity=item.get("severity", "high"),
        on_violation=item.get("on_violation", "deny"),
        targets=tuple(targets) if targets is not None else None,
        keep=item.get("keep"),
    )


def _at(path: str, check: Any, value: Any) -> None:
    try:
        check(value)
    except UsageError as e:
        raise UsageError(f"{path}: {e}") from None


def _check_unique(behaviors: Iterable[Behavior]) -> None:
    seen: set[str] = set()
    for i, behavior in enumerate(behaviors):
        if behavior.behavior_id in seen:
            raise UsageError(f"$.expected_behaviors[{i}].behavior_id: {behavior.behavior_id!r} stands twice")
        seen.add(behavior.behavior_id)


def _explain(error: ValidationError) -> str:
    """One sentence from a schema error: JSON path, expected, found."""
    instance: Any = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "additionalProperties":
            schema: Any = error.schema
            known = list(schema["properties"])
            extra = sorted(set(instance) - set(known))[0]
            near = difflib.get_close_matches(extra, known, 1)
            expected = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            return f"{error.json_path}: unknown member {extra!r}; {expected}"
        case "required":
            missing = next(name for name in wanted if name not in instance)
            return f"{error.json_path}: expected the member {missing!r}, found {_members(instance)}"
        case "enum":
            return f"{error.json_path}: expected one of {', '.join(map(repr, wanted))}, found {_shown(instance)}"
        case "type":
            return f"{error.json_path}: expected a JSON {wanted}, found {_shown(instance)}"
        case "pattern":
            described: Any = error.schema
            return f"{error.json_path}: expected {described['description']}, found {_shown(instance)}"
        case "minItems":
            return f"{error.json_path}: expected at least {wanted} item, found {_shown(instance)}"
        case "uniqueItems":
            return f"{error.json_path}: expected no item twice"
        case name:
            return f"{error.json_path}: expected {name} {wanted}, found {_shown(instance)}"


def _members(instance: dict[str, Any]) -> str:
    return f"only {', '.join(map(repr, instance))}" if instance else "an empty object"


def _shown(instance: Any) -> str:
    text = repr(instance)
    return text if len(text) <= 80 else text[:80] + "…"
