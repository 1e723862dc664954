"""Standing approvals: what an agent may do from now on although a behavior would hold it.

Each is for one agent, action type and target, and for the behaviors that had failed when it was given; it says nothing
of other behaviors, and nothing of what denies. It holds until it is revoked, whatever version the binding has then.
"""

from __future__ import annotations

from typing import Any

import orjson

from ...evidence.entry import APPROVAL, APPROVAL_REVOKED, ActionDraft, Resolution, own_fields
from ...evidence.held import APPROVED_ALWAYS
from ...evidence.ledger import Ledger
from ...evidence.store import Reader, read_meta
from ...formats.errors import UsageError

MOST = 1000
_META = "standing_approvals"
_Key = tuple[str, str, str]


class Approvals:
    """Kept in the store with the entries that say who gave them; durable with the ledger's next commit."""

    def __init__(self, ledger: Ledger, stored: Reader, monitor_id: str) -> None:
        self._ledger = ledger
        self._monitor_id = monitor_id
        self._given: dict[int, dict[str, Any]] = {
            given["approval"]: given for given in read_meta(stored, _META, list[Any]())
        }
        self._index()

    def listed(self) -> list[dict[str, Any]]:
        """The oldest first; `approval` names each, and is the seq of its entry."""
        return list(self._given.values())

    def resolution(self, draft: ActionDraft) -> Resolution | None:
        """That a held action goes out, if all that speaks against it is approved."""
        approved = self._found.get((draft.agent_id, draft.action_type, draft.action_target))
        if approved is None or not all(_of(said) in approved for said in _failed(draft)):
            return None
        by = ", ".join(sorted({approved[_of(said)] for said in _failed(draft)}))
        return Resolution(True, APPROVED_ALWAYS, by)

    def give(self, draft: ActionDraft, by: str, why: str) -> int:
        """Approve of the like of this held action from now on; the approval's number. Raises UsageError if too many."""
        if len(self._given) >= MOST:
            raise UsageError(f"there are {MOST} standing approvals already; revoke some, or change the binding")
        behaviors = [{"policy_id": p, "behavior_id": b} for p, b in dict.fromkeys(map(_of, _failed(draft)))]
        given = {
            "agent": draft.agent_id,
            "action_type": draft.action_type,
            "action_target": draft.action_target,
            "behaviors": behaviors,
            "by": by,
            "why": why,
        }
        stamped = self._ledger.add(own_fields(self._monitor_id, APPROVAL, given))
        self._given[stamped.seq] = {"approval": stamped.seq, "since": stamped.timestamp, **given}
        self._keep()
        return stamped.seq

    def revoke(self, number: int, by: str, why: str) -> dict[str, Any]:
        """Raises UsageError if there is no such approval."""
        given = self._given.pop(number, None)
        if given is None:
            known = ", ".join(map(str, self._given)) or "none"
            raise UsageError(f"there is no standing approval {number}; there are: {known}")
        said = {"approval": number, "agent": given["agent"], "by": by, "why": why}
        self._ledger.add(own_fields(self._monitor_id, APPROVAL_REVOKED, said))
        self._keep()
        return given

    def _keep(self) -> None:
        self._ledger.put_meta(_META, orjson.dumps(self.listed()).decode())
        self._index()

    def _index(self) -> None:
        self._found: dict[_Key, dict[tuple[str, str], str]] = {}
        for given in self._given.values():
            key = given["agent"], given["action_type"], given["action_target"]
            self._found.setdefault(key, {}).update((_of(said), given["by"]) for said in given["behaviors"])


def _failed(draft: ActionDraft) -> list[Any]:
    return [said for said in draft.behaviors if said["result"] != "pass"]


def _of(said: Any) -> tuple[str, str]:
    return said["policy_id"], said["behavior_id"]
