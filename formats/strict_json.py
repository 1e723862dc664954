"""JSON that means one thing only (RFC 8259 with the doubts of RFC 7493 refused).

Duplicate member names, NaN and Infinity (also by overflow), lone surrogates, a byte-order mark and nesting beyond a
limit are errors: two parsers that disagree about such bytes are how a judged message differs from the one that was
understood.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from .errors import FormatError

MAX_DEPTH = 64

JSON = dict[str, "JSON"] | list["JSON"] | str | int | float | bool | None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FormatError(f"the member {twice!r} stands twice in one JSON object")
    return members


def _no_constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise FormatError(f"the number {text[:40]} is too large for a double")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def _check_depth(text: str, limit: int) -> None:
    """Raise FormatError if brackets outside of strings nest deeper than `limit`."""
    depth = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > limit:
                raise FormatError(f"JSON nests deeper than {limit} levels")
        elif char in "]}":
            depth -= 1


def loads(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse one JSON text. Raises FormatError with the reason; never anything else."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as e:
        raise FormatError(f"JSON is not UTF-8 at byte {e.start}") from None
    if text.startswith("\ufeff"):
        raise FormatError("JSON starts with a byte-order mark")
    if text.count("[") + text.count("{") > max_depth:
        _check_depth(text, max_depth)
    try:
        value = _decoder.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("JSON holds a lone surrogate") from None
    except json.JSONDecodeError as e:
        raise FormatError(f"not JSON: {e.msg} at line {e.lineno}, column {e.colno}") from None
    except (RecursionError, ValueError) as e:
        raise FormatError(f"not JSON that can be read safely: {e}") from None
    return value


def loads_object(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Parse one JSON text whose top level is an object. Raises FormatError."""
    value = loads(data, max_depth=max_depth)
    if not isinstance(value, dict):
        raise FormatError(f"JSON is not an object but {type(value).__name__}")
    return value
