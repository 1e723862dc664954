"""Observation windows: one running hash and one tally per agent and policy, so that a BET costs the same at any length.

All entries of an agent (actions and outcomes) are in the window of every policy that applies to it, in log order. The
evidence hash is SHA-256 over the JCS array of those entries, which is what `[`, the canonical entries joined by `,` and
`]` are. Windows of one agent and policy are half-open and contiguous: the next starts where the last ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..bindings.model import Binding
from ..formats import base64url
from .bet import Tally, aggregate
from .store import WindowRow

DEFAULT_POLICY = "urn:lictor:policy:default-deny"
_BECAME = ("approved", "prevented")
ENDED = -1
"""`first_seq` of the row of a window that was closed for good because its policy applies no longer."""
ASIDE = -2
"""`first_seq` of the row of an empty window that was put aside: nothing of its agent has come into the log since."""


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """What evidence needs to know of a binding: its name, version, digest, and the severity of each behavior."""

    policy_id: str
    version: str
    digest: str
    severities: Mapping[str, str]

    @classmethod
    def of(cls, binding: Binding) -> PolicyInfo:
        """What evidence needs to know of `binding`."""
        severities = {behavior.behavior_id: behavior.severity for behavior in binding.behaviors}
        return cls(binding.policy_id, binding.version, binding.digest, severities)


DEFAULT_DENY = PolicyInfo(DEFAULT_POLICY, "1.0.0", "", {})
"""The policy of an agent that no binding covers: it has no behavior, so nothing is allowed."""


class Window:
    """The open window of one agent and policy."""

    __slots__ = (
        "_hash",
        "agent_id",
        "count",
        "default_denied",
        "first_entry",
        "first_seq",
        "policy",
        "prev_bet",
        "start",
        "tallies",
        "unjudged",
    )

    def __init__(self, agent_id: str, policy: PolicyInfo, start: float, first_seq: int, prev_bet: str | None) -> None:
        self.agent_id = agent_id
        self.policy = policy
        self.prev_bet = prev_bet
        self._clear(start, first_seq)

    def _clear(self, start: float, first_seq: int) -> None:
        self.start, self.first_seq = start, first_seq
        self.first_entry = 0
        self.count = self.default_denied = self.unjudged = 0
        self.tallies: dict[str, Tally] = {}
        self._hash = hashlib.sha256(b"[")

    def add(self, seq: int, data: bytes) -> None:
        """Take in the canonical bytes of the agent's next entry."""
        if self.count:
            self._hash.update(b"," + data)
        else:
            self.first_entry = seq
            self._hash.update(data)
        self.count += 1

    def add_run(self, first: int, joined: bytes, count: int) -> None:
        """Take in the agent's next `count` entries, joined by commas."""
        self.add(first, joined)
        self.count += count - 1

    def passed(self, behavior_id: str, count: int) -> None:
        """Count what one behavior of this policy said of actions with which it agreed."""
        tally = self.tallies.get(behavior_id)
        if tally is None:
            tally = self.tallies[behavior_id] = Tally()
        tally.evaluated += count

    def judge(self, behavior_id: str, result: str, decision: str) -> None:
        """Count what one behavior of this policy said of an action; of one that was held, what became of it too."""
        tally = self.tallies.get(behavior_id)
        if tally is None:
            tally = self.tallies[behavior_id] = Tally()
        if result in _BECAME:
            tally.approved += result == "approved"
            tally.prevented += result == "prevented"
            return
        tally.evaluated += 1
        if result != "pass":
            tally.violations += 1
            tally.prevented += decision == "deny"
            tally.held += decision == "hold"

    def evidence(self) -> str:
        """`bhv_evidence`: base64url SHA-256 over the JCS array of the entries so far."""
        closed = self._hash.copy()
        closed.update(b"]")
        return base64url.encode(closed.digest())

    def result(self) -> str:
        """`bhv_result` so far (see `bet.aggregate`)."""
        return aggregate(self.tallies, self.policy.severities, self.default_denied + self.unjudged)

    def restart(self, end: float, size: int, bet: str) -> None:
        """Begin the next window at `end`, where the log has `size` entries; `bet` is the jti that closed this one."""
        self.prev_bet = bet
        self._clear(end, size)

    def row(self) -> WindowRow:
        """What must survive a restart."""
        return WindowRow(self.agent_id, self.policy.policy_id, self.start, self.first_seq, self.prev_bet)


class AgentWindows:
    """The open windows of one agent, in the order of its policies. `due` is when the interval next ends (monotonic)."""

    __slots__ = ("_by_policy", "due", "node", "open", "wid")

    def __init__(self, windows: Iterable[Window], due: float) -> None:
        self.due = due
        self.wid = self.node = ""
        self.set(windows)

    def set(self, windows: Iterable[Window]) -> None:
        """Replace the set of windows (the agent's policies changed)."""
        self.open = tuple(windows)
        self._by_policy = {window.policy.policy_id: window for window in self.open}

    def get(self, policy_id: str) -> Window | None:
        """The open window of a policy."""
        return self._by_policy.get(policy_id)

    def note(self, seq: int, data: bytes) -> None:
        """Take in an entry that needs no judgement: an outcome, or a delegation from elsewhere."""
        for window in self.open:
            if window.first_seq <= seq:
                window.add(seq, data)

    def judges(self, behaviors: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a policy that has a window here said something."""
        return any(said["policy_id"] in self._by_policy for said in behaviors)

    def run(self, first: int, entries: Sequence[bytes], behaviors: Iterable[Mapping[str, Any]]) -> None:
        """Take in new actions that were all allowed, with the behaviors that agreed with each of them."""
        joined = b",".join(entries)
        for window in self.open:
            window.add_run(first, joined, len(entries))
        for said in behaviors:
            window_of = self._by_policy.get(said["policy_id"])
            if window_of is not None:
                window_of.passed(said["behavior_id"], len(entries))

    def action(self, seq: int, data: bytes, behaviors: Iterable[Mapping[str, Any]], decision: str) -> list[Window]:
        """Take in an action with what the behaviors said of it; the windows in which it is a violation.

        Windows that began later (when a log is taken up again) are left alone. A verdict of a policy that has no window
        here counts as none.
        """
        open_then = [window for window in self.open if window.first_seq <= seq]
        for window in open_then:
            window.add(seq, data)
        denied = decision == "deny"
        judged = False
        violated: list[Window] = []
        for said in behaviors:
            window_of = self._by_policy.get(said["policy_id"])
            if window_of is None:
                continue
            judged = True
            result = said["result"]
            if window_of.first_seq <= seq:
                window_of.judge(said["behavior_id"], result, decision)
            if result != "pass" and window_of not in violated:
                violated.append(window_of)
        if denied and not violated:
            for window in open_then:
                window.default_denied += 1
            return open_then
        if not judged:
            for window in open_then:
                window.unjudged += 1
            return open_then
        return violated
