"""Orders about work that is under way: that a delegation is over, that what an agent does waits for a person.

What is open and may not go on is ended in all workers, by the entries of the actions that it began with.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ...bindings.model import ActionType
from ...evidence.delegations import Delegations
from ...evidence.ledger import Ledger
from ...evidence.revoked import REASON, Revocation
from ...evidence.sqlite_store import SqliteReader
from ...evidence.store import NodeRow
from .arguments import agent_of, id_of, limits_of, number_of, seconds_of, why_of
from .demanded_holds import REASON as HOLD_DEMANDED
from .demanded_holds import DemandedHolds

Tell = Callable[[dict[str, Any]], None]
"""Says something to all workers."""
_SHOWN = ("node", "direction", "agent", "wid", "by", "why", "entry", "since")


class Interventions:
    """Every order raises UsageError if it makes no sense, LedgerError if it cannot be written down."""

    def __init__(
        self,
        ledger: Ledger,
        delegations: Delegations,
        demanded: DemandedHolds,
        open_log: Callable[[], SqliteReader],
        tell: Tell,
    ) -> None:
        self._ledger = ledger
        self._delegations = delegations
        self._demanded = demanded
        self._open_log = open_log
        self._tell = tell

    async def delegations(self) -> dict[str, list[dict[str, Any]]]:
        """The delegations that are open, and those that were revoked, the oldest first."""
        return {
            "open": [one.to_json() for one in self._delegations.open()],
            "revoked": [_shown(one) for one in self._delegations.revoked()],
        }

    async def revoke_delegation(self, by: str, node: str, why: str = "") -> dict[str, Any]:
        """Revoke the delegation that the node is of: at the monitor of the caller, or of the callee."""
        known = await asyncio.to_thread(self._workflow_of, id_of(node, "node", "node"))
        given, ended = self._delegations.revoke(node, by, why_of(why) or "ordered", known)
        self._end(ended, REASON)
        await self._ledger.commit()
        return {**_shown(given), "ended": ended}

    async def holds(self) -> list[dict[str, Any]]:
        """The holds that are demanded, the oldest first."""
        return self._demanded.listed()

    async def hold(
        self,
        by: str,
        agent: str,
        why: str = "",
        seconds: float | None = None,
        action_types: list[str] | None = None,
        targets: list[str] | None = None,
        workflow: str | None = None,
    ) -> dict[str, Any]:
        """Have what an agent does from now on wait until a person decides. Its tunnels end: nobody sees into them."""
        agent_id, limits = agent_of(agent), limits_of(action_types, targets, workflow)
        given = self._demanded.put(agent_id, by, why_of(why) or "ordered", seconds_of(seconds), limits)
        tunnels = self._delegations.under_way(ActionType.TUNNEL)
        ended = [seq for seq, action in tunnels if given.covers_action(action)]
        self._end(ended, HOLD_DEMANDED)
        await self._ledger.commit()
        return {**given.said, "ended": ended}

    async def unhold(self, by: str, agent: str, hold: int | None = None, why: str = "") -> list[dict[str, Any]]:
        """Take back one hold, or all that are demanded of an agent. What waits already still waits."""
        number = number_of(hold, "hold") if hold is not None else None
        ended = self._demanded.take_back(agent_of(agent), number, by, why_of(why) or "ordered")
        await self._ledger.commit()
        return ended

    def _end(self, seqs: list[int], why: str) -> None:
        if seqs:
            self._tell({"ended": seqs, "why": why})

    def _workflow_of(self, node: str) -> list[NodeRow]:
        with contextlib.closing(self._open_log()) as log:
            return log.workflow_of(node)


def _shown(one: Revocation) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name in _SHOWN}
