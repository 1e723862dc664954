"""Criteria of type `delegation`: to whom work may be handed on, how deep, and what a caller's side must show.

`outgoing` is asked of delegations that an agent makes, `incoming` of those that come in at an ingress listener; what is
left out of either is not asked. Judged by the control process, where the depth is known, and where what came along has
been verified (`evidence.admission`). It remembers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...formats.cosignature import CheckpointPolicy, Witness
from ...formats.errors import FormatError, UsageError
from ...formats.signed_note import Note
from ..criterion import PASS, Happening, Outcome
from ..handed import Handed
from ..patterns import AllowSet
from ..subjects import applies_to, check_subject
from ..used import Used

_SKEW = 30.0
_LEVELS = {"L2": 2, "L3": 3}
_RESULTS = {"pass": ("pass",), "partial": ("pass", "partial")}
_UNKNOWN = Outcome(False, "delegation_unknown", "This is no delegation that the monitor knows enough of.")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Asked of what is handed on. `targets` and `agents` are patterns of URNs and of SPIFFE IDs; None: anyone.

    `child_binding` is not judged here: the node carries it along, and the callee's monitor sees to it.
    """

    targets: AllowSet | None = None
    agents: tuple[str, ...] = ()
    max_depth: int | None = None

    def judge(self, now: Happening, handed: Handed) -> Outcome:
        if self.targets is not None and not self._may_go(now.target, handed.to):
            return Outcome(False, "delegate_not_allowed", "Delegate to an agent that is approved for you.")
        return _depth(handed, self.max_depth)

    def _may_go(self, target: str, to: tuple[str, ...]) -> bool:
        assert self.targets is not None
        return self.targets.matches(target) or bool(self.agents and any(applies_to(self.agents, one) for one in to))


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Asked of the checkpoint that came along: cosignatures of a quorum, none older than `max_age` (None: any)."""

    policy: CheckpointPolicy
    max_age: float | None = None

    def judge(self, now: float, checkpoint: Note | None) -> Outcome:
        quorum, found = self.policy.quorum, self.policy.times(checkpoint, now + _SKEW) if checkpoint is not None else []
        if len(found) < quorum:
            text = f"The log behind the evidence must be cosigned by {quorum} of the witnesses that are known here."
            return _refused("not_witnessed", text)
        if self.max_age is not None and sum(now - seconds <= self.max_age for seconds in found) < quorum:
            text = f"The witnesses' cosignatures may be {self.max_age:g} s old; try again when there are fresh ones."
            return _refused("witnessed_too_long_ago", text)
        return PASS


@dataclass(frozen=True, slots=True)
class Incoming:
    """Asked of a caller and of what its monitor shows; None: not asked."""

    issuers: tuple[str, ...] | None = None
    results: tuple[str, ...] | None = None
    max_age: float | None = None
    policies: frozenset[str] | None = None
    max_depth: int | None = None
    profile: str | None = None
    min_score: float = 0.0
    level: int = 2
    witnessed: Witnessed | None = None

    def judge(self, now: Happening, handed: Handed) -> Outcome:
        if self.issuers is not None and not applies_to(self.issuers, now.agent_id):
            return _refused("issuer_not_accepted", f"Evidence of {now.agent_id} is not accepted here.")
        if self.level > 2 and not _all(one.level >= self.level for one in handed.shown):
            return _refused("level_too_low", "All evidence must be of level L3: of a log that it names, with its tree.")
        if self.policies is not None and not any(one.policy in self.policies for one in handed.shown):
            return _refused("policy_not_accepted", "None of the evidence is about a policy that is accepted here.")
        if self.results is not None and not _all(one.result in self.results for one in handed.shown):
            return _refused("result_not_accepted", f"Every result must be {' or '.join(self.results)}.")
        if self.max_age is not None and not _all(now.time - one.until <= self.max_age for one in handed.shown):
            return _refused("evidence_too_old", f"Evidence may be {self.max_age:g} s old; try again with fresh one.")
        if self.profile is not None and not handed.scores.get(self.profile, -1.0) >= self.min_score:
            text = f"A perf_score of {self.min_score:g} or more in the profile {self.profile} must be shown."
            return _refused("performance_not_shown", text)
        deep = _depth(handed, self.max_depth)
        if not deep.ok or self.witnessed is None:
            return deep
        return self.witnessed.judge(now.time, handed.checkpoint)


def _all(found: Any) -> bool:
    """Of no evidence nothing is true."""
    answers = list(found)
    return bool(answers) and all(answers)


def _refused(reason: str, hint: str) -> Outcome:
    return Outcome(False, reason, hint)


def _depth(handed: Handed, limit: int | None) -> Outcome:
    if limit is None or (handed.depth is not None and handed.depth <= limit):
        return PASS
    if handed.depth is None:
        return _refused("depth_unknown", "How often this work was handed on is not stated, and here it must be.")
    return _refused("chain_too_deep", f"Work may be handed on {limit} times; this would be time {handed.depth}.")


@dataclass(frozen=True, slots=True)
class CompiledDelegation:
    """Its own memory, since it remembers nothing. A direction that is None is not asked anything."""

    outgoing: Outgoing
    incoming: Incoming
    remembers_all: bool = False
    horizon: float | None = 0.0

    def begin(self) -> CompiledDelegation:
        return self

    def judge(self, now: Happening) -> Outcome:
        if now.handed is None:
            return _UNKNOWN
        return (self.incoming if now.handed.inbound else self.outgoing).judge(now, now.handed)

    def took(self, happened: Happening) -> None:
        pass

    def ended(self, happened: Happening, used: Used) -> None:
        pass


class Delegation:
    """`{"type": "delegation", "outgoing": {"to": […], "max_depth": 2}, "incoming": {"result": "pass", …}}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledDelegation:
        return CompiledDelegation(_outgoing(criteria.get("outgoing", {})), _incoming(criteria.get("incoming", {})))


def _outgoing(asked: Mapping[str, Any]) -> Outgoing:
    to = asked.get("to")
    if to is None:
        return Outgoing(max_depth=asked.get("max_depth"))
    agents = tuple(check_subject(value) for value in to if value.startswith("spiffe://"))
    targets = AllowSet(value for value in to if not value.startswith("spiffe://"))
    return Outgoing(targets, agents, asked.get("max_depth"))


def _incoming(asked: Mapping[str, Any]) -> Incoming:
    performance = asked.get("performance", {})
    return Incoming(
        issuers=tuple(map(check_subject, asked["issuers"])) if "issuers" in asked else None,
        results=_RESULTS[asked["result"]] if "result" in asked else None,
        max_age=float(asked["max_age_s"]) if "max_age_s" in asked else None,
        policies=frozenset(asked["policies"]) if "policies" in asked else None,
        max_depth=asked.get("max_depth"),
        profile=performance.get("profile"),
        min_score=float(performance.get("min_score", 0)),
        level=_LEVELS[asked.get("level", "L2")],
        witnessed=_witnessed(asked["witnesses"]) if "witnesses" in asked else None,
    )


def _witnessed(asked: Mapping[str, Any]) -> Witnessed:
    try:
        witnesses = tuple(map(Witness.parse, asked["keys"]))
    except FormatError as e:
        raise UsageError(f"incoming.witnesses.keys: {e}: `lictor witness key` prints one") from None
    try:
        policy = CheckpointPolicy(witnesses, asked.get("quorum", len(witnesses)))
    except UsageError as e:
        raise UsageError(f"incoming.witnesses: {e}") from None
    return Witnessed(policy, float(asked["max_age_s"]) if "max_age_s" in asked else None)
