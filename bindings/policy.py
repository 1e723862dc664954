"""Judging: all bindings of an agent, compiled once, over one action at a time.

The behaviors of all bindings that apply to the agent and observe the action must all be satisfied; where there is none,
the action is denied (default deny). A policy never changes: a reload makes a new one. Behaviors with a memory observe
too, but are judged elsewhere (`bindings.memory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import count

from ..formats.names import url_text
from .catalog import Catalog
from .criteria import compile_criteria
from .criterion import Outcome, Reads, Stateless
from .keep import NOTHING, Keep, Kept, keep
from .marking import Marks
from .model import Action, ActionType, Behavior, BehaviorResult, Binding, Decision, Verdict
from .patterns import AllowSet
from .subjects import applies_to
from .target import Target

AUDIT = "audit:"
"""What the reason begins with when a binding that only watches let a violation pass."""

_HINTS = {
    ActionType.TOOL_CALL: "Use a tool that is approved for you, or ask your operator to approve this one.",
    ActionType.DATA_SOURCE_ACCESS: "Use a data source that is approved for you, or ask your operator about this one.",
    ActionType.MODEL_INFERENCE: "Use a model that is approved for you, or ask your operator to approve this one.",
    ActionType.DELEGATION: "Delegate to an agent that is approved for you, or ask your operator to approve this one.",
    ActionType.HTTP_REQUEST: "Use a tool or data source that is approved for you; this address is not.",
}
MAX_AGENTS = 4096
"""Agents whose rules are kept found: a partner's CA can name as many as it likes."""
MAX_SETS = 1000
"""Sets of behaviors that observe an action of one agent and type, whose decision is kept."""
_OTHER_HINT = "Ask your operator; trying another way to the same end will be refused too."

QUARANTINED = "quarantined"
IN_QUARANTINE = Decision(
    Verdict.DENY, QUARANTINED, (), "You are in quarantine: nothing you do is let out until your operator releases you."
)
"""The decision on everything that an agent in quarantine does."""
CALLEE_IN_QUARANTINE = Decision(
    Verdict.DENY, QUARANTINED, (), "The agent that is called is in quarantine until its operator releases it."
)
"""The decision on everything that is asked of it."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """One behavior ready to judge, with both of its results made beforehand. `compiled` None: judged elsewhere.

    `effect` is what a violation makes of the action. `mark` is the rule's own bit: in `Marks` that of its list; that of
    its `targets` is `shift` bits further up.
    """

    mark: int
    compiled: Stateless | None
    passed: BehaviorResult
    failed: BehaviorResult
    effect: Verdict
    prefix: str
    targets: AllowSet | None
    keep: Keep | None

    @property
    def reads(self) -> Reads:
        """What must be known of an action to judge it and to keep of it what is asked for."""
        return _most(part.reads for part in (self.compiled, self.keep) if part is not None)


_Compiled = tuple[tuple[Binding, tuple[tuple[Behavior, _Rule], ...]], ...]


@dataclass(frozen=True, slots=True)
class _Rules:
    """Rules for one agent and one action type, and the marks of those that are lists or that observe some targets only.

    `satisfied` are the decisions when all that observe an action are, by the marks of these.
    """

    rules: tuple[_Rule, ...]
    always: int
    sometimes: int
    allow: int
    deny: int
    judged_alone: tuple[_Rule, ...]
    satisfied: dict[int, Decision]
    hint: str
    reads: Reads
    keeps: bool


class Policy:
    """The bindings in force, the catalog that they speak of, and the agents in quarantine. Safe to share by threads."""

    __slots__ = ("_agents", "_compiled", "_marks", "_shift", "bindings", "catalog", "quarantined")

    def __init__(self, bindings: Iterable[Binding], catalog: Catalog) -> None:
        self.bindings = tuple(bindings)
        self.catalog = catalog
        number = count()
        self._compiled = tuple(
            (binding, tuple((behavior, _rule(binding, behavior, 1 << next(number))) for behavior in binding.behaviors))
            for binding in self.bindings
        )
        self._shift = next(number)
        self._marks = Marks(_lists(self._compiled, self._shift))
        self._agents: dict[str, dict[ActionType, _Rules]] = {}
        self.quarantined: frozenset[str] = frozenset()

    def with_quarantined(self, agents: Iterable[str]) -> Policy:
        """The same bindings, with these agents in quarantine and no others."""
        made = copy(self)
        made.quarantined = frozenset(agents)
        return made

    def policies_for(self, agent_id: str) -> tuple[Binding, ...]:
        """The bindings that apply to an agent, in the order given."""
        return tuple(binding for binding in self.bindings if applies_to(binding.subjects, agent_id))

    def judge(self, action: Action) -> Decision:
        """Judge one action, without I/O. Behaviors with a memory are left out: if all are such, it is allowed here."""
        if action.agent_id in self.quarantined:
            return IN_QUARANTINE
        rules = self._rules(action.agent_id).get(action.type)
        if rules is None:
            return default_deny(action.type)
        marks = self._marks.of(action.target)
        observing = rules.always | (marks >> self._shift & rules.sometimes)
        if not observing:
            return default_deny(action.type)
        failed = (rules.allow & ~marks | rules.deny & marks) & observing
        said: dict[int, Outcome] = {}
        for rule in rules.judged_alone:
            if rule.mark & observing and rule.compiled is not None:
                outcome = rule.compiled.judge(action)
                if not outcome.ok:
                    failed |= rule.mark
                    said[rule.mark] = outcome
        if failed:
            observed = [rule for rule in rules.rules if rule.mark & observing]
            return _unsatisfied(observed, failed, said, rules.hint, action)
        return rules.satisfied.get(observing) or _satisfied(rules, observing)

    def may_allow(self, action: Action) -> bool:
        """Could an action of this type on this target go out, whatever it carries? Memories are not asked."""
        rules = self._rules(action.agent_id).get(action.type)
        if rules is None or action.agent_id in self.quarantined:
            return False
        observing = [r for r in rules.rules if r.targets is None or r.targets.matches(action.target)]
        return bool(observing) and all(_may_let_out(rule, action) for rule in observing)

    def kept(self, action: Action) -> Kept:
        """What is to be kept of the action's content, allowed or not."""
        rules = self._rules(action.agent_id).get(action.type)
        if rules is None or not rules.keeps or action.content is None:
            return NOTHING
        observing = (r for r in rules.rules if r.targets is None or r.targets.matches(action.target))
        return keep([r.keep for r in observing if r.keep is not None], action.content)

    def reads(self, agent_id: str, target: Target | None, url: tuple[str, str, int, str]) -> Reads:
        """What must be known of this agent's request before it can be judged.

        `target` is the catalog's (None: not in it), `url` are scheme, host, port and path.
        """
        by_type = self._rules(agent_id)
        found: Reads = "target"
        for type_ in _types(target):
            rules = by_type.get(type_)
            if rules is not None and rules.reads != "target":
                found = _most((found, *(r.reads for r in rules.rules if _about(r, target, url))))
        return found

    def reads_of(self, agent_id: str, type_: ActionType) -> bool:
        """Does any behavior for this agent look at what an action of this type carries, or keep of it?"""
        rules = self._rules(agent_id).get(type_)
        return rules is not None and (rules.keeps or rules.reads != "target")

    def judge_authority(self, agent_id: str, host: str, port: int) -> Decision | None:
        """Can the host alone decide (at CONNECT)? None: no, some action there may be allowed. Else the denial.

        `host` and `port` are canonical (`formats.names`).
        """
        if agent_id in self.quarantined:
            return IN_QUARANTINE
        by_type = self._rules(agent_id)
        passthrough = self.catalog.passthrough(host, port) is not None
        targets: dict[ActionType, list[Target]] = {} if passthrough else {ActionType.HTTP_REQUEST: []}
        for target in self.catalog.at(host, port):
            targets.setdefault(target.action_type, []).append(target)
        refused: list[_Rule] = []
        for type_, there in targets.items():
            rules = by_type.get(type_)
            if rules is None:
                continue
            against = [rule for rule in rules.rules if _closes(rule, host, port, tuple(there))]
            if not against:
                return None
            refused += against
        if not refused:
            return default_deny(next(reversed(targets)))
        first = refused[0]
        reason = first.compiled.refuses if first.compiled is not None else ""
        results = tuple(rule.failed for rule in refused)
        return Decision(Verdict.DENY, reason, results, _HINTS[ActionType.HTTP_REQUEST], first.failed)

    def _rules(self, agent_id: str) -> dict[ActionType, _Rules]:
        rules = self._agents.get(agent_id)
        if rules is None:
            if len(self._agents) >= MAX_AGENTS:
                self._agents.clear()
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


def effect(binding: Binding, behavior: Behavior) -> Verdict:
    """What a violation of the behavior makes of the action. Quarantine denies it too."""
    if binding.mode == "audit":
        return Verdict.FLAG
    return Verdict.DENY if quarantines(binding, behavior) else Verdict(behavior.on_violation)


def denies(binding: Binding, behavior: Behavior) -> bool:
    """Whether a violation of the behavior denies the action."""
    return effect(binding, behavior) is Verdict.DENY


def quarantines(binding: Binding, behavior: Behavior) -> bool:
    """Whether a violation of the behavior puts the agent in quarantine."""
    return behavior.on_violation == "quarantine" and binding.mode == "enforce"


def default_deny(type_: ActionType) -> Decision:
    """The decision on an action that no behavior observes."""
    return Decision(Verdict.DENY, "default_deny", (), f"No policy lets you do this ({type_.value}). {_OTHER_HINT}")


def hint_for(type_: ActionType) -> str:
    """What an agent may do instead of a denied action of this type."""
    return _HINTS.get(type_, _OTHER_HINT)


def result_of(binding: Binding, behavior: Behavior, text: str) -> BehaviorResult:
    """What the behavior says of an action: "pass" or "fail"."""
    return BehaviorResult(binding.policy_id, binding.version, binding.digest, behavior.behavior_id, text)


def _rule(binding: Binding, behavior: Behavior, mark: int) -> _Rule:
    compiled = compile_criteria(behavior.criteria)
    return _Rule(
        mark,
        compiled if isinstance(compiled, Stateless) else None,
        result_of(binding, behavior, "pass"),
        result_of(binding, behavior, "fail"),
        effect(binding, behavior),
        AUDIT if binding.mode == "audit" else "",
        AllowSet(behavior.targets) if behavior.targets is not None else None,
        Keep(behavior.keep) if behavior.keep is not None else None,
    )


def _lists(compiled: _Compiled, shift: int) -> Iterator[tuple[int, Sequence[str]]]:
    """All lists of patterns, with their marks."""
    for _, rules in compiled:
        for behavior, rule in rules:
            if rule.compiled is not None and rule.compiled.listed is not None:
                yield rule.mark, rule.compiled.listed.values
            if behavior.targets is not None:
                yield rule.mark << shift, behavior.targets


def _rules(type_: ActionType, rules: tuple[_Rule, ...]) -> _Rules:
    lists = [(rule, rule.compiled.listed) for rule in rules if rule.compiled is not None]
    return _Rules(
        rules,
        always=sum(rule.mark for rule in rules if rule.targets is None),
        sometimes=sum(rule.mark for rule in rules if rule.targets is not None),
        allow=sum(rule.mark for rule, listed in lists if listed is not None and listed.allows),
        deny=sum(rule.mark for rule, listed in lists if listed is not None and not listed.allows),
        judged_alone=tuple(rule for rule, listed in lists if listed is None),
        satisfied={},
        hint=hint_for(type_),
        reads=_most(rule.reads for rule in rules),
        keeps=any(rule.keep is not None for rule in rules),
    )


def _satisfied(rules: _Rules, observing: int) -> Decision:
    """The decision when all that observe are satisfied, made once for each set of them."""
    passed = (rule.passed for rule in rules.rules if rule.mark & observing and rule.compiled is not None)
    decision = Decision(Verdict.ALLOW, "allowed", tuple(passed))
    if len(rules.satisfied) < MAX_SETS:
        rules.satisfied[observing] = decision
    return decision


def _may_let_out(rule: _Rule, action: Action) -> bool:
    """May the rule let out an action with this type and target, where it looks at nothing else, or at the content?"""
    if rule.compiled is None or rule.compiled.reads != "target" or rule.effect in (Verdict.FLAG, Verdict.HOLD):
        return True
    return rule.compiled.judge(action).ok


def _types(target: Target | None) -> tuple[ActionType, ...]:
    """What a request to a target of the catalog may be."""
    if target is None:
        return (ActionType.HTTP_REQUEST,)
    own = target.action_type
    return (own, ActionType.HTTP_REQUEST) if target.protocol == "a2a" else (own,)


def _about(rule: _Rule, target: Target | None, url: tuple[str, str, int, str]) -> bool:
    """May the rule observe an action of a request to this target?"""
    if rule.targets is None:
        return True
    return rule.targets.matches(url_text(*url)) or (target is not None and rule.targets.may_match_urn(target.urn))


def _most(reads: Iterable[Reads]) -> Reads:
    return max(reads, key=("target", "query", "body").index, default="target")


def _closes(rule: _Rule, host: str, port: int, targets: tuple[Target, ...]) -> bool:
    """Does this rule deny everything on an authority?"""
    if rule.effect is not Verdict.DENY or rule.targets is not None or rule.compiled is None:
        return False
    return not rule.compiled.may_allow_authority(host, port, targets)


def _unsatisfied(
    rules: Iterable[_Rule], failed: int, said: Mapping[int, Outcome], usual_hint: str, action: Action
) -> Decision:
    """The decision when those marked `failed` fail: the gravest of their effects, for the first that has it.

    `said` is what those of them said that are no lists.
    """
    verdict, reason, hint, blamed = Verdict.ALLOW, "", "", None
    results = []
    for rule in rules:
        if rule.compiled is None:
            continue
        if not rule.mark & failed:
            results.append(rule.passed)
            continue
        results.append(rule.failed)
        if rule.effect.weight <= verdict.weight:
            continue
        outcome = said.get(rule.mark) or rule.compiled.judge(action)
        verdict, reason = rule.effect, rule.prefix + outcome.reason
        if verdict is not Verdict.FLAG:
            hint, blamed = outcome.hint or usual_hint, rule.failed
    return Decision(verdict, reason, tuple(results), hint, blamed)
