"""Canonical JSON (RFC 8785, JCS) on the subset where the fast encoder equals the RFC.

The subset: integers within +-(2^53-1), floats of magnitude 1e-5 up to 1e15, member names below U+E000, and nothing that
is not JSON. An integral float is written as the integer that it is. Anything else is refused, never approximated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from .base64url import encode
from .errors import FormatError

MAX_INT = 2**53 - 1
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_NEEDS_UTF16_ORDER = "\ue000"


def _exact(value: Any) -> Any:
    """Return `value` with every float in the form JCS writes; raise FormatError outside of the subset."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if not -MAX_INT <= value <= MAX_INT:
            raise FormatError(f"the integer {value} is beyond 2^53-1 and has no canonical form")
        return value
    if kind is dict:
        for name in value:
            if type(name) is not str:
                raise FormatError(f"the member name {name!r} is not a string")
            if not name.isascii() and max(name) >= _NEEDS_UTF16_ORDER:
                raise FormatError(f"the member name {name!r} holds a character from U+E000 up")
        return {name: member if type(member) is str else _exact(member) for name, member in value.items()}
    if kind is list or kind is tuple:
        return [_exact(member) for member in value]
    if kind is float:
        return _exact_float(value)
    raise FormatError(f"{kind.__name__} is not JSON")


def _exact_float(value: float) -> float | int:
    if value != value or value in (float("inf"), float("-inf")):
        raise FormatError("NaN and Infinity are not JSON")
    if value.is_integer():
        if abs(value) > MAX_INT:
            raise FormatError(f"the number {value} is beyond 2^53-1 and has no canonical form")
        return int(value)
    if not 1e-5 <= abs(value) < 1e15:
        raise FormatError(f"the number {value} is outside of the range that lictor canonicalises")
    return value


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value. Raises FormatError for what is outside of the subset (see the module)."""
    try:
        if _is_exact((value,)):
            data = orjson.dumps(value, option=_OPTIONS)
            if data.isascii():
                return data
    except (orjson.JSONEncodeError, RecursionError):
        pass  # the long way says what is wrong
    try:
        return orjson.dumps(_exact(value), option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as e:
        raise FormatError(f"no canonical form: {e}") from None


def _is_exact(members: Iterable[Any]) -> bool:
    """Whether the encoder writes these values exactly or refuses them, names aside: cheaper than to build them."""
    for member in members:
        kind = type(member)
        if kind is str or kind is int:
            continue
        if kind is dict:
            if member and not _is_exact(member.values()):
                return False
        elif kind is list or kind is tuple:
            if member and not _is_exact(member):
                return False
        elif kind is float:
            if member.is_integer() or not 1e-5 <= abs(member) < 1e15:
                return False
        elif kind is not bool and member is not None:
            return False
    return True


def digest(value: Any) -> str:
    """base64url of SHA-256 over the canonical form: 43 characters."""
    return encode(hashlib.sha256(canonical(value)).digest())
