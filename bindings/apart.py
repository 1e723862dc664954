"""The behaviors of bindings one by one: which of them judge an action, and what each says of it.

For explaining and for judging again; actions on their way are judged by `policy` and `memory`, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .criteria import compile_criteria
from .criteria.time import CompiledTime
from .criterion import PASS, Compiled, Outcome, Stateless
from .model import Action, ActionType, Behavior, Binding, Verdict
from .patterns import AllowSet
from .policy import effect
from .subjects import applies_to

MAX_FOUND = 4096
"""Agents and action types whose rules are kept found: what judges again is told of as many as monitors like."""
_OUTSIDE = Outcome(False, "outside_of_time")


@dataclass(frozen=True, slots=True)
class Rule:
    """One behavior ready to judge."""

    binding: Binding
    behavior: Behavior
    compiled: Compiled
    targets: AllowSet | None

    @property
    def stateless(self) -> Stateless | None:
        """None if it needs a memory."""
        return self.compiled if isinstance(self.compiled, Stateless) else None

    @property
    def effect(self) -> Verdict:
        """What a violation makes of the action."""
        return effect(self.binding, self.behavior)

    def is_about(self, target: str) -> bool:
        """Whether it judges actions on this target, if it observes their type."""
        return self.targets is None or self.targets.matches(target)


class Rules:
    """All behaviors of some bindings, by agent and action type, in the order of the bindings."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._rules = [
            Rule(
                binding,
                behavior,
                compile_criteria(behavior.criteria),
                AllowSet(behavior.targets) if behavior.targets is not None else None,
            )
            for binding in bindings
            for behavior in binding.behaviors
        ]
        self._found: dict[tuple[str, ActionType], tuple[Rule, ...]] = {}

    def of(self, agent_id: str, type_: ActionType) -> tuple[Rule, ...]:
        """Those that apply to the agent and observe the type, whatever the target."""
        found = self._found.get((agent_id, type_))
        if found is None:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            found = self._found[agent_id, type_] = tuple(
                rule
                for rule in self._rules
                if type_ in rule.behavior.observable_actions and applies_to(rule.binding.subjects, agent_id)
            )
        return found


def judge_at(compiled: Stateless, action: Action, time: float) -> Outcome:
    """What the criteria say of an action at this time (NumericDate)."""
    if isinstance(compiled, CompiledTime):
        return PASS if compiled.holds(time) else _OUTSIDE
    return compiled.judge(action)
