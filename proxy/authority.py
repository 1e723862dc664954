"""What the control process decides on an action in the order of the log.

Quarantine comes first, then memories, then the holds that were demanded, then standing approvals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..bindings.model import Binding, Verdict
from ..bindings.policy import CALLEE_IN_QUARANTINE, IN_QUARANTINE, QUARANTINED
from ..evidence.entry import ActionDraft, InboundDraft
from ..evidence.held import MONITOR
from ..evidence.lineage import Within
from ..evidence.state import Judged
from .orders.approvals import Approvals
from .orders.demanded_holds import REASON as HOLD_DEMANDED
from .orders.demanded_holds import DemandedHolds
from .orders.quarantine import Quarantine, quarantining
from .state import State, as_action


class Authority:
    """Implements `evidence.state.StateJudge`. A violation that calls for it puts the agent in quarantine, here."""

    def __init__(
        self,
        state: State,
        quarantine: Quarantine,
        demanded: DemandedHolds,
        approvals: Approvals,
        bindings: tuple[Binding, ...],
    ) -> None:
        self._state = state
        self._quarantine = quarantine
        self._demanded = demanded
        self._approvals = approvals
        self.put_in_force(bindings)

    def put_in_force(self, bindings: tuple[Binding, ...]) -> None:
        """Other bindings say what calls for quarantine."""
        self._quarantining = quarantining(bindings)

    def idle(self, agent_id: str) -> bool:
        return agent_id not in self._quarantine and agent_id not in self._demanded and self._state.idle(agent_id)

    def judge(self, draft: ActionDraft, wid: str, now: float, depth: int | None = None, within: Within = ()) -> Judged:
        if draft.agent_id in self._quarantine:
            return _barred(draft)
        return self._held(self._state.judge(draft, wid, now, depth, within), wid, now)

    def admit(self, draft: InboundDraft, now: float) -> InboundDraft | Judged:
        if draft.decision != "deny" and (draft.peer_id in self._quarantine or draft.agent_id in self._quarantine):
            hint = IN_QUARANTINE.hint if draft.peer_id in self._quarantine else CALLEE_IN_QUARANTINE.hint
            return dataclasses.replace(draft, decision="deny", reason=QUARANTINED, detail=hint, parents=(), evidence=())
        admitted = self._state.admit(draft, now)
        if isinstance(admitted, Judged):
            return self._held(admitted, draft.wid or "", now)
        held = (
            self._held(Judged(as_action(admitted)), draft.wid or "", now) if draft.peer_id in self._demanded else None
        )
        return held if held is not None and held.draft.decision == Verdict.HOLD else admitted

    def take(self, entry: Mapping[str, Any], seq: int, timestamp: float) -> None:
        self._state.take(entry, seq, timestamp)
        if self._quarantining and entry.get("decision") == "deny":
            self._isolate(entry, seq)

    def _isolate(self, entry: Mapping[str, Any], seq: int) -> None:
        for said in entry["behaviors"]:
            if said["result"] == "fail" and (said["policy_id"], said["behavior_id"]) in self._quarantining:
                why = f"{said['behavior_id']} of {said['policy_id']}: {entry['reason']}"
                self._quarantine.put(entry["agent_id"], MONITOR, why, seq)

    def _held(self, judged: Judged, wid: str, now: float) -> Judged:
        """What waits by order waits for a person, whatever was approved before."""
        draft = judged.draft
        if draft.decision == Verdict.DENY:
            return judged
        if draft.agent_id in self._demanded and self._demanded.covers(
            draft.agent_id, draft.action_type, draft.action_target, wid, now
        ):
            if draft.decision == Verdict.HOLD:
                return judged
            return Judged(dataclasses.replace(draft, decision="hold", reason=HOLD_DEMANDED))
        if draft.decision != Verdict.HOLD:
            return judged
        return dataclasses.replace(judged, resolution=self._approvals.resolution(judged.draft))


def _barred(draft: ActionDraft) -> Judged:
    if draft.decision == "deny":
        return Judged(draft)
    return Judged(dataclasses.replace(draft, decision="deny", reason=QUARANTINED), IN_QUARANTINE.hint)
