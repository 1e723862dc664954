"""Why an action is allowed or denied: what each behavior that may judge it says, which value matched or is nearest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema_rs

from .apart import Rule, Rules, judge_at
from .covering import Cover
from .linear import Regex
from .model import Action, Binding, Decision, Verdict
from .pointer import MISSING, Pointer
from .policy import Policy, quarantines

Remembered = Callable[[Binding], Decision | None]
"""What the memories of a binding with one behavior say of the action."""
_EFFECTS = ("flag", "hold", "deny", "quarantine")
_LIMITS = (
    *("limit", "period_s", "per", "calls", "bytes", "tokens", "cost", "scope", "must_follow", "never_after"),
    *("within_s", "outgoing", "incoming"),
)


@dataclass(frozen=True, slots=True)
class Said:
    """What one behavior says. `result`: pass, fail, or other_target (it observes the type, but not this target).

    `effect` is what a violation would make of the action: deny, hold, flag, or quarantine.
    """

    policy_id: str
    version: str
    behavior_id: str
    criteria: str
    result: str
    effect: str
    reason: str
    because: str
    matched: str | None = None
    nearest: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One action, what becomes of it, and why."""

    action: Action
    decision: Decision
    because: str
    said: tuple[Said, ...]


def explain(policy: Policy, action: Action, now: float, remembered: Remembered) -> Explanation:
    """Judge an action at `now` (NumericDate) as the monitor would, and say why."""
    rules = Rules(policy.bindings).of(action.agent_id, action.type)
    observing = [rule for rule in rules if rule.is_about(action.target)]
    memories = {id(rule): remembered(_alone(rule)) for rule in observing if rule.stateless is None}
    decision = _decision(policy, action, [memories[id(rule)] for rule in observing if id(rule) in memories])
    said = [_said(rule, action, now, memories.get(id(rule))) for rule in rules]
    return Explanation(action, decision, _because(policy, action, decision, said), tuple(said))


def _alone(rule: Rule) -> Binding:
    return replace(rule.binding, behaviors=(rule.behavior,))


def _decision(policy: Policy, action: Action, memories: Sequence[Decision | None]) -> Decision:
    """As in the monitor: first what needs no memory, then what has one."""
    decision = policy.judge(action)
    if decision.verdict is Verdict.DENY:
        return decision
    for said in memories:
        if said is not None and said.verdict.weight > decision.verdict.weight:
            decision = said
    return decision


def _because(policy: Policy, action: Action, decision: Decision, said: Sequence[Said]) -> str:
    """One sentence on the whole."""
    if decision.reason != "default_deny":
        failed = [one for one in said if one.result == "fail"]
        one = max(failed, key=lambda one: _EFFECTS.index(one.effect), default=None)
        return f"{one.behavior_id} of {one.policy_id}: {one.because}" if one else "every behavior is satisfied"
    if said:
        return f"the behaviors that observe {action.type.value} are for other targets"
    mine = policy.policies_for(action.agent_id)
    types = sorted({type_.value for binding in mine for b in binding.behaviors for type_ in b.observable_actions})
    if not mine:
        return f"none of the {len(policy.bindings)} bindings applies to {action.agent_id}"
    return f"no behavior observes {action.type.value}; those of this agent observe {', '.join(types)}"


def _said(rule: Rule, action: Action, now: float, remembered: Decision | None) -> Said:
    behavior, kind = rule.behavior, str(rule.behavior.criteria["type"])
    matched = near = None
    if not rule.is_about(action.target):
        near = nearest(behavior.targets or (), action.target)
        result, reason, because = "other_target", "", "it judges other targets"
    elif rule.stateless is None:
        ok = remembered is None or remembered.behaviors[0].result == "pass"
        result, reason = ("pass", "") if ok or remembered is None else ("fail", remembered.reason)
        because = _limits(behavior.criteria) + (f": {remembered.hint}" if remembered and remembered.hint else "")
    else:
        outcome = judge_at(rule.stateless, action, now)
        result, reason = "pass" if outcome.ok else "fail", outcome.reason
        because, matched, near = _why(kind, behavior.criteria, action, now, outcome.ok)
    binding = rule.binding
    return Said(
        binding.policy_id,
        binding.version,
        behavior.behavior_id,
        kind,
        result,
        "quarantine" if quarantines(binding, behavior) else rule.effect.value,
        reason,
        because,
        matched,
        near,
    )


def _why(kind: str, criteria: Any, action: Action, now: float, ok: bool) -> tuple[str, str | None, str | None]:
    """In words; the value that matched; the nearest one."""
    if kind in ("allowlist", "denylist"):
        values = criteria["values"]
        matched = Cover(values).matching(action.target)
        if matched is not None:
            return f"the target matches {matched}", matched, None
        near = nearest(values, action.target)
        return f"the target matches none of {len(values)} values" + (f", nearest is {near}" if near else ""), None, near
    if kind == "time":
        clock = datetime.fromtimestamp(now, ZoneInfo(criteria["timezone"]))
        return f"it is {clock:%a %Y-%m-%d %H:%M} in {criteria['timezone']}", None, None
    if ok:
        return "everything it looks at is as it must be", None, None
    if kind == "pattern":
        return _pattern(criteria, action), None, None
    return (_schema(criteria, action) if kind == "schema" else kind), None, None


def _pattern(criteria: Any, action: Action) -> str:
    """Which expression is not satisfied."""
    target = criteria.get("target")
    if target is not None and not Regex(target).matches(action.target):
        return f"the target does not match {target!r}"
    for name, expression in criteria.get("parameters", {}).items():
        value = Pointer(name).find(action.content)
        if value is MISSING:
            return _not_there(name, action)
        texts = value if isinstance(value, list) and value else [value]
        if not all(isinstance(text, str) and Regex(expression).matches(text) for text in texts):
            return f"{name} does not match {expression!r}"
    if action.content is None:
        return _not_there("", action)
    return f"something that is forbidden stands in {', '.join(repr(name) for name in criteria['forbidden'])}"


def _schema(criteria: Any, action: Action) -> str:
    name = criteria.get("parameter", "")
    value = Pointer(name).find(action.content)
    if value is MISSING or action.content is None:
        return _not_there(name, action)
    validator = jsonschema_rs.Draft202012Validator(
        criteria["schema"], validate_formats=True, pattern_options=jsonschema_rs.RegexOptions(), offline=True
    )
    error = next(iter(validator.iter_errors(value)))
    return f"{name}{''.join(f'/{part}' for part in error.instance_path)}: {error.message}"


def _not_there(name: str, action: Action) -> str:
    if action.content is None:
        return "it looks at parameters, and none are given: describe the request by its URL, with its body"
    return f"there is no {name}"


def _limits(criteria: Any) -> str:
    text = ", ".join(f"{name} {criteria[name]}" for name in _LIMITS if name in criteria)
    first = "workflow" in (criteria.get("scope"), criteria.get("per"))
    return text + (" (judged as the first action of a workflow)" if first else "")


def nearest(values: Sequence[str], target: str) -> str | None:
    """The value that has the longest beginning in common with the target, if it has more than a scheme in common."""

    def common(value: str) -> int:
        return next(
            (i for i, (a, b) in enumerate(zip(value, target, strict=False)) if a != b), min(len(value), len(target))
        )

    best = max(values, key=common, default=None)
    return best if best is not None and common(best) > len("https://") else None
