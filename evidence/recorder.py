"""The recorder: what the control process does with actions. It has no sockets; everything runs in one event loop.

It puts each action in its place in a workflow (lineage), makes its entry (ledger), takes it into the windows of the
agent (windows) and issues evidence when that is due (issuer). Between two awaits nothing else runs, so an entry, the
node it belongs to and the BET that it caused are in one batch; a receipt is given when that batch is durable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..formats.errors import UsageError
from ..formats.jws import Signer
from . import ect
from .admission import ReplayMemory
from .awaited import MONITOR_ENDED, TOO_MANY, WORKER_ENDED, Awaited, left_open, unknown
from .bet import refused
from .claims import new_id
from .ect import Minted
from .entry import (
    ActionDraft,
    InboundDraft,
    OutcomeDraft,
    Receipt,
    Tokens,
    action_fields,
    inbound_fields,
    outcome_fields,
)
from .issuer import Issuer, next_due
from .ledger import Ledger
from .lineage import Lineage, Place, at_depth
from .restore import restore
from .state import Judged, StateJudge
from .store import NodeRow, Reader, Stamped
from .windows import DEFAULT_DENY, ENDED, AgentWindows, PolicyInfo, Window

__all__ = ["ActionDraft", "InboundDraft", "OutcomeDraft", "PolicyInfo", "Receipt", "Recorder", "Tokens"]

ANCHOR = 4096
"""After so many entries of others the row of an empty window is moved up, so that a restart need not read them."""


class _Agent:
    """What is kept in memory of one local agent."""

    __slots__ = ("agent_id", "lineage", "windows")

    def __init__(self, agent_id: str, windows: AgentWindows, lineage: Lineage) -> None:
        self.agent_id = agent_id
        self.windows = windows
        self.lineage = lineage


class Recorder:
    """Records actions and issues evidence. `stored` is read once, here, to take up where the last process ended.

    `audience` is in the `aud` of every token, besides whom the token is for; empty, it is the monitor itself.
    `interval` (seconds) is spread by a random part of +-`jitter` of it. `policies_for` gives the policies of an agent;
    call `reload` when its answers change. `state` judges what needs a memory. Every method raises LedgerError when the
    ledger cannot be written.
    """

    def __init__(
        self,
        ledger: Ledger,
        signer: Signer,
        monitor_id: str,
        policies_for: Callable[[str], tuple[PolicyInfo, ...]],
        audience: tuple[str, ...] = (),
        interval: float = 60.0,
        jitter: float = 0.2,
        *,
        stored: Reader,
        state: StateJudge | None = None,
    ) -> None:
        self._ledger = ledger
        self._signer = signer
        self._monitor_id = monitor_id
        self._state = state
        self._policies_for = policies_for
        self._audience = tuple(audience) or (monitor_id,)
        self._interval, self._jitter = interval, jitter
        self._issuer = Issuer(ledger, signer, monitor_id, self._audience)
        self._agents: dict[str, _Agent] = {}
        self._awaited = Awaited(ledger)
        self._inbound: dict[str, tuple[_Agent, object]] = {}
        self._replay = ReplayMemory(stored.nodes(), ledger.now())
        self._restore(stored)

    async def record_action(self, draft: ActionDraft, source: object = None) -> Receipt:
        """Record a judged action; the receipt carries what goes along with a delegation or with a refusal.

        `source` is whoever will say the outcome (see `lost`).
        """
        agent = self._agents.get(draft.agent_id) or self._new_agent(draft.agent_id)
        now = self._ledger.now()
        place = agent.lineage.place(draft.execution_context, draft.traceparent, now)
        judged = Judged(draft) if self._state is None else self._state.judge(draft, place.wid, now, place.depth)
        return await self._record(agent, judged, place, source)

    async def _record(self, agent: _Agent, judged: Judged, place: Place, source: object) -> Receipt:
        draft = judged.draft
        node: Minted | None = None
        if draft.action_type == "delegation" and draft.decision != "deny":
            node = agent.lineage.delegate(place, tuple(draft.audience))
            place = Place(place.wid, node.jti, place.how)
        fields = action_fields(draft, place)
        stamped = self._add(fields)
        if draft.disclosures:
            self._ledger.add_disclosures(stamped.seq, draft.disclosures)
        windows = agent.windows
        windows.wid, windows.node = place.wid, place.node
        violated = windows.action(stamped.seq, stamped.data, draft.behaviors, draft.decision)
        if draft.decision != "deny":
            self._await_outcome(stamped.seq, fields, source)
        bets: tuple[str, ...] = ()
        if node is not None:
            bets = self._issue(windows.open, place, "delegation", tuple(draft.audience))
        elif violated:
            about = refused(stamped.seq, draft.action_target, draft.reason) if draft.decision == "deny" else None
            bets = self._issue(violated, place, "violation", (draft.agent_id,), about)
        await self._ledger.commit()
        return Receipt(
            stamped.seq,
            stamped.timestamp,
            draft.decision,
            draft.reason,
            place.wid,
            place.node,
            (node.token,) if node is not None else (),
            bets,
            judged.hint,
            judged.behavior,
        )

    async def record_outcome(self, draft: OutcomeDraft) -> None:
        """Record how an action ended. Raises UsageError for a seq that is not an action whose outcome is awaited.

        Nobody waits for an outcome, so it is written with the next action, or by itself soon after.
        """
        action = self._awaited.take(draft.outcome_of)
        if action is None:
            raise UsageError(f"no outcome is awaited of entry {draft.outcome_of}: it has one, or was denied")
        self._add_outcome(action, draft)

    async def lost(self, source: object) -> None:
        """`source` is gone: its actions have the outcome `unknown` and the delegations that it served are over."""
        for node in [node for node, (_, served_by) in self._inbound.items() if served_by is source]:
            self.finish_delegation(node)
        for seq in self._awaited.of(source):
            self._give_up(seq, WORKER_ENDED)
        await self._ledger.commit()

    async def accept_delegation(self, draft: InboundDraft, source: object = None) -> Receipt:
        """Record a delegation that came in and mint the local agent's node; a receipt of deny says why it was not."""
        now = self._ledger.now()
        if self._state is not None:
            admitted = self._state.admit(draft, now)
            if isinstance(admitted, Judged):
                peer = self._agents.get(draft.peer_id) or self._new_agent(draft.peer_id)
                return await self._record(peer, admitted, peer.lineage.own(now), source)
            draft = admitted
        agent = self._agents.get(draft.agent_id) or self._new_agent(draft.agent_id)
        if draft.decision != "deny":
            keys = [(str(parent["wid"]), str(parent["jti"])) for parent in draft.parents]
            problem = self._replay.take(keys, now)
            if problem is not None:
                draft = _denied(draft, "ect_replayed", problem)
        if draft.decision == "deny":
            return await self._refuse_delegation(agent, draft, now)
        for parent in draft.parents:
            self._ledger.add_node(NodeRow(**{**parent, "parents": tuple(parent["parents"])}, origin="received"))
        mint = self._mint_for(draft.agent_id)
        parents = tuple(str(p["jti"]) for p in draft.parents)
        node = mint(draft.wid or new_id(), parents, (draft.peer_id,), at_depth(draft.depth))
        fields = inbound_fields(draft, Place(node.wid, node.jti, "asserted"))
        stamped = self._add(fields)
        agent.windows.wid, agent.windows.node = node.wid, node.jti
        agent.windows.note(stamped.seq, stamped.data)
        dropped = agent.lineage.open(node, draft.execution_context, draft.traceparent, draft.peer_id, now, draft.depth)
        self._inbound.pop(dropped or "", None)
        self._inbound[node.jti] = agent, source
        self._await_outcome(stamped.seq, fields, source)
        await self._ledger.commit()
        return Receipt(stamped.seq, stamped.timestamp, draft.decision, draft.reason, node.wid, node.jti, (node.token,))

    async def delegation_response(self, node: str) -> Tokens:
        """The local agent's node and one BET of each policy, for the response. Raises UsageError if it is not open."""
        agent, _ = self._inbound.get(node, (None, None))
        found = agent.lineage.response(node, self._ledger.now()) if agent is not None else None
        if agent is None or found is None:
            raise UsageError(f"no delegation with the node {node} is open")
        current, peer = found
        place = Place(current.wid, current.jti, "asserted")
        bets = self._issue(agent.windows.open, place, "response", (peer,))
        await self._ledger.commit()
        return Tokens((current.token,), bets)

    def finish_delegation(self, node: str) -> None:
        """The delegation is over: later actions of the agent are not taken for its work. Unknown nodes are ignored."""
        agent, _ = self._inbound.pop(node, (None, None))
        if agent is not None:
            agent.lineage.finish(node)

    async def tick(self) -> None:
        """Issue what is due; call it about once a second. A window without entries stays open and costs nothing."""
        now = time.monotonic()
        for agent in self._agents.values():
            windows = agent.windows
            if windows.due > now:
                continue
            windows.due = next_due(now, self._interval, self._jitter)
            self._close(agent, [window for window in windows.open if window.count], "interval")
            for window in windows.open:
                if not window.count and self._ledger.size - window.first_seq > ANCHOR:
                    window.first_seq = self._ledger.size
                    self._ledger.put_window(window.row())
        await self._ledger.commit()

    async def reload(self) -> None:
        """The policies changed: end the windows of those that changed or apply no longer, begin those of new ones."""
        for agent in self._agents.values():
            self._apply(agent, self._policies(agent.agent_id))
        await self._ledger.commit()

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

    async def close(self) -> None:
        """Issue BETs over every window that has entries. The ledger stays open: who opened it closes it."""
        for agent in self._agents.values():
            self._close(agent, [window for window in agent.windows.open if window.count], "shutdown")
        await self._ledger.commit()

    async def _refuse_delegation(self, agent: _Agent, draft: InboundDraft, now: float) -> Receipt:
        place = agent.lineage.own(now)
        stamped = self._ledger.add(inbound_fields(draft, place))
        agent.windows.note(stamped.seq, stamped.data)
        if not agent.windows.node:
            agent.windows.wid, agent.windows.node = place.wid, place.node
        await self._ledger.commit()
        return Receipt(stamped.seq, stamped.timestamp, "deny", draft.reason, place.wid, place.node, detail=draft.detail)

    def _issue(
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

    def _close(self, agent: _Agent, windows: list[Window], trigger: str) -> None:
        if windows:
            place = Place(agent.windows.wid, agent.windows.node, "inferred")
            self._issue(windows, place, trigger)

    def _add(self, fields: Mapping[str, Any]) -> Stamped:
        """Put an entry into the log and, before anything else can be judged, into the memories."""
        stamped = self._ledger.add(fields)
        if self._state is not None:
            self._state.take(fields, stamped.seq, stamped.timestamp)
        return stamped

    def _await_outcome(self, seq: int, fields: Mapping[str, Any], source: object) -> None:
        oldest = self._awaited.add(seq, fields, source)
        if oldest is not None:
            self._give_up(oldest, TOO_MANY)
        self._awaited.anchor()

    def _give_up(self, seq: int, why: str) -> None:
        action = self._awaited.take(seq)
        if action is not None:
            self._add_outcome(action, unknown(seq, why))

    def _add_outcome(self, action: Mapping[str, Any], draft: OutcomeDraft) -> None:
        agent = self._agents.get(action["agent_id"]) or self._new_agent(action["agent_id"])
        stamped = self._add(outcome_fields(action, draft))
        windows = agent.windows
        if not windows.node:
            windows.wid, windows.node = action["wid"], action["node"]
        windows.note(stamped.seq, stamped.data)

    def _policies(self, agent_id: str) -> tuple[PolicyInfo, ...]:
        return self._policies_for(agent_id) or (DEFAULT_DENY,)

    def _new_agent(self, agent_id: str) -> _Agent:
        start, size = self._ledger.now(), self._ledger.size
        windows = [Window(agent_id, policy, start, size, None) for policy in self._policies(agent_id)]
        for window in windows:
            self._ledger.put_window(window.row())
        return self._keep(agent_id, AgentWindows(windows, 0.0))

    def _keep(self, agent_id: str, windows: AgentWindows) -> _Agent:
        windows.due = next_due(time.monotonic(), self._interval, self._jitter)
        agent = self._agents[agent_id] = _Agent(agent_id, windows, Lineage(self._mint_for(agent_id)))
        return agent

    def _restore(self, stored: Reader) -> None:
        """Take up the open windows; those whose policy changed or applies no longer end here."""
        for agent_id, windows in restore(stored, self._policies).items():
            self._apply(self._keep(agent_id, windows), self._policies(agent_id))
        for seq, action in left_open(stored).items():
            self._add_outcome(action, unknown(seq, MONITOR_ENDED))
        self._awaited.anchor()

    def _apply(self, agent: _Agent, policies: tuple[PolicyInfo, ...]) -> None:
        """Make the agent's windows those of `policies`."""
        applying = {policy.policy_id: policy for policy in policies}
        start, size = self._ledger.now(), self._ledger.size
        stale = [w for w in agent.windows.open if applying.get(w.policy.policy_id) != w.policy]
        self._close(agent, [window for window in stale if window.count], "reload")
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

    def _mint_for(self, agent_id: str) -> Callable[..., Minted]:
        """The `lineage.Mint` of one agent: signs a node and keeps it in the store."""

        def mint(
            wid: str, parents: tuple[str, ...], audience: tuple[str, ...] = (), ext: Mapping[str, Any] | None = None
        ) -> Minted:
            node = ect.mint(
                self._signer,
                issuer=self._monitor_id,
                subject=agent_id,
                audience=(*self._audience, *audience),
                wid=wid,
                parents=parents,
                now=self._ledger.now(),
                ext=ext,
            )
            self._ledger.add_node(
                NodeRow(node.jti, wid, agent_id, self._monitor_id, node.iat, parents, node.token, "minted")
            )
            return node

        return mint


def _denied(draft: InboundDraft, reason: str, detail: str) -> InboundDraft:
    return InboundDraft(
        draft.agent_id, draft.peer_id, draft.action_target, draft.action_parameters, "deny", reason, detail
    )
