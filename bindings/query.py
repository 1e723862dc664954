"""The query of a request as parameters that every server reads alike, or not at all."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from .facts import Unclassifiable

MAX_QUERY = 1000
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def read_query(query: str) -> dict[str, str | list[str]]:
    """A string by name, a list of them for a name that stands more than once. Raises Unclassifiable."""
    if not query:
        return {}
    if ";" in query or query.count("&") >= MAX_QUERY:
        raise Unclassifiable("ambiguous_query", "a query that is judged has no ; and not too many parameters")
    found: dict[str, str | list[str]] = {}
    for part in query.split("&"):
        name, _, value = (_form_decoded(text) for text in part.partition("="))
        if not part:
            continue
        before = found.get(name)
        if before is None:
            found[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            found[name] = [before, value]
    return found


def _form_decoded(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise Unclassifiable("ambiguous_query", "a query that is judged has no % that encodes nothing")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeError:
        raise Unclassifiable("ambiguous_query", "a query that is judged is UTF-8") from None
