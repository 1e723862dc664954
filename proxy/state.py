"""The memories of the running monitor: kept from entries as they are added, and made again from the log.

Order of judgement: the worker judges what needs no memory; an action that passed there is judged here, by every
stateful behavior that observes it, and then added to the log; an action that was let out counts from that moment on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from ..bindings.criterion import Happening
from ..bindings.handed import Handed, handed_of
from ..bindings.memory import Memories
from ..bindings.model import ActionType, Binding, Decision, Verdict
from ..bindings.policy import default_deny
from ..bindings.used import used_of
from ..evidence.entry import ActionDraft, InboundDraft, came_along, went_on
from ..evidence.ledger import Ledger
from ..evidence.lineage import Within
from ..evidence.retention import first_since
from ..evidence.state import Judged
from ..evidence.store import Reader
from .attenuated import Attenuation

logger = logging.getLogger(__name__)

MAX_CALLERS = 1 << 16
"""Delegations that came in and whose outcome is awaited; beyond, the oldest outcome counts for nobody."""
_LET_OUT = (Verdict.ALLOW.value, Verdict.FLAG.value)
Entry = tuple[Mapping[str, Any], int, float]


class Book:
    """Memories, and how entries are read into them."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        bindings = tuple(bindings)
        self.memories = Memories(bindings)
        self.attenuation = Attenuation(bindings)
        self.broken = False
        """Something that happened could not be remembered: nothing that is said is to be relied on any more."""
        self._callers: dict[int, str] = {}

    def judge(
        self, agent_id: str, type_: str, target: str, wid: str, now: float, handed: Handed | None = None
    ) -> Decision | None:
        if self.memories.empty:
            return None
        return self.memories.judge(Happening(agent_id, type_, target, wid, now, handed))

    def take(self, entry: Mapping[str, Any], seq: int, timestamp: float) -> None:
        if self.memories.empty:
            return
        if "outcome_of" in entry:
            agent, outcome = self._callers.pop(entry["outcome_of"], entry["agent_id"]), entry["outcome"]
            self.memories.ended(_happening(entry, agent, timestamp), used_of(outcome))
            return
        if entry["decision"] not in _LET_OUT or not went_on(entry):
            return
        agent, parameters = entry["agent_id"], entry["action_parameters"]
        if parameters.get("direction") == "inbound":
            agent = self._callers[seq] = parameters["peer"]
            if len(self._callers) > MAX_CALLERS:
                del self._callers[next(iter(self._callers))]
        self.memories.took(_happening(entry, agent, timestamp))

    def read(self, log: Reader, end: int, now: float) -> None:
        """Take the entries of a log up to `end`, as far back as they matter at `now`."""
        if self.memories.empty:
            return
        horizon = self.memories.horizon
        first = 0 if horizon is None else first_since(log, end, now - horizon)
        if first <= log.erased() > 0:
            logger.warning("behaviors with a memory look back to entries that were erased: they know nothing of these")
        for seq, data in log.entries(first, end):
            entry = orjson.loads(data)
            self.take(entry, seq, entry["timestamp"])


class State:
    """The memories in force. Implements `evidence.state.StateJudge`."""

    def __init__(self, bindings: Iterable[Binding], log: Reader, end: int, now: float) -> None:
        """Make the memories from the first `end` entries of `log`. Reads them once; what is kept does not grow."""
        self._book = Book(bindings)
        self._book.read(log, end, now)
        self._late: list[Entry] | None = None

    def idle(self, agent_id: str) -> bool:
        return self._book.memories.empty and self._late is None and not self._book.broken

    def judge(self, draft: ActionDraft, wid: str, now: float, depth: int | None = None, within: Within = ()) -> Judged:
        handed = None
        if draft.action_type == ActionType.DELEGATION and draft.decision != Verdict.DENY:
            groups = self._book.attenuation.of(draft.agent_id, draft.action_target, within)
            if groups is None:
                return _refused(draft, "too_many_bindings", "Too many bindings stand behind this work to hand it on.")
            draft = dataclasses.replace(draft, action_parameters=_handed_on(draft, depth, groups))
            handed = handed_of(draft.action_parameters)
        return self._judge(draft, wid, now, handed)

    def admit(self, draft: InboundDraft, now: float) -> InboundDraft | Judged:
        if draft.decision == Verdict.DENY:
            return draft
        problem = self._book.attenuation.problem(draft.agent_id, draft.within) if draft.within else ""
        if problem:
            logger.warning("a delegation of %s to %s is refused: %s", draft.peer_id, draft.agent_id, problem)
            hint = (
                "Whoever takes this up may be allowed nothing that you are not, and here that is not so, or not known."
            )
            return _refused(as_action(draft), "binding_not_subset", hint)
        judged = self._judge(as_action(draft), draft.wid or "", now, handed_of(came_along(draft)))
        if judged.draft.decision not in _LET_OUT:
            return judged
        return dataclasses.replace(draft, decision=judged.draft.decision, reason=judged.draft.reason)

    def _judge(self, draft: ActionDraft, wid: str, now: float, handed: Handed | None) -> Judged:
        if draft.decision == Verdict.DENY:
            return Judged(draft)
        try:
            said = self._book.judge(draft.agent_id, draft.action_type, draft.action_target, wid, now, handed)
        except Exception:
            logger.exception("a behavior with a memory failed to judge: the action is denied")
            return _failed(draft)
        if self._book.broken:
            return _failed(draft)
        if said is None:
            if draft.behaviors:
                return Judged(draft)
            # The worker left the judgement to memories that are no longer, or not yet, in force here.
            denied = default_deny(ActionType(draft.action_type))
            return Judged(dataclasses.replace(draft, decision="deny", reason=denied.reason), denied.hint)
        behaviors = [*draft.behaviors, *(result.to_json() for result in said.behaviors)]
        decision, reason = said.verdict.value, said.reason
        if said.verdict.weight <= Verdict(draft.decision).weight:
            decision, reason = draft.decision, draft.reason
        blamed = said.blamed.to_json() if said.blamed is not None else None
        judged = dataclasses.replace(draft, decision=decision, reason=reason, behaviors=behaviors)
        return Judged(judged, said.hint, blamed)

    def take(self, entry: Mapping[str, Any], seq: int, timestamp: float) -> None:
        """An entry was added. After an error everything is denied, until the memories are made again from the log."""
        try:
            self._book.take(entry, seq, timestamp)
        except Exception:
            logger.exception("a behavior with a memory failed to remember entry %d: everything is denied now", seq)
            self._book.broken = True
        if self._late is not None:
            self._late.append((entry, seq, timestamp))

    async def change(
        self, bindings: Iterable[Binding], ledger: Ledger, open_log: Callable[[], Reader]
    ) -> Callable[[], None]:
        """Make the memories of other bindings; calling what it returns puts them in force.

        The log as it is now is read in a thread while the memories in force go on; what they take meanwhile, the new
        ones take at the end. Raises LedgerError; then the memories in force stay.
        """
        book, end, self._late = Book(bindings), ledger.size, []
        try:
            if not book.memories.empty:
                await ledger.commit()
                await asyncio.to_thread(_read, book, open_log, end, ledger.now())
        except BaseException:
            self._late = None
            raise

        def put_in_force() -> None:
            late, self._late = self._late or [], None
            for entry in late:
                book.take(*entry)
            self._book = book

        return put_in_force


def _read(book: Book, open_log: Callable[[], Reader], end: int, now: float) -> None:
    with contextlib.closing(open_log()) as log:
        book.read(log, end, now)


def _failed(draft: ActionDraft) -> Judged:
    return _refused(draft, "monitor_error", "An error inside the monitor: it could not be judged. Tell your operator.")


def _refused(draft: ActionDraft, reason: str, hint: str) -> Judged:
    return Judged(dataclasses.replace(draft, decision="deny", reason=reason), hint)


def _handed_on(draft: ActionDraft, depth: int | None, within: Within) -> dict[str, Any]:
    """The parameters of a delegation: whom it goes to, which of its workflow it is, and what it is within."""
    more: dict[str, Any] = {"to": list(draft.audience)}
    if depth is not None:
        more["depth"] = depth + 1
    if within:
        more["within"] = [*map(list, within)]
    return {**draft.action_parameters, **more}


def as_action(draft: InboundDraft) -> ActionDraft:
    """A delegation that came in as what its caller did."""
    return ActionDraft(
        draft.peer_id,
        ActionType.DELEGATION.value,
        draft.action_target,
        {**came_along(draft), "callee": draft.agent_id},
        draft.decision,
        draft.reason,
        draft.behaviors,
    )


def _happening(entry: Mapping[str, Any], agent_id: str, timestamp: float) -> Happening:
    return Happening(agent_id, entry["action_type"], entry["action_target"], entry["wid"], timestamp)
