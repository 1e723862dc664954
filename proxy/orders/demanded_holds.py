"""Holds that were demanded: what an agent does waits until a person decides, although its bindings let it out.

Each is for one agent, and for some action types, targets or one workflow of it where the order says so. It lasts until
it is taken back or its time is up; both are entries, as the order is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ...bindings.patterns import AllowSet
from ...evidence.entry import HOLD_DEMANDED, HOLD_ENDED, own_fields
from ...evidence.held import MONITOR
from ...evidence.ledger import Ledger
from ...evidence.store import Reader, read_meta
from ...formats.errors import UsageError

REASON = "hold_demanded"
MOST = 1000
TIME_IS_UP = "its time is up"
_META = "demanded_holds"


class DemandedHold:
    """One demand. `said` is what its entry says, with `hold` (the seq of that entry) and `since`."""

    __slots__ = ("_targets", "_types", "_until", "_wid", "said")

    def __init__(self, said: dict[str, Any]) -> None:
        """Raises UsageError for a pattern that is none."""
        self.said = said
        self._types = frozenset(said["action_types"]) if "action_types" in said else None
        self._wid = said.get("workflow")
        self._until = said.get("until")
        self._targets = AllowSet(said["targets"]) if "targets" in said else None

    def over(self, now: float) -> bool:
        return self._until is not None and now >= self._until

    def is_like(self, other: DemandedHold) -> bool:
        """Whether the same one demands the same of the same agent."""
        same = all(self.said.get(name) == other.said.get(name) for name in ("agent", "by", "workflow"))
        return same and all(
            sorted(self.said.get(name, ())) == sorted(other.said.get(name, ())) for name in ("action_types", "targets")
        )

    def lasts_as_long_as(self, other: DemandedHold) -> bool:
        return self._until is None or (other._until is not None and self._until >= other._until)

    def covers_action(self, action: Mapping[str, Any]) -> bool:
        """The same of an entry, of any agent."""
        of_agent = action["agent_id"] == self.said["agent"]
        return of_agent and self.covers(action["action_type"], action["action_target"], action["wid"])

    def covers(self, action_type: str, target: str, wid: str) -> bool:
        """Whether an action of the agent waits."""
        return (
            (self._types is None or action_type in self._types)
            and (self._wid is None or wid == self._wid)
            and (self._targets is None or self._targets.matches(target))
        )


class DemandedHolds:
    """Those in force. What is written is durable with the ledger's next commit."""

    def __init__(self, ledger: Ledger, stored: Reader, monitor_id: str) -> None:
        self._ledger = ledger
        self._monitor_id = monitor_id
        self._given = {said["hold"]: DemandedHold(said) for said in read_meta(stored, _META, list[Any]())}
        self._index()

    def __contains__(self, agent_id: str) -> bool:
        """Whether anything of the agent may have to wait."""
        return agent_id in self._of

    def listed(self) -> list[dict[str, Any]]:
        """The oldest first."""
        return [one.said for one in self._given.values()]

    def covers(self, agent_id: str, action_type: str, target: str, wid: str, now: float) -> bool:
        """Whether this action waits."""
        found = self._of.get(agent_id, ())
        return any(one.covers(action_type, target, wid) and not one.over(now) for one in found)

    def put(self, agent_id: str, by: str, why: str, seconds: float | None, more: dict[str, Any]) -> DemandedHold:
        """Demand that what the agent does waits, for so many seconds; `more` are the limits of the demand.

        What the same one demanded with the same limits stays as it was, or goes on as this one if that lasts longer.
        Raises UsageError if there are too many.
        """
        until = {} if seconds is None else {"until": round(self._ledger.now() + seconds, 3)}
        said = {"agent": agent_id, "by": by, "why": why, **until, **more}
        asked = DemandedHold(said)
        alike = next((one for one in self._of.get(agent_id, ()) if one.is_like(asked)), None)
        if alike is not None and alike.lasts_as_long_as(asked):
            return alike
        if alike is None and len(self._given) >= MOST:
            raise UsageError(f"there are {MOST} demanded holds already; take some back (`lictor agent unhold`)")
        stamped = self._ledger.add(own_fields(self._monitor_id, HOLD_DEMANDED, said))
        given = DemandedHold({"hold": stamped.seq, "since": stamped.timestamp, **said})
        self._given[stamped.seq] = given
        if alike is not None:
            self._end(alike.said["hold"], by, f"it goes on as hold {stamped.seq}")
        self._keep()
        return given

    def take_back(self, agent_id: str, hold: int | None, by: str, why: str) -> list[dict[str, Any]]:
        """End one demand, or all that are in force for the agent. Raises UsageError if there is none."""
        found = [n for n, one in self._given.items() if one.said["agent"] == agent_id and hold in (None, n)]
        if not found:
            known = ", ".join(str(n) for n, one in self._given.items() if one.said["agent"] == agent_id) or "none"
            which = "" if hold is None else f" {hold}"
            raise UsageError(f"no hold{which} of {agent_id} is in force; there are: {known}")
        return [self._end(number, by, why) for number in found]

    def expire(self, now: float) -> None:
        """End those whose time is up."""
        for number in [number for number, one in self._given.items() if one.over(now)]:
            self._end(number, MONITOR, TIME_IS_UP)

    def _end(self, number: int, by: str, why: str) -> dict[str, Any]:
        said = self._given[number].said
        ended = {"hold": number, "agent": said["agent"], "by": by, "why": why}
        self._ledger.add(own_fields(self._monitor_id, HOLD_ENDED, ended))
        del self._given[number]
        self._keep()
        return said

    def _keep(self) -> None:
        self._ledger.put_meta(_META, orjson.dumps(self.listed()).decode())
        self._index()

    def _index(self) -> None:
        self._of: dict[str, list[DemandedHold]] = {}
        for one in self._given.values():
            self._of.setdefault(one.said["agent"], []).append(one)
