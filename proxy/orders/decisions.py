"""What people decide on a running monitor: who is in quarantine, and what becomes of actions that are held.

Whoever gives an order is in its entry: `by` is a user of this machine or the SPIFFE ID of a client certificate. When
an order's answer is given, its entry is durable.
"""

from __future__ import annotations

from typing import Any

from ...evidence.entry import Resolution
from ...evidence.held import APPROVED, DENIED, Holds, Waiting
from ...evidence.ledger import Ledger
from ...formats.errors import UsageError
from .approvals import Approvals
from .arguments import agent_of, number_of, truth_of, why_of
from .demanded_holds import REASON as HOLD_DEMANDED
from .quarantine import Quarantine


class Decisions:
    """Every method raises UsageError for an order that makes no sense, LedgerError if it cannot be written down."""

    def __init__(self, ledger: Ledger, quarantine: Quarantine, holds: Holds, approvals: Approvals) -> None:
        self._ledger = ledger
        self._quarantine = quarantine
        self._holds = holds
        self._approvals = approvals

    async def quarantine(self, by: str, agent: str, why: str = "") -> dict[str, Any]:
        """Put an agent (its SPIFFE ID) in quarantine; what is listed of it then."""
        agent_id = agent_of(agent)
        self._quarantine.put(agent_id, by, why_of(why) or "ordered")
        await self._ledger.commit()
        return next(said for said in self._quarantine.listed() if said["agent"] == agent_id)

    async def release(self, by: str, agent: str, why: str = "") -> dict[str, Any]:
        """Let an agent out of quarantine."""
        agent_id = agent_of(agent)
        self._quarantine.release(agent_id, by, why_of(why) or "ordered")
        await self._ledger.commit()
        return {"agent": agent_id, "by": by}

    async def quarantined(self) -> list[dict[str, Any]]:
        """Who is in quarantine."""
        return self._quarantine.listed()

    async def waiting(self) -> list[dict[str, Any]]:
        """The held actions that wait for a decision, the oldest first."""
        now = self._ledger.now()
        return [_shown(one, now) for one in self._holds.waiting()]

    async def standing(self) -> list[dict[str, Any]]:
        """The standing approvals, the oldest first."""
        return self._approvals.listed()

    async def decide(self, by: str, seq: int, allow: bool, always: bool = False, why: str = "") -> dict[str, Any]:
        """Let the held action of entry `seq` out, once or (`always`) from now on, or deny it."""
        waiting = self._holds.get(number_of(seq, "seq"))
        truth_of(allow, "allow")
        truth_of(always, "always")
        if waiting is None:
            known = ", ".join(str(one.seq) for one in self._holds.waiting()) or "none"
            raise UsageError(f"no action waits with entry {seq}; those that wait: {known}")
        why = why_of(why)
        if always and not allow:
            raise UsageError("an action is denied once; to deny its like always, change the binding")
        if always and waiting.draft.reason == HOLD_DEMANDED:
            raise UsageError("it waits by an order: approve it once, or take that back (`lictor agent unhold`)")
        approval = self._approvals.give(waiting.draft, by, why) if always else None
        hint = "Your operator denied this action" + (f": {why}" if why else "; do not try another way round.")
        resolution = Resolution(True, APPROVED, by, why=why) if allow else Resolution(False, DENIED, by, hint, why)
        self._holds.resolve(seq, resolution)
        await self._ledger.commit()
        return {**_shown(waiting, self._ledger.now()), "allowed": allow, "by": by, "approval": approval}

    async def revoke(self, by: str, approval: int, why: str = "") -> dict[str, Any]:
        """Take a standing approval back."""
        given = self._approvals.revoke(number_of(approval, "approval"), by, why_of(why))
        await self._ledger.commit()
        return given


def _shown(one: Waiting, now: float) -> dict[str, Any]:
    draft = one.draft
    failed = [said for said in draft.behaviors if said["result"] != "pass"]
    return {
        "seq": one.seq,
        "agent": draft.agent_id,
        "action_type": draft.action_type,
        "action_target": draft.action_target,
        "action_parameters": dict(draft.action_parameters),
        "reason": draft.reason,
        "behaviors": [{"policy_id": said["policy_id"], "behavior_id": said["behavior_id"]} for said in failed],
        "since": one.since,
        "waiting_s": round(now - one.since, 1),
    }
