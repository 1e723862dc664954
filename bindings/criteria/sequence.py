"""Criteria of type `sequence`: what must have been done before an action, or must not.

`must_follow`: an action on one of these targets was let out before. `never_after`: none was. The scope is the agent, or
the workflow with all agents of it that the binding applies to. What was done before is remembered whatever its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...formats.errors import UsageError
from ..criterion import PASS, Happening, Outcome
from ..patterns import AllowSet
from ..remembered import Remembered
from ..used import Used

KEPT_S = 31 * 86400.0
"""A workflow is forgotten so long after its last action."""
_MISSING = Outcome(False, "missing_predecessor", "Something else must be done before this; ask your operator what.")
_AFTER = Outcome(False, "forbidden_after", "What was done before rules this out; ask your operator.")


class SequenceMemory:
    """When an action that matters was last let out, by agent or by workflow."""

    __slots__ = ("_criteria", "_last", "_overflowed")

    def __init__(self, criteria: CompiledSequence) -> None:
        self._criteria = criteria
        self._last: Remembered[str, float] = Remembered(KEPT_S if criteria.by_workflow else None)
        self._overflowed = False

    def judge(self, now: Happening) -> Outcome:
        criteria = self._criteria
        if criteria.free.matches(now.target) or (criteria.must and criteria.before.matches(now.target)):
            return PASS
        last = self._last.get(criteria.key(now))
        happened = last is not None and (criteria.within is None or now.time - last <= criteria.within)
        if criteria.must:
            return PASS if happened else _MISSING
        return _AFTER if happened or (last is None and self._overflowed) else PASS

    def took(self, happened: Happening) -> None:
        key = self._criteria.key(happened)
        if self._criteria.before.matches(happened.target):
            if self._last.no_room_for(key, happened.time):
                self._overflowed = True  # from now on, what is not remembered may have been anything
            else:
                self._last.put(key, happened.time, happened.time)
        elif (last := self._last.get(key)) is not None:
            self._last.put(key, last, happened.time)

    def ended(self, happened: Happening, used: Used) -> None:
        pass


@dataclass(frozen=True, slots=True)
class CompiledSequence:
    """`before` are the targets that matter, `free` those that are not judged, `within` seconds (None: ever)."""

    must: bool
    before: AllowSet
    free: AllowSet
    by_workflow: bool
    within: float | None
    remembers_all: bool = True

    @property
    def horizon(self) -> float | None:
        return self.within

    def key(self, happening: Happening) -> str:
        return happening.wid if self.by_workflow else happening.agent_id

    def begin(self) -> SequenceMemory:
        return SequenceMemory(self)


class Sequence:
    """`{"type": "sequence", "scope": …, "must_follow" | "never_after": […], "except": […], "within_s": …}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledSequence:
        must = "must_follow" in criteria
        if must == ("never_after" in criteria):
            raise UsageError("a sequence needs either must_follow or never_after, and not both")
        within = criteria.get("within_s")
        return CompiledSequence(
            must,
            AllowSet(criteria["must_follow" if must else "never_after"]),
            AllowSet(criteria.get("except", ())),
            criteria["scope"] == "workflow",
            None if within is None else float(within),
        )
