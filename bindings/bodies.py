"""The body of a request as JSON that every parser reads alike, or not at all."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..formats import strict_json
from ..formats.errors import FormatError
from .facts import RequestFacts, Unclassifiable


def read_json(facts: RequestFacts) -> Any:
    """The body as JSON that every parser reads alike. Raises Unclassifiable."""
    if any(value.lower() != "identity" for value in facts.header("content-encoding")):
        raise Unclassifiable("encoded_body", "a body that decides must come without Content-Encoding")
    types = facts.header("content-type")
    if len(types) > 1 or not is_utf8(types[0] if types else ""):
        raise Unclassifiable("unparsable_body", "expected one Content-Type, with charset utf-8 if it has one")
    try:
        return strict_json.loads(facts.body or b"")
    except FormatError as e:
        raise Unclassifiable("unparsable_body", f"the body cannot be judged: {e}") from None


def is_utf8(content_type: str) -> bool:
    """Does a Content-Type say nothing else of its charset?"""
    parameters = [part.partition("=") for part in content_type.lower().split(";")[1:]]
    charsets = [value.strip(' \t"') for name, _, value in parameters if name.strip().startswith("charset")]
    return all(charset in ("utf-8", "utf8", "us-ascii") for charset in charsets)


def read_object(facts: RequestFacts) -> dict[str, Any]:
    """The body as a JSON object. Raises Unclassifiable."""
    value = read_json(facts)
    if not isinstance(value, dict):
        raise Unclassifiable("unparsable_body", "expected a JSON object as the body")
    return value


@cache
def _folded(known: frozenset[str]) -> frozenset[str]:
    return frozenset(name.casefold() for name in known)


def check_spelling(members: dict[str, Any], known: frozenset[str]) -> None:
    """Some parsers (Go's) take `Method` for `method`, so a known name in another case means two things."""
    for name in members:
        if name not in known and name.casefold() in _folded(known):
            raise Unclassifiable("ambiguous_member", f"the member {name!r} differs from a known one only in case")
