"""The local agents of a monitor: what is kept in memory of each, its open windows and where its work belongs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .issuer import Issuer, next_due
from .ledger import Ledger
from .lineage import Lineage, Place
from .restore import restore
from .store import Reader
from .windows import DEFAULT_DENY, ENDED, AgentWindows, PolicyInfo, Window

ANCHOR = 4096
"""After so many entries of others the row of an empty window is moved up, so that a restart need not read them."""


class Agent:
    """What is kept in memory of one local agent."""

    __slots__ = ("agent_id", "lineage", "windows")

    def __init__(self, agent_id: str, windows: AgentWindows, lineage: Lineage) -> None:
        self.agent_id = agent_id
        self.windows = windows
        self.lineage = lineage


class Agents:
    """Opens the windows of agents, and closes them when that is due. What it writes is durable with the next commit.

    `interval` (seconds) is spread by a random part of +-`jitter` of it. `policies_for` gives the policies of an agent.
    """

    def __init__(
        self,
        ledger: Ledger,
        issuer: Issuer,
        policies_for: Callable[[str], tuple[PolicyInfo, ...]],
        interval: float,
        jitter: float,
    ) -> None:
        self._ledger = ledger
        self._issuer = issuer
        self._policies_for = policies_for
        self._interval, self._jitter = interval, jitter
        self._agents: dict[str, Agent] = {}

    def get(self, agent_id: str) -> Agent:
        """The agent; one that is seen for the first time has its windows opened."""
        return self._agents.get(agent_id) or self._open(agent_id)

    def issue(
        self,
        windows: Iterable[Window],
        place: Place,
        trigger: str,
        audience: tuple[str, ...] = (),
        about: Mapping[str, Any] | None = None,
    ) -> tuple[str, ...]:
        """Close `windows` here and now: one BET each, under the node of `place`."""
        end = self._ledger.now()
        return tuple(self._issuer.issue(window, place, end, trigger, audience, about) for window in windows)

    def tick(self) -> None:
        """Issue what is due. A window without entries stays open and costs nothing."""
        now = time.monotonic()
        for agent in self._agents.values():
            windows = agent.windows
            if windows.due > now:
                continue
            windows.due = next_due(now, self._interval, self._jitter)
            self._close(agent, windows.open, "interval")
            for window in windows.open:
                if not window.count and self._ledger.size - window.first_seq > ANCHOR:
                    window.first_seq = self._ledger.size
                    self._ledger.put_window(window.row())

    def reload(self) -> None:
        """The policies changed: end the windows of those that changed or apply no longer, begin those of new ones."""
        for agent in self._agents.values():
            self._apply(agent, self._policies(agent.agent_id))

    def close(self) -> None:
        """Issue BETs over every window that has entries."""
        for agent in self._agents.values():
            self._close(agent, agent.windows.open, "shutdown")

    def needed_from(self) -> int:
        """The seq of the first entry of a window that is still open; nothing before it is needed any more."""
        size = needed = self._ledger.size
        for agent in self._agents.values():
            for window in agent.windows.open:
                if window.count:
                    needed = min(needed, window.first_entry)
                elif window.first_seq != size:
                    window.first_seq = size
                    self._ledger.put_window(window.row())
        return needed

    def restore(self, stored: Reader) -> None:
        """Take up the open windows; those whose policy changed or applies no longer end here."""
        for agent_id, windows in restore(stored, self._policies).items():
            self._apply(self._keep(agent_id, windows), self._policies(agent_id))

    def _close(self, agent: Agent, windows: Iterable[Window], trigger: str) -> None:
        filled = [window for window in windows if window.count]
        if filled:
            self.issue(filled, Place(agent.windows.wid, agent.windows.node, "inferred"), trigger)

    def _policies(self, agent_id: str) -> tuple[PolicyInfo, ...]:
        return self._policies_for(agent_id) or (DEFAULT_DENY,)

    def _open(self, agent_id: str) -> Agent:
        start, size = self._ledger.now(), self._ledger.size
        windows = [Window(agent_id, policy, start, size, None) for policy in self._policies(agent_id)]
        for window in windows:
            self._ledger.put_window(window.row())
        return self._keep(agent_id, AgentWindows(windows, 0.0))

    def _keep(self, agent_id: str, windows: AgentWindows) -> Agent:
        windows.due = next_due(time.monotonic(), self._interval, self._jitter)
        agent = self._agents[agent_id] = Agent(agent_id, windows, Lineage(self._issuer.minter(agent_id)))
        return agent

    def _apply(self, agent: Agent, policies: tuple[PolicyInfo, ...]) -> None:
        """Make the agent's windows those of `policies`."""
        applying = {policy.policy_id: policy for policy in policies}
        start, size = self._ledger.now(), self._ledger.size
        stale = [w for w in agent.windows.open if applying.get(w.policy.policy_id) != w.policy]
        self._close(agent, stale, "reload")
        for window in stale:
            policy = applying.get(window.policy.policy_id)
            if policy is not None:
                window.policy = policy
            else:
                window.first_seq = ENDED
                self._ledger.put_window(window.row())
        windows = {w.policy.policy_id: w for w in agent.windows.open if w.policy.policy_id in applying}
        for policy in policies:
            if policy.policy_id not in windows:
                window = windows[policy.policy_id] = Window(agent.agent_id, policy, start, size, None)
                self._ledger.put_window(window.row())
        agent.windows.set(windows.values())
