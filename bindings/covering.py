"""Which pattern of a list matches all that another one matches, and whether two can match the same (see `patterns`).

For people who review bindings: judging does not need it. Looking one pattern up does not slow down with the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..formats.errors import UsageError
from .patterns import UrlPattern

_Meaning = str | UrlPattern
_Origin = tuple[str, str, int, bool]


class _Node:
    """One level of a path: literal children, those with a `*` by the lengths around it, the values that end here."""

    __slots__ = ("globs", "literals", "rest", "value")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.globs: dict[tuple[int, int], dict[tuple[str, str], _Node]] = {}
        self.value: str | None = None
        self.rest: str | None = None

    def child(self, segment: str) -> _Node:
        if "*" not in segment:
            return self.literals.setdefault(segment, _Node())
        before, _, after = segment.partition("*")
        return self.globs.setdefault((len(before), len(after)), {}).setdefault((before, after), _Node())

    def covering(self, segments: list[str], pattern: bool, at: int = 0) -> Iterator[str]:
        """The values that match all of a path; with `pattern` its `*` and `**` are wildcards themselves."""
        if at == len(segments):
            if self.value is not None:
                yield self.value
            return
        segment = segments[at]
        if not (pattern and segment == "**" and at == len(segments) - 1):
            for child in self._children(segment, pattern):
                yield from child.covering(segments, pattern, at + 1)
        if self.rest is not None:
            yield self.rest

    def _children(self, segment: str, pattern: bool) -> Iterator[_Node]:
        wild = pattern and "*" in segment
        if not wild and segment in self.literals:
            yield self.literals[segment]
        if not wild and (not segment or "%2F" in segment):
            return  # no * stands for such a segment
        before, after = segment.split("*") if wild else (segment, segment)
        for (head, tail), table in self.globs.items():
            if head > len(before) or tail > len(after) or (not wild and head + tail > len(segment)):
                continue
            child = table.get((before[:head], after[len(after) - tail :]))
            if child is not None:
                yield child


class Cover:
    """A list of patterns to look others up in. Raises UsageError for a pattern that is not one."""

    def __init__(self, values: Iterable[str]) -> None:
        self._first: dict[_Meaning, str] = {}
        self._urns: dict[str, str] = {}
        self._prefixes: dict[str, str] = {}
        self._origins: dict[_Origin, _Node] = {}
        for value in values:
            meaning = meaning_of(value)
            if self._first.setdefault(meaning, value) is not value:
                continue
            if isinstance(meaning, UrlPattern):
                self._add(meaning, value)
            elif meaning.endswith("*"):
                self._prefixes[meaning[:-1]] = value
            else:
                self._urns[meaning] = value
        self._lengths = sorted({len(prefix) for prefix in self._prefixes})

    def same(self, value: str) -> str | None:
        """An earlier value of the list that means the same in another spelling."""
        first = self._first.get(meaning_of(value))
        return None if first == value else first

    def broader(self, value: str) -> str | None:
        """A value of the list, other than this one, that matches everything that it matches."""
        meaning = meaning_of(value)
        own = self._first.get(meaning)
        found = self._urls(meaning) if isinstance(meaning, UrlPattern) else self._urn(meaning)
        return next((other for other in found if other != own), None)

    def covering(self, value: str) -> str | None:
        """A value of the list that matches everything that this pattern matches; it may be the same one."""
        return self._first.get(meaning_of(value)) or self.broader(value)

    def matching(self, target: str) -> str | None:
        """A value that matches this action target (canonical, as `classification` writes it)."""
        if target.startswith("urn:"):
            return self._urns.get(target) or next(self._prefixed(target), None)
        scheme, _, rest = target.partition("://")
        authority, slash, path = rest.partition("/")
        if not slash:
            return None
        try:
            place = UrlPattern.parse(f"{scheme}://{authority}/")
        except UsageError:
            return None
        return next(self._at(place, path.split("/"), False), None)

    def _add(self, pattern: UrlPattern, value: str) -> None:
        origin = (pattern.scheme, str(pattern.host), pattern.port, pattern.any_subdomain)
        node = self._origins.setdefault(origin, _Node())
        segments = pattern.path.split("/")[1:]
        rest = segments[-1] == "**"
        for segment in segments[:-1] if rest else segments:
            node = node.child(segment)
        if rest:
            node.rest = value
        else:
            node.value = value

    def _urn(self, meaning: str) -> Iterator[str]:
        yield from self._prefixed(meaning.removesuffix("*"))
        if meaning in self._urns:
            yield self._urns[meaning]

    def _prefixed(self, text: str) -> Iterator[str]:
        for length in self._lengths:
            if length > len(text):
                return
            if text[:length] in self._prefixes:
                yield self._prefixes[text[:length]]

    def _urls(self, pattern: UrlPattern) -> Iterator[str]:
        yield from self._at(pattern, pattern.path.split("/")[1:], True)

    def _at(self, place: UrlPattern, segments: list[str], pattern: bool) -> Iterator[str]:
        host, subdomain = str(place.host), place.any_subdomain
        while host:
            node = self._origins.get((place.scheme, host, place.port, subdomain))
            if node is not None:
                yield from node.covering(segments, pattern)
            host, subdomain = host.partition(".")[2], True


def meaning_of(value: str) -> _Meaning:
    """What two spellings of one pattern have in common. Raises UsageError."""
    return value if value.startswith("urn:") else UrlPattern.parse(value)


def overlap(one: str, other: str) -> bool:
    """Whether some action target matches both patterns. Raises UsageError."""
    a, b = meaning_of(one), meaning_of(other)
    if isinstance(a, UrlPattern) and isinstance(b, UrlPattern):
        same_place = (a.scheme, a.port) == (b.scheme, b.port) and _hosts_overlap(a, b)
        return same_place and _paths_overlap(a.path.split("/")[1:], b.path.split("/")[1:])
    if isinstance(a, UrlPattern) or isinstance(b, UrlPattern):
        return False
    return _urn_in(a, b) or _urn_in(b, a)


def _urn_in(text: str, pattern: str) -> bool:
    return text.removesuffix("*").startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _hosts_overlap(a: UrlPattern, b: UrlPattern) -> bool:
    if a.any_subdomain and b.any_subdomain:
        return f".{a.host}".endswith(f".{b.host}") or f".{b.host}".endswith(f".{a.host}")
    if a.any_subdomain:
        return b.host.endswith(f".{a.host}")
    return a.host.endswith(f".{b.host}") if b.any_subdomain else a.host == b.host


def _paths_overlap(a: list[str], b: list[str]) -> bool:
    for i in range(max(len(a), len(b))):
        if i >= len(a) or i >= len(b):
            return False
        if (a[i] == "**" and i == len(a) - 1) or (b[i] == "**" and i == len(b) - 1):
            return True
        if not _segments_overlap(a[i], b[i]):
            return False
    return True


def _segments_overlap(a: str, b: str) -> bool:
    if "*" not in a and "*" not in b:
        return a == b
    if "*" not in a:
        a, b = b, a
    before, _, after = a.partition("*")
    if "*" in b:
        head, _, tail = b.partition("*")
        heads = head.startswith(before) or before.startswith(head)
        return heads and (tail.endswith(after) or after.endswith(tail))
    fits = len(b) >= len(before) + len(after) and b.startswith(before) and b.endswith(after)
    return fits and bool(b) and "%2F" not in b
