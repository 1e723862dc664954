"""Patterns over the URIs that actions name, compiled so that matching does not slow down as the list grows.

URN: exact, or with one `*` at its very end (`urn:example:tool:search#tools/*`).
URL: `https://host[:port]/path`. The host may begin with `*.` (one label or more, never over a public suffix). In the
path `*` stands for characters of one segment (a whole segment is never empty), and `/**` at the very end for anything
below. The scheme is always literal, a port that is not written is the scheme's default, and a path must be written.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from ..formats.errors import FormatError, UsageError
from ..formats.names import DEFAULT_PORTS as _PORTS
from ..formats.names import Host, authority_text, parse_authority, parse_path, url_text

_NAMESPACE = r"urn:[a-z0-9][a-z0-9-]{0,30}[a-z0-9]:"
_URN_CHAR = r"[A-Za-z0-9()+,.:=@;$_!'%/?&~-]"
_URN = re.compile(rf"{_NAMESPACE}{_URN_CHAR}+(?:#{_URN_CHAR}*)?", re.ASCII)
_URN_PREFIX = re.compile(rf"{_NAMESPACE}{_URN_CHAR}*(?:#{_URN_CHAR}*)?", re.ASCII)
_SECOND_LEVEL = frozenset(("ac", "co", "com", "edu", "gov", "mil", "ne", "net", "or", "org"))


def check_urn(text: str) -> str:
    """Return `text` if it is one URN with nothing left open. Raises UsageError."""
    if not _URN.fullmatch(text):
        raise UsageError(f"{text!r} is not a URN: expected urn:<namespace>:<name> without spaces or *")
    return text


@dataclass(frozen=True, slots=True)
class UrlPattern:
    """A URL pattern in parts. `host` is without the `*.` that `any_subdomain` stands for; `path` is canonical."""

    scheme: str
    host: Host
    any_subdomain: bool
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> UrlPattern:
        """Raises UsageError that names the pattern and the mend."""
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in _PORTS:
            raise UsageError(
                f"the pattern {text!r} must start with urn: or with {', '.join(f'{s}://' for s in _PORTS)}"
            )
        authority, slash, path = rest.partition("/")
        if not slash:
            raise UsageError(f"the pattern {text!r} has no path: write {text}/ for the root, {text}/** for everything")
        any_subdomain = authority.startswith("*.")
        try:
            host, port = parse_authority(authority[2:] if any_subdomain else authority, _PORTS[scheme])
        except FormatError as e:
            raise UsageError(
                f"the pattern {text!r} has no usable host (only a leading *. is a wildcard): {e}"
            ) from None
        if any_subdomain:
            _check_suffix(text, host)
        return cls(scheme, host, any_subdomain, port, _pattern_path(text, slash + path))

    @property
    def exact(self) -> str | None:
        """The one URL that the pattern matches, or None if it holds a wildcard."""
        if self.any_subdomain or "*" in self.path:
            return None
        return url_text(self.scheme, self.host, self.port, self.path)


def _check_suffix(text: str, host: Host) -> None:
    labels = host.split(".")
    public = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SECOND_LEVEL
    if len(labels) < 2 or public or ":" in host or labels[-1].isdigit():
        raise UsageError(f"the pattern {text!r} puts *. before {host!r}, which no one owner has: name more of the host")


def _pattern_path(text: str, path: str) -> str:
    if "%2a" in path.lower():
        raise UsageError(f"the pattern {text!r} holds an encoded *, which cannot be told from the wildcard")
    try:
        canonical = parse_path(path)
    except FormatError as e:
        raise UsageError(f"the pattern {text!r} has a path that no judged request can have: {e}") from None
    *inner, last = canonical.split("/")[1:]
    if any("**" in segment for segment in inner) or ("**" in last and last != "**"):
        raise UsageError(f"the pattern {text!r} may have ** only as its last segment (/**)")
    if any(segment.count("*") > 1 for segment in inner) or (last != "**" and last.count("*") > 1):
        raise UsageError(f"the pattern {text!r} has more than one * in a segment")
    return canonical


class _Node[V]:
    """One level of a path: literal children, children with a `*` by the lengths around it, and what `**` gives."""

    __slots__ = ("globs", "literals", "rest", "value")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[V]] = {}
        self.globs: list[tuple[int, int, dict[tuple[str, str], _Node[V]]]] = []
        self.value: V | None = None
        self.rest: V | None = None

    def child(self, segment: str) -> _Node[V]:
        if "*" not in segment:
            return self.literals.setdefault(segment, _Node())
        before, _, after = segment.partition("*")
        for head, tail, table in self.globs:
            if (head, tail) == (len(before), len(after)):
                return table.setdefault((before, after), _Node())
        node: _Node[V] = _Node()
        self.globs.append((len(before), len(after), {(before, after): node}))
        self.globs.sort(key=lambda glob: -(glob[0] + glob[1]))
        return node

    def find(self, segments: list[str], at: int) -> V | None:
        """The most specific match: literal before `*`, the longer text around a `*` before the shorter, `**` last."""
        if at == len(segments):
            return self.value
        segment = segments[at]
        literal = self.literals.get(segment)
        if literal is not None and (value := literal.find(segments, at + 1)) is not None:
            return value
        # A segment with %2F may be two segments to the server, so no `*` may stand for it.
        if self.globs and segment and "%2F" not in segment:
            for head, tail, table in self.globs:
                size = len(segment)
                if size < head + tail:
                    continue
                node = table.get((segment[:head], segment[size - tail :]))
                if node is not None and (value := node.find(segments, at + 1)) is not None:
                    return value
        return self.rest


class UrlMap[V]:
    """URL patterns to values. A look-up costs as much as the URL is long, whatever the number of patterns."""

    __slots__ = ("_hosts", "_suffixes")

    def __init__(self) -> None:
        self._hosts: dict[str, _Node[V]] = {}
        self._suffixes: dict[str, _Node[V]] = {}

    def add(self, pattern: UrlPattern, value: V) -> V | None:
        """Add a value; where the same pattern has one already, that one stays and is returned."""
        origin = f"{pattern.scheme}://{authority_text(pattern.scheme, pattern.host, pattern.port)}"
        table = self._suffixes if pattern.any_subdomain else self._hosts
        node = table.setdefault(origin, _Node())
        segments = pattern.path.split("/")[1:]
        rest = segments[-1] == "**"
        for segment in segments[:-1] if rest else segments:
            node = node.child(segment)
        there = node.rest if rest else node.value
        if there is None and rest:
            node.rest = value
        elif there is None:
            node.value = value
        return there

    def find(self, scheme: str, authority: str, path: str) -> V | None:
        """The value of the most specific pattern: the host as written first, then the longest `*.` suffix.

        `authority` is as `names.authority_text` writes it, `path` canonical.
        """
        segments = path.split("/")[1:]
        node = self._hosts.get(f"{scheme}://{authority}")
        if node is not None and (value := node.find(segments, 0)) is not None:
            return value
        if self._suffixes:
            _, dot, rest = authority.partition(".")
            while dot:
                node = self._suffixes.get(f"{scheme}://{rest}")
                if node is not None and (value := node.find(segments, 0)) is not None:
                    return value
                _, dot, rest = rest.partition(".")
        return None


class PrefixSet:
    """Does a text continue one of the prefixes? Logarithmic: in a sorted prefix-free list only the predecessor can."""

    __slots__ = ("_prefixes",)

    def __init__(self, prefixes: Iterable[str]) -> None:
        self._prefixes: list[str] = []
        for prefix in sorted(prefixes):
            if not self._prefixes or not prefix.startswith(self._prefixes[-1]):
                self._prefixes.append(prefix)

    def matches(self, text: str) -> bool:
        at = bisect_right(self._prefixes, text)
        return at > 0 and text.startswith(self._prefixes[at - 1])


class AuthorityMap[V]:
    """Hosts and ports, and `*.` suffixes of hosts, to all the values they were given."""

    __slots__ = ("_hosts", "_suffixes")

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, int], list[V]] = {}
        self._suffixes: dict[tuple[str, int], list[V]] = {}

    def add(self, pattern: UrlPattern, value: V) -> None:
        values = (self._suffixes if pattern.any_subdomain else self._hosts).setdefault((pattern.host, pattern.port), [])
        if value not in values:
            values.append(value)

    def at(self, host: str, port: int) -> list[V]:
        """All values for this authority, those of the host as written first."""
        found = list(self._hosts.get((host, port), ()))
        _, dot, rest = host.partition(".")
        while dot and self._suffixes:
            found += self._suffixes.get((rest, port), ())
            _, dot, rest = rest.partition(".")
        return found


class AllowSet:
    """A list of URN and URL patterns, compiled. Raises UsageError for a pattern that is not one."""

    __slots__ = ("_authorities", "_exact", "_fragments", "_urls", "_urns", "_whole")

    def __init__(self, values: Iterable[str]) -> None:
        exact: set[str] = set()
        prefixes: set[str] = set()
        fragments: set[str] = set()
        self._urls: UrlMap[bool] = UrlMap()
        self._authorities: AuthorityMap[bool] = AuthorityMap()
        self._whole: AuthorityMap[bool] = AuthorityMap()
        for value in values:
            if value.startswith("urn:"):
                prefix = _urn_prefix(value)
                (exact if prefix is None else prefixes).add(value if prefix is None else prefix)
                base, mark, _ = value.partition("#")
                if mark:
                    fragments.add(base)
                continue
            pattern = UrlPattern.parse(value)
            self._authorities.add(pattern, True)
            if pattern.path == "/**":
                self._whole.add(pattern, True)
            if pattern.exact is not None:
                exact.add(pattern.exact)
            else:
                self._urls.add(pattern, True)
        self._exact = frozenset(exact)
        self._fragments = frozenset(fragments)
        self._urns = PrefixSet(prefixes)

    def matches(self, target: str) -> bool:
        """Does a pattern match this action target (canonical, as `classification` writes it)?"""
        if target in self._exact:
            return True
        if target.startswith("urn:"):
            return self._urns.matches(target)
        scheme, _, rest = target.partition("://")
        authority, slash, path = rest.partition("/")
        return bool(slash) and self._urls.find(scheme, authority, f"/{path}") is not None

    def may_match_authority(self, host: str, port: int) -> bool:
        """Could a URL on this authority match? False decides a CONNECT, True leaves it to the requests inside."""
        return bool(self._authorities.at(host, port))

    def covers_authority(self, host: str, port: int) -> bool:
        """Does one pattern match every URL on this authority (of one scheme, which is enough for a CONNECT)?"""
        return bool(self._whole.at(host, port))

    def covers_urn(self, urn: str, fragments: bool) -> bool:
        """Does one pattern match this URN and, with `fragments`, everything inside of it?"""
        return self._urns.matches(urn) or (not fragments and urn in self._exact)

    def may_match_urn(self, urn: str) -> bool:
        """Could this URN, alone or with a fragment, match?"""
        return urn in self._exact or urn in self._fragments or self._urns.matches(urn)


def _urn_prefix(value: str) -> str | None:
    """The part before a final `*`, or None for an exact URN. Raises UsageError."""
    if not value.endswith("*"):
        check_urn(value)
        return None
    if not _URN_PREFIX.fullmatch(value[:-1]):
        raise UsageError(f"the pattern {value!r} is not a URN with at most one *, at its very end, after the namespace")
    return value[:-1]
