"""The catalog: which URLs are which targets, and of what kind. What is not in it is plain HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..formats.errors import FormatError, UsageError
from ..formats.names import authority_text
from ..formats.spiffe import SpiffeId
from .patterns import AuthorityMap, UrlMap, UrlPattern, check_urn
from .protocols import PROTOCOLS
from .target import ACTION_TYPES, Target


class Catalog:
    """All targets by URL. A look-up costs the same for one target and for thousands. Raises UsageError."""

    __slots__ = ("_authorities", "_urls", "targets")

    def __init__(self, targets: Iterable[Target]) -> None:
        self.targets = tuple(targets)
        self._urls: UrlMap[Target] = UrlMap()
        self._authorities: AuthorityMap[Target] = AuthorityMap()
        seen: set[str] = set()
        patterns: list[tuple[UrlPattern, Target]] = []
        for target in self.targets:
            _check(target)
            if target.urn in seen:
                raise UsageError(f"the target {target.urn} stands twice in the catalog: give each its own urn")
            seen.add(target.urn)
            patterns += [(self._add(target, text), target) for text in target.match]
        # Servers redirect between /x and /x/, and neither way may lead out of the catalog.
        for pattern, target in patterns:
            if other := _other_spelling(pattern.path):
                self._urls.add(replace(pattern, path=other), target)
            if target.passthrough and len(there := self.at(pattern.host, pattern.port)) > 1:
                others = ", ".join(one.urn for one in there if one is not target)
                raise UsageError(
                    f"the target {target.urn} has passthrough, and {others} is on its authority too: what is not "
                    "intercepted cannot be told apart, so give it an authority of its own"
                )

    def _add(self, target: Target, text: str) -> UrlPattern:
        try:
            pattern = UrlPattern.parse(text)
        except UsageError as e:
            raise UsageError(f"the target {target.urn}: {e}") from None
        other = self._urls.add(pattern, target)
        if other is not None:
            raise UsageError(f"the pattern {text!r} belongs to {other.urn} and to {target.urn}: it can name only one")
        self._authorities.add(pattern, target)
        return pattern

    def find(self, scheme: str, host: str, port: int, path: str) -> Target | None:
        """The target with the most specific pattern for this URL (parts canonical, as `formats.names` gives them).

        A slash at the end of the path makes no difference, unless the catalog names both spellings.
        """
        return self._urls.find(scheme, authority_text(scheme, host, port), path)

    def at(self, host: str, port: int) -> tuple[Target, ...]:
        """All targets that have a URL on this authority."""
        return tuple(dict.fromkeys(self._authorities.at(host, port)))

    def passthrough(self, host: str, port: int) -> Target | None:
        """The target whose tunnels to this authority are not intercepted, or None."""
        there = self._authorities.at(host, port)
        return there[0] if there and there[0].passthrough else None


def _other_spelling(path: str) -> str:
    """The path with or without the slash at its end; of `/x/**` it is `/x`; of the root there is none ("")."""
    if path.endswith("/**"):
        return path[:-3]
    return path[:-1] if path.endswith("/") else path + "/"


def _check(target: Target) -> None:
    check_urn(target.urn)
    if "#" in target.urn:
        raise UsageError(f"the target {target.urn} has a fragment: # is for what is inside a target")
    if target.kind not in ACTION_TYPES:
        raise UsageError(f"the target {target.urn} has kind {target.kind!r}, expected {', '.join(ACTION_TYPES)}")
    if target.protocol not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise UsageError(f"the target {target.urn} has protocol {target.protocol!r}, expected one of {known}")
    kinds = PROTOCOLS[target.protocol].kinds
    if target.kind not in kinds:
        needed = " or ".join(map(repr, kinds))
        raise UsageError(f"the target {target.urn} speaks {target.protocol}, so its kind must be {needed}")
    if not target.match:
        raise UsageError(f"the target {target.urn} matches nothing: give it at least one URL pattern")
    if (target.client_cert is None) != (target.client_key is None):
        raise UsageError(f"the target {target.urn} needs both client_cert and client_key, or neither")
    if target.agent_id is not None:
        try:
            SpiffeId.parse(target.agent_id)
        except FormatError as e:
            raise UsageError(f"the target {target.urn}: agent_id {e}") from None
    for name, needed in (("monitor", "agent_id"), ("evidence", "monitor")):
        if getattr(target, name) is not None and getattr(target, needed) is None:
            raise UsageError(f"the target {target.urn} has {name}: it needs {needed.removesuffix('_id')} too")
    if target.passthrough:
        _check_passthrough(target)
    if target.protocol != "mcp" and (target.lists, target.pins, target.changed_tools) != ("allowed", None, "deny"):
        raise UsageError(f'the target {target.urn} has lists, pins or changed_tools: they need protocol = "mcp"')


def _check_passthrough(target: Target) -> None:
    given = [name for name in ("agent_id", "ca", "client_cert") if getattr(target, name) is not None]
    if target.protocol != "http" or given:
        found = ", ".join(given) or f"protocol {target.protocol!r}"
        raise UsageError(
            f"the target {target.urn} has passthrough and {found}: leave out what is for looking into tunnels"
        )
    for text in target.match:
        scheme, _, rest = text.partition("://")
        if scheme != "https" or rest.partition("/")[2] != "**" or rest.startswith("*"):
            raise UsageError(
                f"the target {target.urn} has passthrough, so it can only name whole hosts as https://host[:port]/**, "
                f"not {text!r}"
            )
