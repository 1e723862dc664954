"""What people decide on a running monitor: who is in quarantine, and what becomes of actions that are held.

Whoever gives an order is in its entry: `by` is a user of this machine or the SPIFFE ID of a client certificate. When
an order's answer is given, its entry is durable.
"""

from __future__ import annotations

from typing import Any

from ..evidence.entry import Resolution
from ..evidence.held import APPROVED, DENIED, Holds, Waiting
from ..evidence.ledger import Ledger
from ..formats.errors import FormatError, UsageError
from ..formats.spiffe import SpiffeId
from .approvals import Approvals
from .quarantine import Quarantine

MAX_WHY = 500


class Decisions:
    """Every method raises UsageError for an order that makes no sense, LedgerError if it cannot be written down."""

    def __init__(self, ledger: Ledger, quarantine: Quarantine, holds: Holds, approvals: Approvals) -> None:
        self._ledger = ledger
        self._quarantine = quarantine
        self._holds = holds
        self._approvals = approvals

    async def quarantine(self, by: str, agent: str, why: str = "") -> dict[str, Any]:
        """Put an agent (its SPIFFE ID) in quarantine; what is listed of it then."""
        agent_id = _agent(agent)
        self._quarantine.put(agent_id, by, _text(why) or "ordered")
        await self._ledger.commit()
        return next(said for said in self._quarantine.listed() if said["agent"] == agent_id)

    async def release(self, by: str, agent: str, why: str = "") -> dict[str, Any]:
        """Let an agent out of quarantine."""
        agent_id = _agent(agent)
        self._quarantine.release(agent_id, by, _text(why) or "ordered")
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
        waiting = self._holds.get(_number(seq, "seq"))
        _truth(allow, "allow")
        _truth(always, "always")
        if waiting is None:
            known = ", ".join(str(one.seq) for one in self._holds.waiting()) or "none"
            raise UsageError(f"no action waits with entry {seq}; those that wait: {known}")
        why = _text(why)
        if always and not allow:
            raise UsageError("an action is denied once; to deny its like always, change the binding")
        approval = self._approvals.give(waiting.draft, by, why) if always else None
        hint = "Your operator denied this action" + (f": {why}" if why else "; do not try another way round.")
        resolution = Resolution(True, APPROVED, by, why=why) if allow else Resolution(False, DENIED, by, hint, why)
        self._holds.resolve(seq, resolution)
        await self._ledger.commit()
        return {**_shown(waiting, self._ledger.now()), "allowed": allow, "by": by, "approval": approval}

    async def revoke(self, by: str, approval: int, why: str = "") -> dict[str, Any]:
        """Take a standing approval back."""
        given = self._approvals.revoke(_number(approval, "approval"), by, _text(why))
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


def _agent(text: Any) -> str:
    try:
        return str(SpiffeId.parse(text))
    except (FormatError, TypeError, AttributeError):
        raise UsageError(f"expected the SPIFFE ID of an agent, found {text!r}") from None


def _number(value: Any, name: str) -> int:
    if type(value) is not int or value < 0:
        raise UsageError(f"{name}: expected the number of an entry, found {value!r}")
    return value


def _truth(value: Any, name: str) -> None:
    if type(value) is not bool:
        raise UsageError(f"{name}: expected true or false, found {value!r}")


def _text(why: Any) -> str:
    if not isinstance(why, str) or len(why) > MAX_WHY or not why.isprintable():
        raise UsageError(f"why: expected at most {MAX_WHY} printable characters")
    return why
