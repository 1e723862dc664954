"""What is probably not meant in bindings that are well-formed: for their author to look at, nothing is refused.

Bindings given together are taken to be in force together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from .catalog import Catalog
from .covering import Cover, meaning_of, overlap
from .model import ActionType, Behavior, Binding, Verdict
from .patterns import UrlPattern
from .policy import effect
from .protocols import PROTOCOLS
from .subjects import applies_to
from .target import Target

MAX_OF_A_LIST = 20
"""Findings of one kind in one list of patterns; what is beyond is counted."""
MAX_PAIRS = 250_000
"""Pairs of patterns that are compared one by one; beyond, two lists are taken to have something in common."""
_LISTS = ("values", "must_follow", "never_after", "except")
_OPEN = frozenset(("budget", "delegation", "denylist", "rate", "sequence", "time"))
"""Criteria that allow whatever they do not refuse."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One doubt about the binding `policy_id`. `where` is a JSON path, `kind` machine-readable, `text` a sentence."""

    policy_id: str
    where: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A behavior and where it stands."""

    binding: Binding
    behavior: Behavior
    path: str

    @property
    def kind(self) -> str:
        return str(self.behavior.criteria["type"])

    @property
    def values(self) -> Sequence[str]:
        found: Sequence[str] = self.behavior.criteria.get("values", ())
        return found

    @property
    def denies(self) -> bool:
        return effect(self.binding, self.behavior) is Verdict.DENY

    @property
    def restricts(self) -> bool:
        """Whether what violates it does not simply go out."""
        return effect(self.binding, self.behavior) is not Verdict.FLAG

    def lists(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Every list of patterns, with its path."""
        if self.behavior.targets is not None:
            yield f"{self.path}.targets", self.behavior.targets
        for name in _LISTS:
            if self.kind != "time" and name in self.behavior.criteria:
                yield f"{self.path}.compliance_criteria.{name}", self.behavior.criteria[name]

    def finding(self, where: str, kind: str, text: str) -> Finding:
        return Finding(self.binding.policy_id, where, kind, text)


def lint(bindings: Sequence[Binding], catalog: Catalog | None = None, own_urn: str | None = None) -> list[Finding]:
    """All findings, in the order of the bindings. `own_urn` is that of the agent behind the ingress listener."""
    places = [
        _Place(binding, behavior, f"$.expected_behaviors[{i}]")
        for binding in bindings
        for i, behavior in enumerate(binding.behaviors)
    ]
    found: list[Finding] = []
    for place in places:
        for where, values in place.lists():
            found += _limited(place, where, _repeated(place, where, values))
            if catalog is not None:
                found += _limited(place, where, _unknown(place, where, values, catalog, own_urn))
        found += _limited(place, place.path, _broad(place))
        found += _limited(place, place.path, _unreachable(place, places))
        found += _opens(place, places)
        found += _split(place)
    order = {binding.policy_id: i for i, binding in enumerate(bindings)}
    return sorted([*found, *_disjoint(places)], key=lambda finding: order[finding.policy_id])


def _limited(place: _Place, where: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    yield from islice(findings, MAX_OF_A_LIST)
    more = sum(1 for _ in findings)
    if more:
        yield place.finding(where, "more", f"{more} more like these")


def _repeated(place: _Place, where: str, values: Sequence[str]) -> Iterator[Finding]:
    cover = Cover(values)
    for i, value in enumerate(values):
        if (same := cover.same(value)) is not None:
            yield place.finding(f"{where}[{i}]", "duplicate", f"{value} is {same} in another spelling")
        elif (broader := cover.broader(value)) is not None:
            yield place.finding(f"{where}[{i}]", "shadowed", f"{value} adds nothing: {broader} matches all of it")


def _broad(place: _Place) -> Iterator[Finding]:
    """Only where a pattern allows."""
    name = {"allowlist": "values", "sequence": "except"}.get(place.kind, "")
    for i, value in enumerate(place.behavior.criteria.get(name, ())):
        where = f"{place.path}.compliance_criteria.{name}[{i}]"
        meaning = meaning_of(value)
        if isinstance(meaning, UrlPattern):
            if meaning.any_subdomain and meaning.path == "/**":
                yield place.finding(where, "broad", f"{value} allows everything on every host below {meaning.host}")
        elif value.endswith("*") and "#" not in value:
            yield place.finding(
                where, "broad", f"{value} allows every target whose URN begins so, and everything inside of it"
            )


def _unreachable(place: _Place, places: Sequence[_Place]) -> Iterator[Finding]:
    """Values of an allowlist that never let anything pass."""
    if place.kind != "allowlist":
        return
    where = f"{place.path}.compliance_criteria.values"
    denying = [(other, Cover(other.values)) for other in places if _denies_all_of(other, place)]
    targets = place.behavior.targets
    few = targets is not None and len(targets) * len(place.values) <= MAX_PAIRS
    for i, value in enumerate(place.values):
        for other, cover in denying:
            if (covering := cover.covering(value)) is not None:
                text = f"{value} is never allowed: {covering} in the denylist of {other.behavior.behavior_id} covers it"
                yield place.finding(f"{where}[{i}]", "unreachable", text)
                break
        else:
            if few and not any(overlap(value, target) for target in targets or ()):
                text = f"{value} is never looked at: it is none of the behavior's targets"
                yield place.finding(f"{where}[{i}]", "unreachable", text)


def _denies_all_of(other: _Place, place: _Place) -> bool:
    """Whether `other` is a denylist that judges whatever `place` judges, and denies."""
    return other.kind == "denylist" and other.denies and _judges_all_of(other, place)


def _judges_all_of(other: _Place, place: _Place) -> bool:
    return place.behavior.observable_actions <= other.behavior.observable_actions and _applies_where(other, place)


def _applies_where(other: _Place, place: _Place) -> bool:
    """Whether `other` judges the agents and the targets that `place` judges; False in doubt."""
    whom, mine = other.binding.subjects, place.binding.subjects
    if whom and (not mine or not all(_is_within(subject, whom) for subject in mine)):
        return False
    if other.behavior.targets is None:
        return True
    if place.behavior.targets is None:
        return False
    cover = Cover(other.behavior.targets)
    return all(cover.covering(target) is not None for target in place.behavior.targets)


def _is_within(subject: str, subjects: tuple[str, ...]) -> bool:
    return subject in subjects or applies_to(subjects, subject)


def _disjoint(places: Sequence[_Place]) -> Iterator[Finding]:
    """Two allowlists that must both be satisfied and have nothing in common."""
    lists = [p for p in places if p.kind == "allowlist" and p.denies and p.values and p.behavior.targets is None]
    for one, other in combinations(lists, 2):
        types = one.behavior.observable_actions & other.behavior.observable_actions
        if types and (_applies_where(one, other) or _applies_where(other, one)) and _have_nothing(one, other):
            text = (
                f"nothing is allowed of {_names(types)}: {one.behavior.behavior_id} of {one.binding.policy_id} "
                f"and {other.behavior.behavior_id} both judge it, and have no value in common"
            )
            yield other.finding(other.path, "disjoint", text)


def _have_nothing(one: _Place, other: _Place) -> bool:
    for values, others in ((one.values, other.values), (other.values, one.values)):
        cover = Cover(others)
        if any(cover.covering(value) is not None for value in values):
            return False
    if len(one.values) * len(other.values) > MAX_PAIRS:
        return False
    return not any(overlap(a, b) for a in one.values for b in other.values)


def _split(place: _Place) -> Iterator[Finding]:
    """Witnesses of whom two groups that have nobody in common are each enough."""
    asked = place.behavior.criteria.get("incoming", {}).get("witnesses") if place.kind == "delegation" else None
    if asked is None or (quorum := asked.get("quorum", len(asked["keys"]))) * 2 > len(asked["keys"]):
        return
    where = f"{place.path}.compliance_criteria.incoming.witnesses.quorum"
    text = f"{quorum} of {len(asked['keys'])} witnesses may each see another history; more than half cannot"
    yield place.finding(where, "split", text)


def _opens(place: _Place, places: Sequence[_Place]) -> Iterator[Finding]:
    """A behavior that ends default deny for action types of which nothing says what is allowed."""
    if place.kind not in _OPEN:
        return
    naming = [p for p in places if p.kind not in _OPEN and p.restricts and _applies_where(p, place)]
    open_types = place.behavior.observable_actions.difference(*(p.behavior.observable_actions for p in naming))
    if open_types:
        text = (
            f"this {place.kind} ends default deny of {_names(open_types)}: what it does not refuse is allowed; "
            "give it an allowlist too, unless that is meant"
        )
        yield place.finding(place.path, "opens", text)


def _unknown(
    place: _Place, where: str, values: Sequence[str], catalog: Catalog, own_urn: str | None
) -> Iterator[Finding]:
    """Values that name what the catalog does not have, or has as something else."""
    types = {target.urn: _types(target) for target in catalog.targets}
    if own_urn is not None:
        types.setdefault(own_urn, set()).update((ActionType.DELEGATION, ActionType.HTTP_REQUEST))
    spoken = {target.urn: target.protocol for target in catalog.targets if target.urn != own_urn}
    remembers = where.endswith((".must_follow", ".never_after"))
    for i, value in enumerate(values):
        meaning = meaning_of(value)
        if isinstance(meaning, UrlPattern):
            text = _catalogued(meaning, value, catalog)
        else:
            text = _unknown_urn(value, types, None if remembers else place.behavior.observable_actions)
            text = text or _not_inside(value, spoken)
        if text:
            yield place.finding(f"{where}[{i}]", "unknown_target", text)


def _types(target: Target) -> set[ActionType]:
    """What can be done to a target under its URN."""
    return {target.action_type} if target.passthrough else {target.action_type, ActionType.WEBSOCKET_MESSAGE}


def _catalogued(pattern: UrlPattern, value: str, catalog: Catalog) -> str:
    if pattern.exact is None:
        return ""
    target = catalog.find(pattern.scheme, pattern.host, pattern.port, pattern.path)
    if target is None or target.protocol == "a2a":
        return ""
    return f"{value} matches nothing: the catalog knows this address as {target.urn}, and so it is judged"


def _unknown_urn(value: str, types: dict[str, set[ActionType]], observed: frozenset[ActionType] | None) -> str:
    prefix, base = value.removesuffix("*"), value.partition("#")[0]
    if value.endswith("*") and "#" not in value:
        known = [urn for urn in types if urn.startswith(prefix)] or [u for u in types if prefix.startswith(f"{u}#")]
    else:
        known = [base] if base in types else []
    if not known:
        near = difflib.get_close_matches(base.removesuffix("*"), types, n=1)
        return f"{value} is not in the catalog" + (f", did you mean {near[0]}?" if near else "")
    is_a = set[ActionType]().union(*(types[urn] for urn in known))
    if observed is None or is_a & observed:
        return ""
    return f"{value} is never looked at: it is a target of {_names(is_a)}, which the behavior does not observe"


def _not_inside(value: str, spoken: Mapping[str, str]) -> str:
    """Why nothing inside of a target has this name; empty if something may. `spoken`: the protocols by URN."""
    base, mark, inside = value.removesuffix("*").partition("#")
    if not mark or base not in spoken:
        return ""
    begins = PROTOCOLS[spoken[base]].inside
    if any(inside.startswith(begin) or (value.endswith("*") and begin.startswith(inside)) for begin in begins):
        return ""
    has = f"has inside only what begins with {' or '.join(begins)}" if begins else "has nothing inside"
    return f"{value} matches nothing: {base} speaks {spoken[base]} and {has}"


def _names(types: Iterable[ActionType]) -> str:
    return ", ".join(sorted(type_.value for type_ in types))
