"""Which node of which workflow an action belongs to, when the agent itself says nothing or little.

An agent's work is a set of strands: one of its own (`root`), and one for each delegation that came in and is still
open. An action belongs to a strand because the agent sent its token along (`asserted`), because the `traceparent`
names the trace of the delegation (`traced`), because it is the only one open or, if several are, because it may be any
of them (`inferred`); with none open it is the agent's own work (`root`). A delegation that was answered is still found
by what names it, as an agent may answer first and work later; nothing is inferred from it.

Actions that may belong to several strands get a join node whose predecessors are all of them. Predecessors are of one
workflow; strands of other workflows are named in the join node's `ext.also`.

Tokens are compared as text with those that the agent was given: a line that it made up names no strand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..formats.spiffe import trust_domain
from .claims import MAX_PREDECESSORS, new_id
from .ect import FRESH, IDLE, MAX_ANCESTORS, Minted

How = Literal["root", "asserted", "traced", "inferred"]
Within = tuple[tuple[str, ...], ...]
"""Digests of bindings: of each who handed on, all that applied to it then."""
MAX_OPEN = 1000
"""Open delegations of one agent; beyond, one of the trust domain that has most is taken for finished, its oldest."""
MAX_OVER = 256
"""Delegations of one agent that are over and can still be named, for an hour after they were last."""
NAMED_S = 3600.0
MAX_ALSO = 16
MAX_WITHIN = 32
"""Bindings that a node may name as not to be exceeded."""
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII)


class Mint(Protocol):
    """Signs and keeps a node of the agent."""

    def __call__(
        self, wid: str, parents: tuple[str, ...], audience: tuple[str, ...] = (), ext: Mapping[str, Any] | None = None
    ) -> Minted: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where an action belongs: workflow, node, and how that was found.

    `depth`: how often the work was handed on before this agent got it; None: somebody on the way does not say.
    `within`: the bindings of those who handed it on, where nobody may be allowed more than they allow.
    `of`: the delegations that it is, or may be, work of, by the nodes with which they began.
    """

    wid: str
    node: str
    how: How
    depth: int | None = None
    within: Within = ()
    of: tuple[str, ...] = ()


@dataclass(slots=True)
class Strand:
    """One line of work of an agent. `node` is its newest node; `tokens` are those by which the agent may name it.

    `of` as in `Place`; `jtis` are the ids of its nodes and of those that it comes from. Of both the first,
    as many as are `given` to the agent or came along, are kept; of the later ones the oldest are forgotten.
    """

    node: Minted
    used: float
    trace: str | None = None
    peer: str | None = None
    depth: int | None = None
    within: Within = ()
    length: int = 1
    tokens: list[str] = field(default_factory=list)
    given: int = 1
    of: tuple[str, ...] = ()
    jtis: list[str] = field(default_factory=list)


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a valid `traceparent` (W3C Trace Context), None for an absent or invalid one."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if found is None:
        return None
    version, trace, parent, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace.strip("0") or not parent.strip("0"):
        return None
    return trace


def split_lines(lines: Iterable[str]) -> list[str]:
    """The tokens of header lines, also where something on the way joined them with commas (RFC 9110 section 5.3)."""
    return [token for line in lines for part in line.split(",") if (token := part.strip())]


def extension(depth: int | None, within: Within, trace: str | None = None) -> dict[str, Any]:
    """What the extension of a node says of the way that the work has come.

    Where that is within more bindings than a node may name, it says of how many groups they are (`within_omitted`).
    """
    named = not exceeds_within(within)
    said = {
        "depth": depth,
        "within": [*map(list, within)] if within and named else None,
        "within_omitted": None if named else len(within),
        "trace": trace,
    }
    return {name: value for name, value in said.items() if value is not None}


def exceeds_within(groups: Sequence[Sequence[str]]) -> bool:
    """Whether these are more bindings, or groups of them, than a node may name."""
    return max(len(groups), sum(map(len, groups))) > MAX_WITHIN


class Lineage:
    """The strands of one agent. `mint` makes nodes; times are NumericDates."""

    def __init__(self, mint: Mint) -> None:
        self._mint = mint
        self._root: Strand | None = None
        self._open: dict[str, Strand] = {}
        self._over: dict[str, Strand] = {}
        self._joins: dict[frozenset[str], Strand] = {}
        self._by_token: dict[str, Strand] = {}

    def place(self, lines: Iterable[str], traceparent: str | None, now: float) -> Place:
        """Where an action belongs that came with these `Execution-Context` lines and this `traceparent`."""
        self._forget(now)
        how, strands = self._find(lines, traceparent)
        for strand in strands:
            self._named_again(strand)
        if not strands:
            strand = self._own(now)
        elif len(strands) == 1:
            strand = strands[0]
        else:
            strand = self._join(strands, now)
        self._refresh(strand, now)
        strand.used = now
        return Place(strand.node.wid, strand.node.jti, how, strand.depth, strand.within, strand.of)

    def own(self, now: float) -> Place:
        """The agent's own work, whatever is open."""
        strand = self._own(now)
        return Place(strand.node.wid, strand.node.jti, "root", strand.depth)

    def delegate(self, place: Place, audience: tuple[str, ...], within: Within = ()) -> Minted:
        """A node for one delegation out of `place`. Each has its own, because a receiver takes a jti only once."""
        return self._mint(place.wid, (place.node,), audience, extension(place.depth, within))

    def open(
        self,
        node: Minted,
        incoming: Iterable[str],
        traceparent: str | None,
        peer: str,
        now: float,
        depth: int | None = None,
        within: Within = (),
    ) -> str | None:
        """A delegation came in: `node` is the agent's, `incoming` are the nodes that it comes from.

        Returns the node of the delegation that was taken for finished to make room, if one was.
        """
        self._forget(now)
        dropped = self._crowding(peer) if len(self._open) >= MAX_OPEN else None
        if dropped is not None:
            self.finish(dropped)
        strand = Strand(node, now, trace_id(traceparent), peer, depth, within)
        strand.of, strand.jtis = (node.jti,), [node.jti, *node.parents]
        self._open[node.jti] = strand
        lines = (node.token, *incoming)
        strand.given = max(len(lines), len(strand.jtis))
        for token in lines:
            self._name(token, strand)
        return dropped

    def response(self, node: str, now: float) -> tuple[Minted, str] | None:
        """The newest node, fresh, of the open delegation that began with `node`, and the peer who asked for it."""
        strand = self._open.get(node)
        if strand is None:
            return None
        self._refresh(strand, now)
        strand.used = now
        return strand.node, strand.peer or ""

    @property
    def busy(self) -> bool:
        """Whether a delegation is open."""
        return bool(self._open)

    def named(self, jti: str) -> tuple[str, ...]:
        """The open delegations that this node is of, by the nodes with which they began."""
        found = [begun for begun, strand in self._open.items() if jti == begun or jti in strand.jtis]
        return tuple(found) or next((join.of for join in self._joins.values() if join.node.jti == jti), ())

    def finish(self, node: str) -> Strand | None:
        """The delegation that began with `node` is over; the strand that it was, if it was open."""
        strand = self._open.pop(node, None)
        if strand is None:
            return None
        self._joins.clear()
        self._over[node] = strand
        return strand

    def _named_again(self, strand: Strand) -> None:
        """One that is over is forgotten later than those that were not named since."""
        if strand.of and self._over.pop(strand.of[0], None) is not None:
            self._over[strand.of[0]] = strand

    def _forget(self, now: float) -> None:
        """Those that are over, if they were not named for long or are too many."""
        while self._over:
            node, strand = next(iter(self._over.items()))
            if len(self._over) <= MAX_OVER and now - strand.used <= NAMED_S:
                return
            del self._over[node]
            for token in strand.tokens:
                if self._by_token.get(token) is strand:
                    del self._by_token[token]

    def _find(self, lines: Iterable[str], traceparent: str | None) -> tuple[How, list[Strand]]:
        known = self._by_token
        named = {id(known[token]): known[token] for token in split_lines(lines) if token in known}
        if named:
            return "asserted", list(named.values())
        trace = trace_id(traceparent)
        for strands in (self._open, self._over) if trace is not None else ():
            traced = [strand for strand in strands.values() if strand.trace == trace]
            if traced:
                return "traced", traced
        return ("inferred", list(self._open.values())) if self._open else ("root", [])

    def _own(self, now: float) -> Strand:
        """The agent's own work: a new workflow after an idle stretch, or before it has too many ancestors."""
        root = self._root
        if root is None or now - root.used > IDLE or root.length >= MAX_ANCESTORS // 2:
            if root is not None:
                for token in root.tokens:
                    self._by_token.pop(token, None)
            root = self._root = Strand(self._mint(new_id(), (), (), extension(0, ())), now, depth=0)
            self._name(root.node.token, root)
        return root

    def _join(self, strands: list[Strand], now: float) -> Strand:
        key = frozenset(strand.node.jti for strand in strands)
        join = self._joins.get(key)
        if join is None or now - join.node.iat > FRESH:
            wid = strands[-1].node.wid
            parents = [strand.node.jti for strand in strands if strand.node.wid == wid][-MAX_PREDECESSORS:]
            others = [f"{strand.node.wid}/{strand.node.jti}" for strand in strands if strand.node.wid != wid]
            depths = [strand.depth for strand in strands if strand.depth is not None]
            depth = max(depths) if len(depths) == len(strands) else None
            within = tuple(dict.fromkeys(group for strand in strands for group in strand.within))
            ext = {**extension(depth, within), **({"also": others[-MAX_ALSO:]} if others else {})}
            node = self._mint(wid, tuple(parents), (), ext)
            of = tuple(begun for strand in strands for begun in strand.of)
            join = self._joins[key] = Strand(node, now, depth=depth, within=within, of=of)
        return join

    def _refresh(self, strand: Strand, now: float) -> None:
        """Put a continuation node in the place of one that is no longer fresh."""
        if now - strand.node.iat <= FRESH:
            return
        audience = (strand.peer,) if strand.peer else ()
        ext = {**extension(strand.depth, strand.within), "continues": True}
        strand.node = self._mint(strand.node.wid, (strand.node.jti,), audience, ext)
        strand.length += 1
        strand.jtis.append(strand.node.jti)
        if len(strand.jtis) > MAX_PREDECESSORS:
            del strand.jtis[strand.given]
        self._name(strand.node.token, strand)

    def _name(self, token: str, strand: Strand) -> None:
        strand.tokens.append(token)
        self._by_token[token] = strand
        if len(strand.tokens) > MAX_PREDECESSORS:
            self._by_token.pop(strand.tokens.pop(strand.given), None)

    def _crowding(self, peer: str) -> str:
        """The oldest that is open of the trust domain that has most, counting one more of this peer."""
        domains = {node: trust_domain(strand.peer or "") for node, strand in self._open.items()}
        [(most, _)] = Counter([trust_domain(peer), *domains.values()]).most_common(1)
        return next(node for node, domain in domains.items() if domain == most)
