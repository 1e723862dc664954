"""Judges a recorded action again, by the Verifier's own copies of the bindings that its entry names.

What has no memory is judged, at the time of the entry: by the target always, by method and query where the entry shows
them, by other values where each one that is looked at was disclosed as it stood. What looks at other actions, and what
was decided about a host alone, cannot be told from one entry; neither can an absent value be told from one that was not
kept. An honest monitor's entry never differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...bindings.apart import Rule, Rules, judge_at
from ...bindings.criteria.time import CompiledTime
from ...bindings.criterion import Stateless
from ...bindings.model import Action, ActionType, Verdict
from ...evidence.bet import Bet
from ...formats.errors import FormatError
from .appraisal import References

SLACK_S = 60.0
"""So much before its entry an action may have been judged."""
_LET_OUT = ("allow", "flag", "hold")
_POINTED = {"pattern": ("parameters", "forbidden"), "schema": ()}
"""Criteria on values, and which of their members have pointers for names."""


@dataclass(frozen=True, slots=True)
class Again:
    """What one behavior said ("pass", "fail"), and says by the reference copy. None: nothing, and `why` says why."""

    policy: str
    behavior: str
    recorded: str | None
    reference: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Reevaluation:
    """All behaviors of an entry judged again; `problem` says in words what no honest monitor records, or nothing."""

    behaviors: tuple[Again, ...]
    problem: str

    @property
    def verdict(self) -> Literal["misjudged", "agrees", "undecided"]:
        """Whether the entry is what the reference copies say; in doubt it is undecided."""
        if self.problem:
            return "misjudged"
        decided = all(one.reference is not None for one in self.behaviors)
        return "agrees" if self.behaviors and decided else "undecided"

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "behaviors": [asdict(one) for one in self.behaviors], "problem": self.problem}


def judge_again(
    entry: Mapping[str, Any], opened: Mapping[str, Any], references: References, bet: Bet | None = None
) -> Reevaluation:
    """Judge the action of an entry; `opened` are values that were disclosed of it, by their JSON Pointers.

    `bet`: one in whose window it is. Raises FormatError if it is not the entry of an action.
    """
    try:
        return _Entry(entry, opened).judged(references, bet)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as e:
        raise FormatError(f"this is not the entry of an action: {e!r}") from None


class _Entry:
    """An entry as it is being judged again."""

    def __init__(self, entry: Mapping[str, Any], opened: Mapping[str, Any]) -> None:
        parameters = entry["action_parameters"]
        self._decision = Verdict(entry["decision"])
        self._said: list[Mapping[str, str]] = entry["behaviors"]
        self._time = float(entry["timestamp"])
        self._seq: int = entry["seq"]
        self._apart = _apart(entry)
        self._known = dict(opened)
        if "method" in parameters:
            self._known["/method"] = parameters["method"]
        self._no_query = "method" in parameters and "query_digest" not in parameters
        content = _nested(self._known)
        type_, agent = ActionType(entry["action_type"]), entry["agent_id"]
        self._action = Action(agent, type_, entry["action_target"], parameters, content or None)

    def judged(self, references: References, bet: Bet | None) -> Reevaluation:
        found: list[Again] = []
        problems: list[str] = []
        for digest in dict.fromkeys(said["binding"] for said in self._said):
            rules = references.rules(digest)
            said = {one["behavior_id"]: one for one in self._said if one["binding"] == digest}
            if self._apart or rules is None:
                why = self._apart or "there is no reference copy of the binding that judged"
                found += [Again(one["policy_id"], name, one["result"], None, why) for name, one in said.items()]
                continue
            for again, problem in self._by(rules, said):
                found.append(again)
                problems += [problem] if problem else []
        found += self._left_out(references, bet) if bet is not None else ()
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        problem = f"entry {self._seq} is not what its bindings say: {problems[0]}{more}" if problems else ""
        return Reevaluation(tuple(found), problem)

    def _left_out(self, references: References, bet: Bet) -> Iterator[Again]:
        """The binding that a BET names may have come into force while the action was on its way: that is no proof."""
        digest = str(bet.ext.get("binding_digest"))
        rules = references.rules(digest)
        if rules is None or self._apart or any(said["binding"] == digest for said in self._said):
            return
        for rule in rules.of(self._action.agent_id, self._action.type):
            if rule.is_about(self._action.target):
                why = "it is in the binding of the BET, and that is none of those that judged"
                yield Again(bet.policy, rule.behavior.behavior_id, None, None, why)

    def _by(self, rules: Rules, said: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Again, str]]:
        """Each behavior of one binding that spoke or should have, and what is wrong with that."""
        observing = {
            rule.behavior.behavior_id: rule
            for rule in rules.of(self._action.agent_id, self._action.type)
            if rule.is_about(self._action.target)
        }
        for name, one in said.items():
            rule = observing.pop(name, None)
            policy, recorded = one["policy_id"], one["result"]
            if rule is None:
                text = f"{name[:80]} does not observe such an action of this agent"
                yield Again(policy, name, recorded, None, text), text
                continue
            result, why = self._result(rule)
            again = Again(policy, name, recorded, result, why)
            if result is not None and result != recorded:
                yield again, f"{name[:80]} said {recorded[:20]} and says {result}"
            elif recorded == "fail" and rule.effect.weight > self._decision.weight:
                yield (
                    again,
                    f"{name[:80]} failed, which is to {rule.effect.value}, and the decision is {self._decision}",
                )
            else:
                yield again, ""
        for name, rule in observing.items():
            if rule.stateless is not None and self._decision.value in _LET_OUT:
                result, why = self._result(rule)
                text = f"{name[:80]} observes such actions and was not asked"
                yield Again(rule.binding.policy_id, name, None, result, why or text), text

    def _result(self, rule: Rule) -> tuple[str | None, str]:
        compiled = rule.stateless
        if compiled is None:
            return None, "it looks at other actions too"
        if not self._shows(rule, compiled):
            return None, "it looks at what was not disclosed"
        ok = judge_at(compiled, self._action, self._time).ok
        if isinstance(compiled, CompiledTime) and ok != compiled.holds(self._time - SLACK_S):
            return None, "the hour changed just then"
        return "pass" if ok else "fail", ""

    def _shows(self, rule: Rule, compiled: Stateless) -> bool:
        """Whether all that the criteria look at is known as it stood."""
        if compiled.reads == "target" or (compiled.reads == "query" and self._no_query):
            return True
        criteria = rule.behavior.criteria
        members = _POINTED.get(criteria["type"])
        if members is None:
            return False
        pointers = [pointer for member in members for pointer in criteria.get(member, ())]
        if criteria["type"] == "schema":
            pointers = [criteria.get("parameter", "")]
        return all(pointer in self._known for pointer in pointers)


def _apart(entry: Mapping[str, Any]) -> str:
    """Why nothing of an entry can be judged again."""
    parameters = entry["action_parameters"]
    if "decision_of" in entry:
        return "a person decided this"
    if parameters.get("direction") == "inbound" or "callee" in parameters:
        return "it came from another agent"
    return "its host alone was judged" if parameters.get("method") == "CONNECT" else ""


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Values by JSON Pointer as content in which `Pointer.find` finds them; places in lists are names like others."""
    content: dict[str, Any] = {}
    for pointer, value in leaves.items():
        *path, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:] or [""])
        at = content
        for part in path:
            inner = at.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{pointer[:80]} lies in what is no container")
            at = inner
        at[last] = value
    return content
