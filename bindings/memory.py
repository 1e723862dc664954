"""Judging what needs a memory: the behaviors with stateful criteria, over the actions of a log in their order.

Used by one event loop in the control process, so between judging an action and taking it nothing else happens. The same
entries in the same order make the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .criteria import compile_criteria
from .criterion import Happening, Memory, Stateful, Stateless
from .model import ActionType, BehaviorResult, Binding, Decision, Verdict
from .patterns import AllowSet
from .policy import AUDIT, MAX_AGENTS, effect, hint_for, result_of
from .subjects import applies_to
from .used import Used


@dataclass(frozen=True, slots=True)
class _Rule:
    """One stateful behavior with its memory, which all agents share."""

    memory: Memory
    remembers_all: bool
    types: frozenset[ActionType]
    targets: AllowSet | None
    passed: BehaviorResult
    failed: BehaviorResult
    effect: Verdict
    prefix: str

    def observes(self, happening: Happening) -> bool:
        return happening.type in self.types and (self.targets is None or self.targets.matches(happening.target))


class Memories:
    """The memories of all stateful behaviors of some bindings. Without any, asking costs one look-up."""

    __slots__ = ("_agents", "_rules", "horizon")

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._rules: list[tuple[Binding, _Rule]] = []
        self._agents: dict[str, tuple[_Rule, ...]] = {}
        self.horizon: float | None = 0.0
        """Seconds of the log that make the memories again: 0 for nothing, None for all of it."""
        for binding in bindings:
            for behavior in binding.behaviors:
                compiled = compile_criteria(behavior.criteria)
                if isinstance(compiled, Stateless):
                    continue
                self._reach(compiled)
                rule = _Rule(
                    compiled.begin(),
                    compiled.remembers_all,
                    behavior.observable_actions,
                    AllowSet(behavior.targets) if behavior.targets is not None else None,
                    result_of(binding, behavior, "pass"),
                    result_of(binding, behavior, "fail"),
                    effect(binding, behavior),
                    AUDIT if binding.mode == "audit" else "",
                )
                self._rules.append((binding, rule))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not self._rules

    def judge(self, now: Happening) -> Decision | None:
        """What the memories say of an action that is about to happen; None if no stateful behavior observes it.

        All of them speak, in the order of the bindings; the gravest effect counts, and the reason is that of the first
        that has it.
        """
        rules = [rule for rule in self._of(now.agent_id) if rule.observes(now)]
        if not rules:
            return None
        verdict, reason, hint, blamed = Verdict.ALLOW, "allowed", "", None
        results = []
        for rule in rules:
            outcome = rule.memory.judge(now)
            results.append(rule.passed if outcome.ok else rule.failed)
            if outcome.ok or rule.effect.weight <= verdict.weight:
                continue
            verdict, reason = rule.effect, rule.prefix + outcome.reason
            if verdict is not Verdict.FLAG:
                hint, blamed = outcome.hint or hint_for(ActionType(now.type)), rule.failed
        return Decision(verdict, reason, tuple(results), hint, blamed)

    def took(self, happened: Happening) -> None:
        """An action was let out."""
        for rule in self._of(happened.agent_id):
            if rule.remembers_all or rule.observes(happened):
                rule.memory.took(happened)

    def ended(self, happened: Happening, used: Used) -> None:
        """An action that was let out ended, and this is what it used."""
        for rule in self._of(happened.agent_id):
            if rule.remembers_all or rule.observes(happened):
                rule.memory.ended(happened, used)

    def _of(self, agent_id: str) -> tuple[_Rule, ...]:
        rules = self._agents.get(agent_id)
        if rules is None:
            if len(self._agents) >= MAX_AGENTS:
                self._agents.clear()
            rules = tuple(rule for binding, rule in self._rules if applies_to(binding.subjects, agent_id))
            self._agents[agent_id] = rules
        return rules

    def _reach(self, compiled: Stateful) -> None:
        if self.horizon is not None:
            self.horizon = None if compiled.horizon is None else max(self.horizon, compiled.horizon)
