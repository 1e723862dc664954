"""Judging: all bindings of an agent, compiled once, over one action at a time.

The behaviors of all bindings that apply to the agent and observe the action's type must all be satisfied; where there
is none, the action is denied (default deny). A policy never changes: a reload makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .catalog import ACTION_TYPES, Catalog, Target
from .criteria import compile_criteria
from .criterion import Compiled
from .model import Action, ActionType, Behavior, BehaviorResult, Binding, Decision, Verdict
from .subjects import applies_to

_HINTS = {
    ActionType.TOOL_CALL: "Use a tool that is approved for you, or ask your operator to approve this one.",
    ActionType.DATA_SOURCE_ACCESS: "Use a data source that is approved for you, or ask your operator about this one.",
    ActionType.MODEL_INFERENCE: "Use a model that is approved for you, or ask your operator to approve this one.",
    ActionType.DELEGATION: "Delegate to an agent that is approved for you, or ask your operator to approve this one.",
    ActionType.HTTP_REQUEST: "Use a tool or data source that is approved for you; this address is not.",
}
_OTHER_HINT = "Ask your operator; trying another way to the same end will be refused too."


@dataclass(frozen=True, slots=True)
class _Rule:
    """One behavior ready to judge, with both of its results made beforehand."""

    compiled: Compiled
    passed: BehaviorResult
    failed: BehaviorResult
    denies: bool


@dataclass(frozen=True, slots=True)
class _Rules:
    """All rules for one agent and one action type; `satisfied` is the decision when every one of them is."""

    rules: tuple[_Rule, ...]
    satisfied: Decision
    hint: str


class Policy:
    """The bindings in force and the catalog that they speak of. Safe to share between threads."""

    __slots__ = ("_agents", "_compiled", "bindings", "catalog")

    def __init__(self, bindings: Iterable[Binding], catalog: Catalog) -> None:
        self.bindings = tuple(bindings)
        self.catalog = catalog
        self._compiled = tuple(
            (binding, tuple((behavior, _rule(binding, behavior)) for behavior in binding.behaviors))
            for binding in self.bindings
        )
        self._agents: dict[str, dict[ActionType, _Rules]] = {}

    def policies_for(self, agent_id: str) -> tuple[Binding, ...]:
        """The bindings that apply to an agent, in the order given."""
        return tuple(binding for binding in self.bindings if applies_to(binding.subjects, agent_id))

    def judge(self, action: Action) -> Decision:
        """Judge one action, without I/O."""
        rules = self._rules(action.agent_id).get(action.type)
        if rules is None:
            return _default_deny(action.type)
        for rule in rules.rules:
            if not rule.compiled.judge(action).ok:
                return _unsatisfied(rules, action)
        return rules.satisfied

    def judge_authority(self, agent_id: str, host: str, port: int) -> Decision | None:
        """Can the host alone decide (at CONNECT)? None: no, some action there may be allowed. Else the denial.

        `host` and `port` are canonical (`formats.names`).
        """
        by_type = self._rules(agent_id)
        targets: dict[ActionType, list[Target]] = {ActionType.HTTP_REQUEST: []}
        for target in self.catalog.at(host, port):
            targets.setdefault(ACTION_TYPES[target.kind], []).append(target)
        refused: list[BehaviorResult] = []
        for type_, there in targets.items():
            rules = by_type.get(type_)
            if rules is None:
                continue
            against = [r.failed for r in rules.rules if r.denies and not _open(r, host, port, tuple(there))]
            if not against:
                return None
            refused += against
        if not refused:
            return _default_deny(next(reversed(targets)))
        return Decision(Verdict.DENY, "not_in_allowlist", tuple(refused), _HINTS[ActionType.HTTP_REQUEST])

    def _rules(self, agent_id: str) -> dict[ActionType, _Rules]:
        rules = self._agents.get(agent_id)
        if rules is None:
            rules = self._agents[agent_id] = self._collect(agent_id)
        return rules

    def _collect(self, agent_id: str) -> dict[ActionType, _Rules]:
        found: dict[ActionType, list[_Rule]] = {}
        for binding, rules in self._compiled:
            if applies_to(binding.subjects, agent_id):
                for behavior, rule in rules:
                    for type_ in behavior.observable_actions:
                        found.setdefault(type_, []).append(rule)
        return {type_: _rules(type_, tuple(observing)) for type_, observing in found.items()}


def _rule(binding: Binding, behavior: Behavior) -> _Rule:
    def result(text: str) -> BehaviorResult:
        return BehaviorResult(binding.policy_id, binding.version, binding.digest, behavior.behavior_id, text)

    compiled = compile_criteria(behavior.criteria)
    return _Rule(compiled, result("pass"), result("fail"), behavior.on_violation == "deny")


def _rules(type_: ActionType, rules: tuple[_Rule, ...]) -> _Rules:
    satisfied = Decision(Verdict.ALLOW, "allowed", tuple(rule.passed for rule in rules))
    return _Rules(rules, satisfied, _HINTS.get(type_, _OTHER_HINT))


def _open(rule: _Rule, host: str, port: int, targets: tuple[Target, ...]) -> bool:
    return rule.compiled.may_allow_authority(host, port, targets)


def _default_deny(type_: ActionType) -> Decision:
    return Decision(Verdict.DENY, "default_deny", (), f"No policy lets you do this ({type_.value}). {_OTHER_HINT}")


def _unsatisfied(rules: _Rules, action: Action) -> Decision:
    """The decision when at least one rule fails: deny if one of those denies, else flag."""
    verdict, reason = Verdict.FLAG, ""
    results = []
    for rule in rules.rules:
        outcome = rule.compiled.judge(action)
        results.append(rule.passed if outcome.ok else rule.failed)
        if outcome.ok:
            continue
        if rule.denies and verdict is not Verdict.DENY:
            verdict, reason = Verdict.DENY, outcome.reason
        reason = reason or outcome.reason
    return Decision(verdict, reason, tuple(results), rules.hint if verdict is Verdict.DENY else "")
