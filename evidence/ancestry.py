"""The nodes that a monitor knows, and what one that comes in is held to besides what it brings along.

The rules are those that `verifier/chain.py` holds all logs together to. An id is a node's own within its workflow, so:

- in its workflow the id of a node that comes in is new, or that of a node of this monitor which comes back as it was;
- a predecessor that is known there is not younger beyond the skew and, if another issued it, was addressed to the node;
- one that is known only in another workflow, as this monitor's own or as one of the node's issuer, is a lie. What a
  third party has under its id in another workflow says nothing: else anyone who saw an id could spoil it for its owner;
- a node is not its own ancestor, and what is minted for it has at most 10,000 ancestors that are known.

Any other predecessor is pending: it is counted, and it may still come, or it is in the log of another monitor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..formats import jws
from . import ect
from .claims import SKEW
from .ect import MAX_AGE, MAX_ANCESTORS
from .store import NodeRow, Reader

Key = tuple[str, str]
"""(wid, jti) of a node; wid is empty where the issuer names no workflow. Such a node fits any."""
MAX_NEW = 1024
"""Nodes kept until the store surely has them."""
MAX_NAMED = 50_000
"""Pending predecessors that are remembered; beyond, the oldest is forgotten, and nobody is held to it any more."""
MAX_WALK = 1000
"""Known ancestors of a node that comes after its successor; with more, nobody looks whether it is one of its own."""
MAX_COUNTED = 2 * MAX_ANCESTORS
"""Nodes of which the number of ancestors is remembered; that of others is counted again."""


def too_young(parent: str, parent_iat: float, child: str, child_iat: float) -> str:
    """What is wrong if the predecessor was issued after its successor; "" if nothing is."""
    if parent_iat <= child_iat + SKEW:
        return ""
    late = f"node {child} is {parent_iat - child_iat:.0f} s older than its predecessor {parent}"
    return f"{late}, more than the skew of {SKEW:.0f} s"


def not_addressed(audience: Collection[str], child: str, issuer: str, agent: str) -> str:
    """What is wrong if a node names a predecessor of another issuer, with this audience, that was not given to it."""
    if issuer in audience or agent in audience:
        return ""
    return f"node {child} names a predecessor that is addressed to {', '.join(audience)}, not to it"


class Named(NamedTuple):
    """Who named a node that is not there, remembered `until` then."""

    until: float
    by: str
    issuer: str
    iat: float


class Ancestry:
    """What is known of the DAGs: the nodes in the store, and those that came in since.

    `recent` are the received ones of which a predecessor may still come. Look-ups go by an index. Ancestors are
    counted only in a workflow of which more nodes are known than there may be ancestors: from the counts of their
    predecessors, and along the chain where those are not remembered or where paths part and meet.
    """

    def __init__(self, stored: Reader, recent: Iterable[NodeRow], monitor_id: str, now: float) -> None:
        self._stored = stored
        self._monitor_id = monitor_id
        self._new: dict[Key, NodeRow] = {}
        self._counts: dict[Key, int] = {}
        self._named: dict[Key, Named] = {}
        for row in recent:
            self._name(row, row.parents, now)

    def admit(self, rows: Sequence[NodeRow], now: float) -> tuple[str, int]:
        """Take up nodes that come in together; or say what is wrong. And how many predecessors are pending."""
        for row in rows:
            known = self._find(row.wid, row.jti)
            if known is None or known.wid != row.wid:
                continue
            if known.origin != "minted" or known.token != row.token:
                return f"the id of node {row.jti} is taken in this workflow: {known.issuer} issued one with it", 0
        self._new.update({_key(row): row for row in rows})
        named = [{jti: self._parent(row, jti) for jti in row.parents} for row in rows]
        problem = self._problem(rows, named)
        pending = 0
        for row, parents in zip(rows, named, strict=True):
            absent = [jti for jti, parent in parents.items() if parent is None]
            pending += len(absent)
            if problem:
                self._new.pop(_key(row), None)
                self._counts.pop(_key(row), None)
            else:
                self._name(row, absent, now)
        self._forget(now)
        return problem, pending

    def _problem(self, rows: Sequence[NodeRow], named: Sequence[Mapping[str, NodeRow | None]]) -> str:
        for row, parents in zip(rows, named, strict=True):
            problem = next(filter(None, (self._edge_problem(row, *edge) for edge in parents.items())), "")
            if problem := problem or self._problem_as_named(row):
                return problem
        if not any(parent for parents in named for parent in parents.values()):
            return ""
        within = self._stored.known(rows[0].wid, MAX_ANCESTORS + 1)
        if within + len(self._new) <= MAX_ANCESTORS:
            return ""
        return self._too_many(rows, named)

    def _too_many(self, rows: Sequence[NodeRow], named: Sequence[Mapping[str, NodeRow | None]]) -> str:
        known = [[one for one in parents.values() if one is not None] for parents in named]
        counts = [sum(self._count(one) + 1 for one in parents) for parents in known]
        exact = sum(counts) + len(rows)
        if exact > MAX_ANCESTORS:
            exact = len(rows) + sum(1 for _ in self._ancestors(rows))
            if exact > MAX_ANCESTORS:
                return f"what comes after node {rows[0].jti} would have more than {MAX_ANCESTORS} known ancestors"
        for row, count in zip(rows, counts, strict=True):
            self._counts[_key(row)] = min(count, exact - 1)
        return ""

    def _edge_problem(self, row: NodeRow, jti: str, parent: NodeRow | None) -> str:
        if parent is None:
            other = self._stored.node_of(jti, (row.issuer, self._monitor_id))
            where = f"is of another workflow ({other.wid})" if other is not None else ""
            return f"the predecessor {jti} of node {row.jti} {where}" if where else ""
        problem = too_young(parent.jti, parent.iat, row.jti, row.iat)
        if problem or parent.issuer == row.issuer:
            return problem
        return not_addressed(_audience(parent), row.jti, row.issuer, row.agent_id)

    def _problem_as_named(self, row: NodeRow) -> str:
        """Of a node that another named before it came."""
        named = self._named.get(_key(row))
        if named is None:
            return ""
        if named.issuer == row.issuer and (problem := too_young(row.jti, row.iat, named.by, named.iat)):
            return problem
        for n, one in enumerate(self._ancestors([row])):
            if row.jti in one.parents and one.wid == row.wid:
                return f"node {row.jti} is its own ancestor"
            if n == MAX_WALK:
                return f"node {row.jti} comes after its successor {named.by}, and has more than {MAX_WALK} ancestors"
        self._counts.clear()
        return ""

    def _parent(self, row: NodeRow, jti: str) -> NodeRow | None:
        """The predecessor that `row` means; one of no workflow only where it is of the same issuer."""
        found = self._find(row.wid, jti)
        return found if found is not None and (found.wid == row.wid or found.issuer == row.issuer) else None

    def _find(self, wid: str, jti: str) -> NodeRow | None:
        """The node of this workflow, else one of none."""
        return self._new.get((wid, jti)) or self._stored.node(wid, jti) or self._new.get(("", jti))

    def _parents(self, row: NodeRow) -> list[NodeRow]:
        return [found for jti in row.parents if (found := self._find(row.wid, jti)) is not None]

    def _ancestors(self, rows: Iterable[NodeRow]) -> Iterator[NodeRow]:
        """All that are known, each once, without `rows`; ends when there are more than may be."""
        queue = list(rows)
        seen = {_key(row) for row in queue}
        while queue and len(seen) <= MAX_ANCESTORS + 1:
            for parent in self._parents(queue.pop()):
                if _key(parent) not in seen:
                    seen.add(_key(parent))
                    queue.append(parent)
                    yield parent

    def _count(self, row: NodeRow) -> int:
        """The number of its known ancestors: exact where no paths part and meet, else not too low."""
        counts = self._counts
        waiting: dict[Key, list[NodeRow]] = {}
        stack = [row]
        while stack:
            key = _key(stack[-1])
            if key not in counts and key not in waiting:
                waiting[key] = self._parents(stack[-1])
                if len(waiting) > MAX_ANCESTORS:
                    return MAX_ANCESTORS
                stack += [one for one in waiting[key] if _key(one) not in counts and _key(one) not in waiting]
                continue
            if key not in counts:
                total = sum(counts.get(_key(one), 0) + 1 for one in waiting[key])
                counts[key] = min(total, MAX_ANCESTORS)
            stack.pop()
        return counts[_key(row)]

    def _name(self, row: NodeRow, jtis: Iterable[str], now: float) -> None:
        """Remember the first that names a predecessor, for as long as that may come without being the younger one."""
        for jti in jtis:
            self._named.setdefault((row.wid, jti), Named(now + MAX_AGE + 3 * SKEW, row.jti, row.issuer, row.iat))

    def _forget(self, now: float) -> None:
        for kept, most in ((self._new, MAX_NEW), (self._named, MAX_NAMED), (self._counts, MAX_COUNTED)):
            while len(kept) > most:
                del kept[next(iter(kept))]
        while self._named and next(iter(self._named.values())).until < now:
            del self._named[next(iter(self._named))]


def _key(row: NodeRow) -> Key:
    return row.wid, row.jti


def _audience(row: NodeRow) -> tuple[str, ...]:
    return ect.parse(jws.parse_compact(row.token, typ=ect.ACCEPTED_TYP).claims(), row.token).audience
