"""Delegations that were revoked: which nodes were theirs, and which actions belong to them all the same.

Kept in the store with the entry that says so, for as long as there is room. An action belongs to a revoked delegation
if a line that came with it names one of its nodes; or, like any other work (`lineage`), because the trace is that of
the delegation, or because none is open that it could be work of: for `LINGERS` seconds an agent that says nothing is
taken to go on with what it had. Lines are not verified: whoever names a revoked node harms nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import orjson

from ..formats import jws
from ..formats.errors import FormatError, VerificationError
from . import ect
from .entry import DELEGATION_REVOKED, ActionDraft, own_fields
from .ledger import Ledger
from .lineage import Place, split_lines, trace_id
from .state import Judged
from .store import Reader, read_meta

REASON = "delegation_revoked"
HINT = (
    "The delegation that this is work of was revoked: nothing more of it is let out. Do not try another way; what you "
    "do for others goes on."
)
LINGERS = float(ect.IDLE)
MOST = 1000
"""Revocations that are remembered; beyond, the oldest is forgotten. Its delegation stays ended."""
MOST_SAID = 1000
"""How many of the entries whose actions were ended the entry of a revocation names."""
_META = "revoked_delegations"


@dataclass(frozen=True, slots=True)
class Revocation:
    """`node` is that of the callee where the delegation came `in`, that which went along where it went `out`.

    `agent` is the local one, `nodes` are all by which the work may be named. `trace` and `until` (a NumericDate) say
    what else is taken for work of it. `entry` says who gave the order and why.
    """

    node: str
    direction: Literal["in", "out"]
    agent: str
    wid: str
    nodes: tuple[str, ...]
    trace: str | None = None
    until: float = 0.0
    by: str = ""
    why: str = ""
    entry: int = 0
    since: float = 0.0

    def place(self, how: Literal["asserted", "traced", "inferred"]) -> Place:
        return Place(self.wid, self.node, how, of=(self.node,))


class Revoked:
    """What is written is durable with the ledger's next commit."""

    def __init__(self, ledger: Ledger, stored: Reader, monitor_id: str) -> None:
        self._ledger = ledger
        self._monitor_id = monitor_id
        kept = read_meta(stored, _META, list[Any]())
        self._given = {one["node"]: Revocation(**{**one, "nodes": tuple(one["nodes"])}) for one in kept}
        self._index()

    def __bool__(self) -> bool:
        return bool(self._given)

    def get(self, jti: str) -> Revocation | None:
        """The revocation of the delegation that this node is of."""
        return self._by_node.get(jti)

    def listed(self) -> list[Revocation]:
        """The oldest first."""
        return list(self._given.values())

    def put(self, given: Revocation, ended: list[int]) -> Revocation:
        """Write down that the delegation is revoked, and which actions (their entries) end with it."""
        said: dict[str, Any] = {
            "node": given.node,
            "wid": given.wid,
            "agent": given.agent,
            "direction": given.direction,
            "by": given.by,
            "why": given.why,
            "ended": ended[:MOST_SAID],
        }
        if len(ended) > MOST_SAID:
            said["ended_omitted"] = len(ended) - MOST_SAID
        stamped = self._ledger.add(own_fields(self._monitor_id, DELEGATION_REVOKED, said))
        given = replace(given, entry=stamped.seq, since=stamped.timestamp)
        self._given[given.node] = given
        while len(self._given) > MOST:
            del self._given[next(iter(self._given))]
        self._ledger.put_meta(_META, orjson.dumps([asdict(one) for one in self._given.values()]).decode())
        self._index()
        return given

    def concerns(self, agent_id: str) -> bool:
        """Whether what the agent does without saying anything may have to be looked at."""
        return agent_id in self._of

    def judge(self, draft: ActionDraft, place: Place) -> Judged | None:
        """The denial of what is, or may be, work of a revoked delegation."""
        if draft.decision == "deny" or not any(node in self._given for node in place.of):
            return None
        return Judged(replace(draft, decision="deny", reason=REASON), HINT)

    def refuses(self, jtis: Iterable[str]) -> str:
        """Why work that comes in under one of these nodes is not taken up; empty if it may be."""
        revoked = next((jti for jti in jtis if jti in self._by_node), None)
        return f"the delegation with the node {revoked} was revoked" if revoked is not None else ""

    def place(self, agent_id: str, lines: Iterable[str], traceparent: str | None, found: Place, now: float) -> Place:
        """Where an action belongs that lineage has `found` to belong there."""
        for jti in _ids(lines):
            if jti in self._by_node:
                return self._by_node[jti].place("asserted")
        of_agent = self._of.get(agent_id)
        if of_agent is None or found.how == "asserted":
            return found
        trace = trace_id(traceparent) if found.how != "traced" else None
        if trace is not None:
            for one in of_agent:
                if one.trace == trace:
                    return one.place("traced")
        if found.how == "root" and now < of_agent[-1].until:
            return of_agent[-1].place("inferred")
        return found

    def _index(self) -> None:
        self._by_node = {jti: one for one in self._given.values() for jti in one.nodes}
        self._of: dict[str, list[Revocation]] = {}
        for one in sorted(self._given.values(), key=lambda one: one.until):
            if one.until or one.trace is not None:
                self._of.setdefault(one.agent, []).append(one)


def _ids(lines: Iterable[str]) -> Iterable[str]:
    for line in split_lines(lines):
        try:
            yield str(jws.parse_compact(line, typ=ect.ACCEPTED_TYP).claims().get("jti"))
        except (VerificationError, FormatError):
            continue
