"""What a behavior asks to be kept of the content of the actions that it observes. Without one, nothing is.

`values` are JSON Pointers into the content (see `classification`), `redact` those of what must not be kept of it; a
token `*` stands for every member or item. Each value below is kept on its own, under its whole pointer, so that each
can be disclosed on its own. What one behavior redacts no other keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .criterion import Reads
from .pointer import Pointer

MAX_KEPT = 64
"""Values of one action."""
MAX_VALUE = 4096
"""Characters of one value as JSON."""
_Pattern = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """Values by pointer, and how many more were too many or too long."""

    values: tuple[tuple[str, Any], ...] = ()
    omitted: int = 0


NOTHING = Kept()


class Keep:
    """One behavior's `keep`, read. Raises UsageError for a pointer that is none."""

    __slots__ = ("reads", "redact", "values")

    def __init__(self, document: Mapping[str, Any]) -> None:
        pointers = [Pointer(text) for text in (*document["values"], *document.get("redact", ()))]
        self.values = tuple(map(_tokens, document["values"]))
        self.redact = tuple(map(_tokens, document.get("redact", ())))
        self.reads: Reads = "body" if any(pointer.reads == "body" for pointer in pointers) else "query"


def keep(rules: Iterable[Keep], content: Mapping[str, Any]) -> Kept:
    """What all of these together keep of an action's content."""
    given = tuple(rules)
    values, redact = [p for rule in given for p in rule.values], [p for rule in given for p in rule.redact]
    found: list[tuple[str, Any]] = []
    omitted = 0
    for path, value in _leaves(content, ()):
        if not any(_covers(pattern, path) for pattern in values) or any(_covers(pattern, path) for pattern in redact):
            continue
        if len(found) == MAX_KEPT or len(json.dumps(value)) > MAX_VALUE:
            omitted += 1
        else:
            found.append((_text(path), value))
    return Kept(tuple(found), omitted)


def _leaves(value: Any, path: _Pattern) -> Iterator[tuple[_Pattern, Any]]:
    """Everything that is no container, and empty containers."""
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from _leaves(member, (*path, name))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, str(index)))
    else:
        yield path, value


def _covers(pattern: _Pattern, path: _Pattern) -> bool:
    """Whether the path is what the pattern names or lies below it."""
    return len(pattern) <= len(path) and all(one in ("*", other) for one, other in zip(pattern, path, strict=False))


def _tokens(text: str) -> _Pattern:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def _text(path: _Pattern) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in path)
