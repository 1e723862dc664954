"""Which agents are in quarantine: nothing they do is let out, and nothing is handed to them, until they are released.

Every change is an entry of the log, and the set as it is then is kept in the store with that entry. A partner can name
as many agents as it likes, so what violations add is bounded: then all of its trust domain are in quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from ...bindings.model import Binding
from ...bindings.policy import quarantines
from ...evidence.entry import QUARANTINE, RELEASE, own_fields
from ...evidence.ledger import Ledger
from ...evidence.store import Reader, read_meta
from ...formats.errors import UsageError
from ...formats.spiffe import trust_domain

_META = "quarantine"
MOST_OF_PARTNER = 1000
"""Agents of another trust domain; with so many in quarantine, all of it are."""


class Quarantine:
    """`changed` is called after each change. What is written is durable with the ledger's next commit."""

    def __init__(self, ledger: Ledger, stored: Reader, monitor_id: str, changed: Callable[[], None]) -> None:
        self._ledger = ledger
        self._monitor_id = monitor_id
        self._changed = changed
        self._agents: dict[str, dict[str, Any]] = read_meta(stored, _META, {})
        self._partners = self._held_whole()

    def __contains__(self, agent_id: str) -> bool:
        return agent_id in self._agents or (bool(self._partners) and trust_domain(agent_id) in self._partners)

    def agents(self) -> list[str]:
        return sorted(self._agents)

    def listed(self) -> list[dict[str, Any]]:
        """For each agent: since when, by whom, why, and the entries that say so and that caused it."""
        return [{"agent": agent, **said} for agent, said in sorted(self._agents.items())]

    def put(self, agent_id: str, by: str, why: str, cause: int | None = None) -> None:
        """Put an agent in quarantine; one that is there already stays as it is. `cause`: the entry of a violation."""
        if agent_id in self._agents or (cause is not None and agent_id in self):
            return
        said: dict[str, Any] = {"by": by, "why": why, **({} if cause is None else {"cause": cause})}
        self._agents[agent_id] = said
        for partner in self._held_whole() - self._partners:
            said["and_all_of"] = partner
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

    def _held_whole(self) -> frozenset[str]:
        """The trust domains of partners that are in quarantine as a whole."""
        of = Counter(map(trust_domain, self._agents))
        del of[trust_domain(self._monitor_id)]
        return frozenset(domain for domain, agents in of.items() if agents >= MOST_OF_PARTNER)

    def _keep(self) -> None:
        self._partners = self._held_whole()
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
