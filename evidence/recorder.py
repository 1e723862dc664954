"""The recorder: what the control process does with actions. It has no sockets; everything runs in one event loop.

It puts each action in its place in a workflow (lineage), makes its entry (ledger), takes it into the windows of the
agent (windows) and issues evidence when that is due (issuer). Between two awaits nothing else runs, so an entry, the
node it belongs to and the BET that it caused are in one batch; a receipt is given when that batch is durable.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ..formats.errors import UsageError
from ..formats.jws import Signer
from .agents import Agent, Agents
from .arrivals import Arrivals, received
from .awaited import MONITOR_ENDED, TOO_MANY, WORKER_ENDED, Awaited, left_open, unknown
from .bet import refused
from .claims import new_id
from .delegations import Delegations
from .ect import Minted
from .entry import (
    ActionDraft,
    InboundDraft,
    OutcomeDraft,
    Receipt,
    Resolution,
    Tokens,
    action_fields,
    arrives,
    decision_fields,
    draft_of,
    inbound_fields,
    outcome_fields,
    refused_arrival,
)
from .held import MONITOR, MONITOR_GONE, TOO_MANY_HOLDS, WORKER_GONE, Holds, settle, undecided
from .issuer import Issuer
from .ledger import Ledger
from .lineage import Place, Within, extension, trace_id
from .revoked import Revoked
from .runs import Receipts, Run
from .state import Judged, StateJudge
from .store import Reader, Stamped
from .windows import PolicyInfo, Window

__all__ = ["ActionDraft", "InboundDraft", "OutcomeDraft", "PolicyInfo", "Receipt", "Recorder", "Tokens"]

Told = Callable[[int], None]


class Recorder:
    """Records actions and issues evidence. `stored` is read once, here, to take up where the last process ended; and
    looked into for known nodes when a delegation comes in.

    `audience` is in the `aud` of every token, besides whom the token is for; empty, it is the monitor itself.
    `interval` (seconds) is spread by a random part of +-`jitter` of it. `policies_for` gives the policies of an agent;
    call `reload` when its answers change. `state` judges what needs a memory. `holds` keeps what waits for a decision.
    Every method raises LedgerError when the ledger cannot be written.
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
        holds: Holds | None = None,
    ) -> None:
        self._ledger = ledger
        self._state = state
        self._holds = holds or Holds(ledger)
        self._issuer = Issuer(ledger, signer, monitor_id, tuple(audience) or (monitor_id,))
        self._agents = Agents(ledger, stored, self._issuer, policies_for, interval, jitter)
        self._awaited = Awaited(ledger)
        self.take_over = self._awaited.take_over
        self._revoked = Revoked(ledger, stored, monitor_id)
        self.delegations = Delegations(ledger, self._awaited, self._holds, self._revoked)
        self._arrivals = Arrivals(stored, self._revoked, monitor_id, ledger.now())
        self._restore(stored)

    async def record_action(self, draft: ActionDraft, source: object = None, told: Told = lambda seq: None) -> Receipt:
        """Record a judged action; the receipt carries what goes along with a delegation or with a refusal.

        `source` is whoever will say the outcome (see `lost`). The receipt of an action that is held comes when it was
        decided on; `told` is called with its seq when it begins to wait.
        """
        agent = self._agents.get(draft.agent_id)
        now = self._ledger.now()
        lines, trace = draft.execution_context, draft.traceparent
        place = agent.lineage.place(lines, trace, now)
        if self._revoked:
            place = self._revoked.place(agent.agent_id, lines, trace, place, now)
        judged = self._judge(draft, place, now)
        if judged.draft.decision == "hold":
            return await self._hold(agent, judged, place, source, told, partial(self._judge, draft, place))
        return await self._record(agent, judged, place, source)

    def _judge(self, draft: ActionDraft, place: Place, now: float) -> Judged:
        if (denied := self._revoked.judge(draft, place)) is not None:
            return denied
        if self._state is None:
            return Judged(draft)
        return self._state.judge(draft, place.wid, now, place.depth, place.within)

    async def _hold(
        self, agent: Agent, held: Judged, place: Place, source: object, told: Told, again: Callable[[float], Judged]
    ) -> Receipt:
        """Record that the action waits, and what became of it. A delegation has its node only once it goes out."""
        draft, seq = held.draft, self._ledger.size
        stamped = self._enter(agent, action_fields(draft, place), draft.disclosures)[0]
        resolution = held.resolution
        if resolution is None and not self._holds.has_room_for(draft.agent_id):
            hint = "Too many actions wait for a decision already. Try again once your operator has decided on them."
            resolution = Resolution(False, TOO_MANY_HOLDS, MONITOR, hint)
        if resolution is None:
            waiting = self._holds.add(stamped, draft, source, place.of)
            await self._ledger.commit()
            told(seq)
            resolution = await waiting
            agent = self._agents.get(draft.agent_id)
        resolution, behaviors = settle(held, resolution, again(self._ledger.now()))
        goes_out = resolution.allows and not arrives(draft)
        node: Minted | None = None
        if goes_out and draft.action_type == "delegation":
            node = _hand_on(agent, place, draft)
            place = Place(place.wid, node.jti, place.how, of=place.of)
        fields = decision_fields(draft, place, seq, resolution, behaviors)
        self._holds.decided(seq)
        stamped, violated = self._enter(agent, fields)
        if goes_out:
            self._await_outcome(stamped._replace(seq=seq), fields, source, place.of)
        bets: tuple[str, ...] = ()
        witnessed: tuple[str, ...] = ()
        if node is not None:
            bets, witnessed = self._evidence(agent, place, draft)
        elif not resolution.allows:
            about = refused(seq, draft.action_target, resolution.reason)
            bets = self._agents.issue(violated, place, "violation", (draft.agent_id,), about)
        await self._ledger.commit()
        nodes = (node.token,) if node is not None else ()
        where = seq, stamped.timestamp, fields["decision"], resolution.reason, place.wid, place.node
        return Receipt(*where, nodes, bets, resolution.hint, resolution.behavior or held.behavior, witnessed)

    def _enter(
        self, agent: Agent, fields: Mapping[str, Any], disclosures: Iterable[str] = ()
    ) -> tuple[Stamped, list[Window]]:
        """Put what was judged of an action into the log and the windows; those in which it is a violation."""
        stamped = self._add(fields)
        if disclosures:
            self._ledger.add_disclosures(stamped.seq, disclosures)
        windows = agent.windows
        windows.wid, windows.node = fields["wid"], fields["node"]
        return stamped, windows.action(stamped.seq, stamped.data, fields["behaviors"], fields["decision"])

    async def _record(self, agent: Agent, judged: Judged, place: Place, source: object) -> Receipt:
        draft = judged.draft
        node: Minted | None = None
        if draft.action_type == "delegation" and draft.decision != "deny":
            node = _hand_on(agent, place, draft)
            place = Place(place.wid, node.jti, place.how, of=place.of)
        fields = action_fields(draft, place)
        stamped, violated = self._enter(agent, fields, draft.disclosures)
        if draft.decision != "deny":
            self._await_outcome(stamped, fields, source, place.of)
        bets: tuple[str, ...] = ()
        witnessed: tuple[str, ...] = ()
        if node is not None:
            bets, witnessed = self._evidence(agent, place, draft)
        elif violated:
            about = refused(stamped.seq, draft.action_target, draft.reason) if draft.decision == "deny" else None
            bets = self._agents.issue(violated, place, "violation", (draft.agent_id,), about)
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
            witnessed,
        )

    def _evidence(self, agent: Agent, place: Place, draft: ActionDraft) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What goes along with a delegation: BETs up to the decision, and who witnessed the log that they rest on."""
        bets = self._agents.issue(agent.windows.open, place, "delegation", tuple(draft.audience))
        line = self._ledger.witnessed()
        return bets, (line,) if line else ()

    def withdraw(self, seq: int, reason: str, source: object) -> None:
        """Nobody waits for the held action any more, says the `source` that it came from; it is denied."""
        waiting = self._holds.get(seq)
        if waiting is not None and waiting.source is source:
            self._holds.resolve(seq, Resolution(False, reason, MONITOR))

    def enter_run(self, run: Run, source: object = None) -> Receipts | None:
        """Record actions that are alike; their receipts are not to be given before `commit` is done.

        None if they have to be recorded one by one, because something has to look at each; then none of them is.
        """
        draft = run.common.draft
        agent = self._agents.get(draft.agent_id)
        windows = agent.windows
        idle = self._state is None or self._state.idle(draft.agent_id)
        idle = idle and not self._revoked.concerns(draft.agent_id)
        if not (run.common.plain and idle and windows.judges(draft.behaviors)):
            return None
        place = agent.lineage.place((), None, self._ledger.now())
        stamped = self._ledger.add_run(run.heads, *run.common.pieces(place))
        first = stamped[0]
        windows.wid, windows.node = place.wid, place.node
        windows.run(first.seq, [one.data for one in stamped], draft.behaviors)
        self._awaited.add_run(first.seq, run.targets, run.common.repeated(place), source, place.of, first.timestamp)
        self._forget_oldest()
        receipt = Receipt(first.seq, first.timestamp, draft.decision, draft.reason, place.wid, place.node)
        return Receipts(receipt, len(stamped))

    def commit(self) -> Future[None]:
        """Done when everything recorded so far is durable; LedgerError if it never will be."""
        return self._ledger.commit()

    async def record_outcome(self, draft: OutcomeDraft) -> None:
        """Record how an action ended. Raises UsageError for a seq that is not an action whose outcome is awaited.

        Nobody waits for an outcome, so it is written with the next action, or by itself soon after.
        """
        self.enter_outcome(draft)

    def enter_outcome(self, draft: OutcomeDraft) -> None:
        """`record_outcome`, at once."""
        action = self._awaited.take(draft.outcome_of)
        if action is None:
            raise UsageError(f"no outcome is awaited of entry {draft.outcome_of}: it has one, or was denied")
        self._add_outcome(action, draft)

    async def lost(self, source: object) -> None:
        """`source` is gone: its actions have the outcome `unknown` and the delegations that it served are over."""
        for node in self.delegations.served_by(source):
            self.delegations.finish(node)
        self._holds.resolve_all(lambda one: one.source is source, Resolution(False, WORKER_GONE, MONITOR))
        for seq in self._awaited.of(source):
            self._give_up(seq, WORKER_ENDED)
        await self._ledger.commit()

    async def accept_delegation(
        self, draft: InboundDraft, source: object = None, told: Told = lambda seq: None
    ) -> Receipt:
        """Record a delegation that came in and mint the local agent's node; a receipt of deny says why it was not.

        One that is held is held as what its caller did, and accepted once it is let in.
        """
        now = self._ledger.now()
        if self._state is not None:
            admitted = self._state.admit(draft, now)
            if isinstance(admitted, Judged):
                peer = self._agents.get(draft.peer_id)
                place = peer.lineage.own(now)
                if admitted.draft.decision != "hold":
                    return await self._record(peer, admitted, place, source)
                again = partial(self._admit_again, draft, admitted)
                receipt = await self._hold(peer, admitted, place, source, told, again)
                if receipt.decision == "deny":
                    return receipt
                admitted = replace(draft, decision="allow", reason=receipt.reason)
                now = self._ledger.now()
            draft = admitted
        agent = self._agents.get(draft.agent_id)
        draft = self._arrivals.judge(draft, now)
        if draft.decision == "deny":
            peer = self._agents.get(draft.peer_id)
            return await self._record(peer, Judged(refused_arrival(draft), draft.detail), peer.lineage.own(now), source)
        for row in received(draft):
            self._ledger.add_node(row)
        mint = self._issuer.minter(draft.agent_id)
        parents = tuple(str(p["jti"]) for p in draft.parents)
        within = _groups(draft.within)
        ext = extension(draft.depth, within, trace_id(draft.traceparent))
        node = mint(draft.wid or new_id(), parents, (draft.peer_id,), ext)
        fields = inbound_fields(draft, Place(node.wid, node.jti, "asserted"))
        stamped = self._add(fields)
        agent.windows.wid, agent.windows.node = node.wid, node.jti
        agent.windows.note(stamped.seq, stamped.data)
        lines, trace = [str(parent["token"]) for parent in draft.parents], draft.traceparent
        dropped = agent.lineage.open(node, lines, trace, draft.peer_id, now, draft.depth, within)
        self.delegations.forget(dropped or "")
        self.delegations.arrived(agent, node.jti, node.wid, draft, source, stamped)
        self._await_outcome(stamped, fields, source, (node.jti,))
        await self._ledger.commit()
        return Receipt(stamped.seq, stamped.timestamp, draft.decision, draft.reason, node.wid, node.jti, (node.token,))

    def _admit_again(self, draft: InboundDraft, held: Judged, now: float) -> Judged:
        assert self._state is not None
        admitted = self._state.admit(draft, now)
        return admitted if isinstance(admitted, Judged) else Judged(replace(held.draft, decision=admitted.decision))

    async def delegation_response(self, node: str) -> Tokens:
        """The local agent's node and one BET of each policy, for the response. Raises UsageError if it is not open."""
        agent = self.delegations.agent_of(node)
        found = agent.lineage.response(node, self._ledger.now()) if agent is not None else None
        if agent is None or found is None:
            raise UsageError(f"no delegation with the node {node} is open")
        current, peer = found
        place = Place(current.wid, current.jti, "asserted")
        bets = self._agents.issue(agent.windows.open, place, "response", (peer,))
        await self._ledger.commit()
        return Tokens((current.token,), bets)

    def finish_delegation(self, node: str) -> None:
        """The delegation is over: later actions of the agent are not taken for its work. Unknown nodes are ignored."""
        self.delegations.finish(node)

    async def tick(self) -> None:
        """Issue what is due; call it about once a second."""
        self._agents.tick()
        await self._ledger.commit()
        self._agents.committed()

    async def reload(self) -> None:
        """The policies changed: end the windows of those that changed or apply no longer, begin those of new ones."""
        self._agents.reload()
        await self._ledger.commit()

    def needed_from(self) -> int:
        """The seq of the first entry of a window that is still open; nothing before it is needed any more."""
        return self._agents.needed_from()

    async def close(self) -> None:
        """Issue BETs over every window that has entries. The ledger stays open: who opened it closes it."""
        self._agents.close()
        await self._ledger.commit()

    def _add(self, fields: Mapping[str, Any]) -> Stamped:
        """Put an entry into the log and, before anything else can be judged, into the memories."""
        stamped = self._ledger.add(fields)
        if self._state is not None:
            self._state.take(fields, stamped.seq, stamped.timestamp)
        return stamped

    def _await_outcome(self, stamped: Stamped, fields: Mapping[str, Any], source: object, of: tuple[str, ...]) -> None:
        self._awaited.add(stamped.seq, fields, source, of, stamped.timestamp)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        while (oldest := self._awaited.too_old()) is not None:
            self._give_up(oldest, TOO_MANY)
        self._awaited.anchor()

    def _give_up(self, seq: int, why: str) -> None:
        action = self._awaited.take(seq)
        if action is not None:
            self._add_outcome(action, unknown(seq, why))

    def _add_outcome(self, action: Mapping[str, Any], draft: OutcomeDraft) -> None:
        agent = self._agents.get(action["agent_id"])
        stamped = self._add(outcome_fields(action, draft))
        windows = agent.windows
        if not windows.node:
            windows.wid, windows.node = action["wid"], action["node"]
        windows.note(stamped.seq, stamped.data)

    def _restore(self, stored: Reader) -> None:
        """Take up the open windows, and say of what was under way that nobody knows how it ended."""
        self._agents.restore()
        for seq, action in left_open(stored).items():
            self._add_outcome(action, unknown(seq, MONITOR_ENDED))
        self._awaited.anchor()
        for seq, entry in undecided(stored):
            draft, place = draft_of(entry)
            nobody = Resolution(False, MONITOR_GONE, MONITOR)
            fields = decision_fields(draft, place, seq, *settle(Judged(draft), nobody, Judged(draft)))
            self._holds.decided(seq)
            self._enter(self._agents.get(draft.agent_id), fields)


def _hand_on(agent: Agent, place: Place, draft: ActionDraft) -> Minted:
    """The node that goes along with a delegation."""
    return agent.lineage.delegate(place, tuple(draft.audience), _groups(draft.action_parameters.get("within", ())))


def _groups(value: Iterable[Iterable[str]]) -> Within:
    return tuple(map(tuple, value))
