"""The delegations that are open at a monitor, those that came in and those that went out, and how one is revoked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..formats import jws
from ..formats.errors import UsageError
from . import ect
from .agents import Agent
from .awaited import Awaited
from .entry import InboundDraft, Resolution
from .held import MONITOR, Holds
from .ledger import Ledger
from .revoked import HINT, LINGERS, REASON, Revocation, Revoked
from .store import NodeRow, Stamped


@dataclass(frozen=True, slots=True)
class Delegation:
    """One that is open. `node` names it: the local agent's where it came `in`, that which went along where it is `out`.

    `other` is who has handed it on, or the target that it went to; `monitor` is the peer that it came from, `came` are
    the nodes that came along. `entry` and `since` are those of its action.
    """

    node: str
    direction: Literal["in", "out"]
    agent: str
    other: str
    wid: str
    entry: int
    since: float
    monitor: str = ""
    came: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in ("", ())}


class Delegations:
    """Kept by the recorder. `source` is whoever serves a delegation that came in (see `Recorder.lost`)."""

    def __init__(self, ledger: Ledger, awaited: Awaited, holds: Holds, revoked: Revoked) -> None:
        self._ledger = ledger
        self._awaited = awaited
        self._holds = holds
        self._revoked = revoked
        self._inbound: dict[str, tuple[Agent, object, Delegation]] = {}

    def arrived(self, agent: Agent, node: str, wid: str, draft: InboundDraft, source: object, stamped: Stamped) -> None:
        """A delegation came in and the local agent got its `node`."""
        came = tuple(str(parent["jti"]) for parent in draft.parents)
        caller = str(draft.parents[0]["agent_id"])
        self._inbound[node] = (
            agent,
            source,
            Delegation(node, "in", agent.agent_id, caller, wid, stamped.seq, stamped.timestamp, draft.peer_id, came),
        )

    def agent_of(self, node: str) -> Agent | None:
        """The local agent that works on what came in with this node of its own."""
        return self._inbound[node][0] if node in self._inbound else None

    def served_by(self, source: object) -> list[str]:
        """The nodes of the open delegations that came in and are served by it."""
        return [node for node, (_, served_by, _) in self._inbound.items() if served_by is source]

    def finish(self, node: str) -> None:
        """The delegation that came in is over. Unknown nodes are ignored."""
        found = self._inbound.pop(node, None)
        if found is not None:
            found[0].lineage.finish(node)

    def forget(self, node: str) -> None:
        """Lineage has finished it already."""
        self._inbound.pop(node, None)

    def open(self) -> list[Delegation]:
        """All that are open, the oldest first."""
        found = [delegation for _, _, delegation in self._inbound.values()]
        for seq, action, since, of in self._awaited.of_type("delegation"):
            if action["node"] not in of and self._revoked.get(action["node"]) is None:
                at = action["agent_id"], action["action_target"], action["wid"], seq, since
                found.append(Delegation(action["node"], "out", *at))
        return sorted(found, key=lambda one: one.entry)

    def under_way(self, action_type: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The actions of any type that were let out and have not ended: seq, and what an outcome repeats of each."""
        return ((seq, action) for seq, action, *_ in self._awaited.of_type(action_type))

    def revoked(self) -> list[Revocation]:
        """All that were revoked, the oldest first."""
        return self._revoked.listed()

    def revoke(self, jti: str, by: str, why: str, known: Iterable[NodeRow]) -> tuple[Revocation, list[int]]:
        """Revoke the delegation that the node is of; the entries of what ends with it.

        `known` are the nodes of its workflow in the log, if it is there. One that was revoked already stays so. Raises
        UsageError for a node that is of none, or of several.
        """
        before = self._revoked.get(jti)
        if before is not None:
            return before, []
        found = self._find(jti)
        if found is None:
            return self._revoked.put(_past(jti, by, why, list(known)), []), []
        node, ended = found.node, [found.entry]
        if found.direction == "out":
            return self._revoked.put(
                Revocation(node, "out", found.agent, found.wid, (node,), by=by, why=why), ended
            ), ended
        agent, _, _ = self._inbound.pop(node)
        strand = agent.lineage.finish(node)
        nodes = dict.fromkeys((node, *found.came, *(strand.jtis if strand is not None else ())))
        ended = sorted({*ended, *self._awaited.work_of(node)})
        trace = strand.trace if strand is not None else None
        given = Revocation(
            node, "in", found.agent, found.wid, tuple(nodes), trace, self._ledger.now() + LINGERS, by, why
        )
        given = self._revoked.put(given, ended)
        self._holds.resolve_all(lambda one: node in one.of, Resolution(False, REASON, MONITOR, HINT))
        return given, ended

    def _find(self, jti: str) -> Delegation | None:
        for agent in {id(agent): agent for agent, _, _ in self._inbound.values()}.values():
            begun = agent.lineage.named(jti)
            if len(begun) > 1:
                raise UsageError(_of_several(jti, begun))
            if begun:
                return self._inbound[begun[0]][2]
        return next((one for one in self.open() if one.node == jti), None)


def _past(jti: str, by: str, why: str, known: list[NodeRow]) -> Revocation:
    """A delegation of the log that is open no longer: what names it from now on is refused."""
    rows = {row.jti: row for row in known}
    if jti not in rows:
        raise UsageError(
            f"no delegation with the node {jti} is known here; `lictor delegation list` shows the open ones"
        )
    if rows[jti].origin == "received":
        jti = next((row.jti for row in known if jti in row.parents and row.origin == "minted"), jti)
    row, said = _begun(rows[jti], rows)
    if not row.parents and row.origin == "minted":
        raise UsageError(
            f"the node {jti} is {row.agent_id}'s own work and no delegation; `lictor agent quarantine` ends that"
        )
    known_here = [rows[parent] for parent in row.parents if parent in rows]
    own = [one.jti for one in known_here if (one.origin, one.agent_id) == ("minted", row.agent_id)]
    others = [one.rpartition("/")[2] for one in said.get("also", ())]
    if row.origin == "minted" and len(own) + len(others) > 1:
        raise UsageError(_of_several(jti, (*others, *own)))
    came = [one.jti for one in known_here if one.jti not in own]
    nodes = {row.jti, *came}
    for later in known:  # as they were made, so that children come after their parents
        if later.agent_id == row.agent_id and nodes.intersection(later.parents):
            nodes.add(later.jti)
    direction: Literal["in", "out"] = "in" if came or row.origin == "received" else "out"
    trace = said.get("trace")
    return Revocation(row.jti, direction, row.agent_id, row.wid, tuple(sorted(nodes)), trace, by=by, why=why)


def _begun(row: NodeRow, rows: Mapping[str, NodeRow]) -> tuple[NodeRow, Mapping[str, Any]]:
    """The node that this one continues, or itself; and what a node of ours says in its extension."""
    while row.origin == "minted":
        said = ect.parse(jws.parse_compact(row.token, typ=ect.ACCEPTED_TYP).claims(), row.token).ext
        if not said.get("continues") or row.parents[0] not in rows:
            return row, said
        row = rows[row.parents[0]]
    return row, {}


def _of_several(jti: str, begun: Iterable[str]) -> str:
    return f"the node {jti} is of several delegations; revoke those you mean: {', '.join(begun)}"
