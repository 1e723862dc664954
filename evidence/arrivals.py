"""What a delegation that comes in is held to besides what it brings: what was revoked, what was taken, what is known.

That needs one memory for all workers, so it is here and not in `admission`.
"""

from __future__ import annotations

from dataclasses import replace

from .admission import ReplayMemory
from .ancestry import Ancestry
from .claims import SKEW
from .ect import MAX_AGE
from .entry import InboundDraft
from .revoked import REASON, Revoked
from .store import NodeRow, Reader


class Arrivals:
    """Made from what is `stored`, and looks up there which nodes are known."""

    def __init__(self, stored: Reader, revoked: Revoked, monitor_id: str, now: float) -> None:
        self._revoked = revoked
        recent = [row for row in stored.nodes() if row.origin == "received" and row.iat > now - MAX_AGE - SKEW]
        self._replay = ReplayMemory(recent, now)
        self._ancestry = Ancestry(stored, recent, monitor_id, now)

    def judge(self, draft: InboundDraft, now: float) -> InboundDraft:
        """The draft, denied if it may not be taken up; else its nodes are taken, and what is pending is said."""
        if draft.decision == "deny":
            return draft
        rows = received(draft)
        taken = self._replay.take([(row.wid, row.jti) for row in rows], now)
        if self._revoked and (detail := self._revoked.refuses(row.jti for row in rows)):
            return replace(draft, decision="deny", reason=REASON, detail=detail)
        if taken is not None:
            return replace(draft, decision="deny", reason="ect_replayed", detail=taken)
        problem, pending = self._ancestry.admit(rows, now)
        if problem:
            return replace(draft, decision="deny", reason="ect_invalid", detail=f"Execution-Context: {problem}")
        if not pending:
            return draft
        return replace(draft, action_parameters={**draft.action_parameters, "pending_parents": pending})


def received(draft: InboundDraft) -> list[NodeRow]:
    """The nodes that came along, for the store."""
    return [NodeRow(**{**one, "parents": tuple(one["parents"])}, origin="received") for one in draft.parents]
