"""The agents of a monitor: what is kept in memory of each, its open windows and where its work belongs.

Whoever may sign certificates can name as many agents as it likes, so only some of each trust domain are kept. One that
is put aside has its windows closed; their rows are taken up again when it comes back. What is lost of it is which
workflow its own work was, and how to name delegations that are over.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..formats.spiffe import trust_domain
from .issuer import Issuer, next_due
from .ledger import Ledger
from .lineage import Lineage, Place
from .restore import opened, restore
from .store import Reader, WindowRow
from .windows import ASIDE, DEFAULT_DENY, ENDED, AgentWindows, PolicyInfo, Window

ANCHOR = 4096
"""After so many entries of others the row of an empty window is moved up, so that a restart need not read them."""
MAX_AGENTS = 4096
"""Agents of one trust domain; beyond, those that were seen last stay, and those for whom a delegation is open."""


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
        stored: Reader,
        issuer: Issuer,
        policies_for: Callable[[str], tuple[PolicyInfo, ...]],
        interval: float,
        jitter: float,
    ) -> None:
        self._ledger = ledger
        self._stored = stored
        self._issuer = issuer
        self._policies_for = policies_for
        self._interval, self._jitter = interval, jitter
        self._agents: OrderedDict[str, Agent] = OrderedDict()
        self._aside: dict[str, list[WindowRow]] = {}

    def get(self, agent_id: str) -> Agent:
        """The agent, which is not to be kept beyond an await; of one that is not in memory windows are opened."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return self._open(agent_id)
        self._agents.move_to_end(agent_id)
        return agent

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
        """Issue what is due, and put agents aside; call `committed` when that is durable.

        A window without entries stays open and costs nothing.
        """
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
        if len(self._agents) > MAX_AGENTS:
            self._put_aside()

    def committed(self) -> None:
        """What the last `tick` has put aside can be read back."""
        self._aside.clear()

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

    def restore(self) -> None:
        """Take up the open windows; those whose policy changed or applies no longer end here."""
        for agent_id, windows in restore(self._stored, self._policies).items():
            self._apply(self._keep(agent_id, windows), self._policies(agent_id))

    def _close(self, agent: Agent, windows: Iterable[Window], trigger: str) -> None:
        filled = [window for window in windows if window.count]
        if filled:
            self.issue(filled, Place(agent.windows.wid, agent.windows.node, "inferred"), trigger)

    def _policies(self, agent_id: str) -> tuple[PolicyInfo, ...]:
        return self._policies_for(agent_id) or (DEFAULT_DENY,)

    def _open(self, agent_id: str) -> Agent:
        """One that was put aside goes on with its windows."""
        policies, size = self._policies(agent_id), self._ledger.size
        rows = self._aside.pop(agent_id, None) or self._stored.windows(agent_id)
        windows = opened(policies, (replace(row, first_seq=size) for row in rows if row.first_seq == ASIDE))
        for window in windows:
            self._ledger.put_window(window.row())
        agent = self._keep(agent_id, AgentWindows(windows, 0.0))
        self._apply(agent, policies)
        return agent

    def _put_aside(self) -> None:
        """Of each trust domain those that were not seen for the longest time, with a BET over what they did."""
        of: dict[str, list[Agent]] = {}
        for agent in self._agents.values():
            of.setdefault(trust_domain(agent.agent_id), []).append(agent)
        for agents in of.values():
            idle = (agent for agent in agents if not agent.lineage.busy)
            for agent, _ in zip(idle, range(len(agents) - MAX_AGENTS), strict=False):
                windows = agent.windows.open
                self._close(agent, windows, "interval")
                self._aside[agent.agent_id] = rows = [replace(window.row(), first_seq=ASIDE) for window in windows]
                for row in rows:
                    self._ledger.put_window(row)
                del self._agents[agent.agent_id]

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
