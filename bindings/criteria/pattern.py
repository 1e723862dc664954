"""Criteria of type `pattern`: regular expressions in linear time over the target and over parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..criterion import PASS, Outcome, Reads, Stateless
from ..linear import Regex
from ..model import Action
from ..pointer import MISSING, Pointer

_MISMATCH = Outcome(False, "pattern_mismatch")
_MISSING = Outcome(False, "parameter_missing")
_FORBIDDEN = Outcome(False, "forbidden_pattern")


class CompiledPattern(Stateless):
    """Whole-text expressions for the target and for values; expressions that may be nowhere inside of values."""

    __slots__ = ("_forbidden", "_parameters", "_target", "reads")

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        self._target = Regex(criteria["target"]) if "target" in criteria else None
        self._parameters = _compile(criteria.get("parameters", {}))
        self._forbidden = _compile(criteria.get("forbidden", {}))
        needed = {pointer.reads for pointer, _ in (*self._parameters, *self._forbidden)}
        self.reads: Reads = "body" if "body" in needed else "query" if needed else "target"

    def judge(self, action: Action) -> Outcome:
        if self._target is not None and not self._target.matches(action.target):
            return _MISMATCH
        for pointer, regex in self._parameters:
            value = pointer.find(action.content)
            if value is MISSING:
                return _MISSING
            texts = value if isinstance(value, list) and value else [value]
            if not all(isinstance(text, str) and regex.matches(text) for text in texts):
                return _MISMATCH
        if self._forbidden and action.content is None:
            return _MISSING
        for pointer, regex in self._forbidden:
            if any(regex.is_in(text) for text in _texts(pointer.find(action.content))):
                return _FORBIDDEN
        return PASS


def _compile(expressions: Mapping[str, str]) -> tuple[tuple[Pointer, Regex], ...]:
    return tuple((Pointer(pointer), Regex(pattern)) for pointer, pattern in expressions.items())


def _texts(value: Any) -> Iterator[str]:
    """Every string in a value, names of members too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)


class Pattern:
    """`{"type": "pattern", "target": …, "parameters": {pointer: regex}, "forbidden": {pointer: regex}}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledPattern:
        return CompiledPattern(criteria)
