"""Which agents are in quarantine: nothing they do is let out, and nothing is handed to them, until they are released.

Every change is an entry of the log, and the set as it is then is kept in the store with that entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from ...bindings.model import Binding
from ...bindings.policy import quarantines
from ...evidence.entry import QUARANTINE, RELEASE, own_fields
from ...evidence.ledger import Ledger
from ...evidence.store import Reader
from ...formats.errors import UsageError

_META = "quarantine"


class Quarantine:
    """`changed` is called after each change. What is written is durable with the ledger's next commit."""

    def __init__(self, ledger: Ledger, stored: Reader, monitor_id: str, changed: Callable[[], None]) -> None:
        self._ledger = ledger
        self._monitor_id = monitor_id
        self._changed = changed
        self._agents: dict[str, dict[str, Any]] = orjson.loads(stored.meta(_META) or b"{}")

    def __contains__(self, agent_id: str) -> bool:
        return agent_id in self._agents

    def agents(self) -> list[str]:
        return sorted(self._agents)

    def listed(self) -> list[dict[str, Any]]:
        """For each agent: since when, by whom, why, and the entries that say so and that caused it."""
        return [{"agent": agent, **said} for agent, said in sorted(self._agents.items())]

    def put(self, agent_id: str, by: str, why: str, cause: int | None = None) -> None:
        """Put an agent in quarantine; one that is there already stays as it is. `cause`: the entry of a violation."""
        if agent_id in self._agents:
            return
        said: dict[str, Any] = {"by": by, "why": why, **({} if cause is None else {"cause": cause})}
        stamped = self._ledger.add(own_fields(self._monitor_id, QUARANTINE, {"agent": agent_id, **said}))
        self._agents[agent_id] = {**said, "entry": stamped.seq, "since": stamped.timestamp}
        self._keep()

    def release(self, agent_id: str, by: str, why: str) -> None:
        """Raises UsageError if the agent is not in quarantine."""
        if agent_id not in self._agents:
            raise UsageError(f"{agent_id} is not in quarantine; {', '.join(self._agents) or 'nobody is'}")
        self._ledger.add(own_fields(self._monitor_id, RELEASE, {"agent": agent_id, "by": by, "why": why}))
        del self._agents[agent_id]
        self._keep()

    def _keep(self) -> None:
        self._ledger.put_meta(_META, orjson.dumps(self._agents).decode())
        self._changed()


def quarantining(bindings: tuple[Binding, ...]) -> frozenset[tuple[str, str]]:
    """Policy and behavior of all that put an agent in quarantine."""
    return frozenset(
        (binding.policy_id, behavior.behavior_id)
        for binding in bindings
        for behavior in binding.behaviors
        if quarantines(binding, behavior)
    )
