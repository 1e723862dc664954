"""Many lists of patterns looked up at once: which of them have a pattern that matches a target (see `patterns`).

Each list has a mark, one bit of an integer. A look-up walks the target once, however many lists and patterns there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from ..formats.names import authority_text
from .patterns import UrlPattern, check_urn


class _Node:
    """One level of a path, as in `patterns`: marks of what ends here, and of what matches anything below."""

    __slots__ = ("globs", "literals", "rest", "value")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.globs: dict[tuple[int, int], dict[tuple[str, str], _Node]] = {}
        self.value = 0
        self.rest = 0

    def child(self, segment: str) -> _Node:
        if "*" not in segment:
            return self.literals.setdefault(segment, _Node())
        before, _, after = segment.partition("*")
        return self.globs.setdefault((len(before), len(after)), {}).setdefault((before, after), _Node())

    def collect(self, segments: list[str], at: int) -> int:
        """The marks of all patterns that match the rest of a path."""
        if at == len(segments):
            return self.value
        segment, found = segments[at], self.rest
        literal = self.literals.get(segment)
        if literal is not None:
            found |= literal.collect(segments, at + 1)
        if self.globs and segment and "%2F" not in segment:
            size = len(segment)
            for (head, tail), table in self.globs.items():
                if head + tail <= size:
                    node = table.get((segment[:head], segment[size - tail :]))
                    if node is not None:
                        found |= node.collect(segments, at + 1)
        return found


class _Prefixes:
    """Marks of all prefixes of a text: its predecessor in order is one of them, or leads to the longest that is."""

    __slots__ = ("_marks", "_parents", "_texts")

    def __init__(self, marks: dict[str, int]) -> None:
        self._texts = sorted(marks)
        self._marks: list[int] = []
        self._parents: list[int] = []
        for at, text in enumerate(self._texts):
            parent = at - 1
            while parent >= 0 and not text.startswith(self._texts[parent]):
                parent = self._parents[parent]
            self._parents.append(parent)
            self._marks.append(marks[text] | (self._marks[parent] if parent >= 0 else 0))

    def of(self, text: str) -> int:
        at = bisect_right(self._texts, text) - 1
        while at >= 0 and not text.startswith(self._texts[at]):
            at = self._parents[at]
        return self._marks[at] if at >= 0 else 0


class Marks:
    """Lists of patterns, each with its mark. Raises UsageError for a pattern that is not one."""

    __slots__ = ("_exact", "_hosts", "_suffixes", "_urns")

    def __init__(self, lists: Iterable[tuple[int, Iterable[str]]]) -> None:
        self._exact: dict[str, int] = {}
        self._hosts: dict[str, _Node] = {}
        self._suffixes: dict[str, _Node] = {}
        prefixes: dict[str, int] = {}
        for mark, values in lists:
            for value in values:
                if not value.startswith("urn:"):
                    self._add(UrlPattern.parse(value), mark)
                elif value.endswith("*"):
                    prefixes[value[:-1]] = prefixes.get(value[:-1], 0) | mark
                else:
                    self._exact[value] = self._exact.get(check_urn(value), 0) | mark
        self._urns = _Prefixes(prefixes)

    def _add(self, pattern: UrlPattern, mark: int) -> None:
        if pattern.exact is not None:
            self._exact[pattern.exact] = self._exact.get(pattern.exact, 0) | mark
            return
        origin = f"{pattern.scheme}://{authority_text(pattern.scheme, pattern.host, pattern.port)}"
        node = (self._suffixes if pattern.any_subdomain else self._hosts).setdefault(origin, _Node())
        segments = pattern.path.split("/")[1:]
        rest = segments[-1] == "**"
        for segment in segments[:-1] if rest else segments:
            node = node.child(segment)
        if rest:
            node.rest |= mark
        else:
            node.value |= mark

    def of(self, target: str) -> int:
        """The marks of the lists that match this action target (canonical, as `classification` writes it)."""
        found = self._exact.get(target, 0)
        if target.startswith("urn:"):
            return found | self._urns.of(target)
        scheme = target.find("://") + 3
        end = target.find("/", scheme)
        if scheme < 3 or end < 0:
            return found
        node = self._hosts.get(target[:end])
        segments = None
        if node is not None:
            segments = target[end + 1 :].split("/")
            found |= node.collect(segments, 0)
        if self._suffixes:
            dot = target.find(".", scheme, end)
            while dot >= 0:
                node = self._suffixes.get(target[:scheme] + target[dot + 1 : end])
                if node is not None:
                    segments = segments or target[end + 1 :].split("/")
                    found |= node.collect(segments, 0)
                dot = target.find(".", dot + 1, end)
        return found
