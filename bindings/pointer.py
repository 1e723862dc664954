"""JSON Pointers (RFC 6901) into the content of an action (see `classification`)."""

from __future__ import annotations

import re
from typing import Any, Final

from ..formats.errors import UsageError
from .criterion import Reads

MISSING: Final = object()
MEMBERS = ("method", "query", "arguments", "params", "body", "text", "json", "direction", "opcode", "host", "port")
"""What content may hold."""
_FORM = re.compile(r"(?:/(?:[^~/]|~[01])*)*")


class Pointer:
    """Names a value in an action's content; the empty one names all of it. Raises UsageError."""

    __slots__ = ("_tokens", "reads")

    def __init__(self, text: str) -> None:
        if not _FORM.fullmatch(text):
            raise UsageError(f"{text!r} is not a JSON Pointer: expected /name/name…, with ~0 for ~ and ~1 for /")
        self._tokens = tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])
        if self._tokens and self._tokens[0] not in MEMBERS:
            raise UsageError(f"{text!r} names nothing that an action has: expected /{', /'.join(MEMBERS)}")
        self.reads: Reads = "query" if self._tokens and self._tokens[0] in ("method", "query") else "body"

    def find(self, content: Any) -> Any:
        """The value, or MISSING."""
        value = content
        for token in self._tokens:
            if isinstance(value, dict) and token in value:
                value = value[token]
            elif isinstance(value, list) and token.isdecimal() and token.isascii() and int(token[:9]) < len(value):
                value = value[int(token[:9])]
            else:
                return MISSING
        return value
