"""Whether some bindings allow nothing that others do not: decided for what can be decided, and else refused.

Compared are the texts, not histories: a rate of the one agent and the same rate of the other are equal. What restricts
the parent (every behavior whose violation is not let pass) must be found again with the child: in one behavior that
judges at least the same actions and asks at least as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .covering import Cover, overlap
from .model import ActionType, Behavior, Binding, Verdict
from .policy import effect

MAX_PAIRS = 250_000
"""Pairs of patterns that are compared one by one; beyond, it is not decided."""
_LIMITS = ("calls", "bytes", "tokens", "cost")
_Rule = tuple[Binding, Behavior]


def exceeds(child: Sequence[Binding], parent: Sequence[Binding]) -> str:
    """Where the child's bindings, all together, allow more than the parent's, or may; "" if they do not."""
    for type_ in ActionType:
        theirs, ours = _observing(parent, type_), _observing(child, type_)
        problem = _exceeds(ours, theirs) if ours and not _nothing(ours) else ""
        if problem:
            return f"{type_.value}: {problem}"
    return ""


def _observing(bindings: Iterable[Binding], type_: ActionType) -> list[_Rule]:
    return [(one, b) for one in bindings for b in one.behaviors if type_ in b.observable_actions]


def _exceeds(ours: list[_Rule], theirs: list[_Rule]) -> str:
    if not theirs:
        return "the parent has no behavior for it, and so may do nothing of it"
    if all(behavior.targets is not None for _, behavior in theirs):
        observed = Cover(value for _, behavior in theirs for value in behavior.targets or ())
        if not _within(ours, observed):
            return "the parent may do nothing outside of the targets of its behaviors"
    for binding, behavior in theirs:
        if effect(binding, behavior) is Verdict.FLAG:
            continue
        if not any(_asks_as_much(rule, (binding, behavior)) for rule in ours):
            return f"no behavior asks what {behavior.behavior_id} of {binding.policy_id} does"
    return ""


def _nothing(rules: list[_Rule]) -> bool:
    """Whether one of the rules lets nothing pass."""
    return any(
        _denies(r) and r[1].targets is None and r[1].criteria.get("values") == [] and _kind(r) == "allowlist"
        for r in rules
    )


def _within(rules: list[_Rule], cover: Cover) -> bool:
    """Whether all that the rules allow is on targets that `cover` has."""
    if all(behavior.targets is not None for _, behavior in rules):
        return _covered((value for _, behavior in rules for value in behavior.targets or ()), cover)
    lists = [r[1].criteria["values"] for r in rules if _denies(r) and r[1].targets is None and _kind(r) == "allowlist"]
    return any(_covered(values, cover) for values in lists)


def _asks_as_much(ours: _Rule, theirs: _Rule) -> bool:
    """Whether whatever satisfies our behavior, where theirs judges, satisfies theirs."""
    if effect(*ours).weight < effect(*theirs).weight or not _judges_all(ours[1].targets, theirs[1].targets):
        return False
    mine, other, kind = ours[1].criteria, theirs[1].criteria, _kind(theirs)
    if mine == other:
        return True
    if kind == "allowlist":
        return _kind(ours) == kind and _covered(mine["values"], Cover(other["values"]))
    if kind == "denylist":
        return _keeps_off(ours, other["values"])
    if _kind(ours) != kind:
        return False
    if kind == "rate":
        return _same(mine, other, "limit") and bool(mine["limit"] <= other["limit"])
    if kind == "budget":
        return _same(mine, other, *_LIMITS) and all(n in mine and mine[n] <= other[n] for n in _LIMITS if n in other)
    return False


def _keeps_off(ours: _Rule, values: Sequence[str]) -> bool:
    """Whether our list lets nothing pass that one of these patterns matches."""
    mine = ours[1].criteria.get("values", ())
    if _kind(ours) == "denylist":
        return _covered(values, Cover(mine))
    if _kind(ours) != "allowlist" or len(mine) * len(values) > MAX_PAIRS:
        return False
    return not any(overlap(one, other) for one in mine for other in values)


def _judges_all(ours: Sequence[str] | None, theirs: Sequence[str] | None) -> bool:
    return ours is None or (theirs is not None and _covered(theirs, Cover(ours)))


def _covered(values: Iterable[str], cover: Cover) -> bool:
    return all(cover.covering(value) is not None for value in values)


def _same(mine: Mapping[str, Any], other: Mapping[str, Any], *but: str) -> bool:
    return {n: v for n, v in mine.items() if n not in but} == {n: v for n, v in other.items() if n not in but}


def _denies(rule: _Rule) -> bool:
    return effect(*rule) is Verdict.DENY


def _kind(rule: _Rule) -> str:
    return str(rule[1].criteria["type"])
