"""Regular expressions in linear time (RE2): hostile text cannot make them slow, and what RE2 cannot do is refused."""

from __future__ import annotations

from collections.abc import Callable

import re2

from ..formats.errors import UsageError

_MEMORY = 4 << 20


class Regex:
    """One expression. Raises UsageError for what RE2 does not take, look-around and back-references among it."""

    __slots__ = ("_contains", "_fullmatch")

    def __init__(self, pattern: str) -> None:
        options = re2.Options()
        options.max_mem = _MEMORY
        options.log_errors = False
        try:
            compiled = re2.compile(pattern, options)
        except (re2.error, UnicodeError) as e:
            text = e.args[0].decode("utf-8", "replace") if e.args and isinstance(e.args[0], bytes) else str(e)
            raise UsageError(f"{pattern!r} is not a regular expression as RE2 takes them: {text}") from None
        # Of a str the module would count the characters before each group, which takes longer than the match.
        self._fullmatch: Callable[[bytes], object] = compiled.fullmatch
        self._contains: Callable[[bytes], object] = compiled.search

    def matches(self, text: str) -> bool:
        """Does it match the whole text?"""
        return self._fullmatch(text.encode()) is not None

    def is_in(self, text: str) -> bool:
        """Does it match anywhere in the text?"""
        return self._contains(text.encode()) is not None
