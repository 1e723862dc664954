"""Both ends of each delegation: what the caller's monitor wrote down of it, held to what the callee's wrote down.

An edge is a delegation that went out (an entry of the caller, with the node that was minted for it) and one that came
in (an entry of the callee, which names that node among its parents). Both monitors saw the same bytes go by, so both
recorded the same digests of request and response, the same status, the same ids, in compatible times; what the callee
sent back beside its response is held to the node that its own log has. An end that is in none of the files is missing;
one that should be in a file that is there is a lie of one of the two. It should be there if the file reaches so far:
the logs of running monitors are not read at the same moment.

The entries are read as the files have them: that they are what was signed, `verify_log` says.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from ..evidence.claims import SKEW
from ..evidence.entry import went_on
from ..evidence.export import EntryLine, Header, Record, export_lines, open_lines, read_records
from ..evidence.sqlite_store import SqliteReader
from ..formats import base64url
from ..formats.errors import FormatError
from .chain import Chain, Node, Problem
from .log import is_ledger

State = Literal["agreed", "broken_off", "refused", "open", "one_sided", "contradicted"]
LET_OUT = frozenset(("allow", "flag"))
CAME_LATER = ("trailers", "fetched")
"""What an outcome says of evidence that came once the answer had ended."""
_TOO_SHORT = "which may have been read before: read it again"
_COMPARED = ("request_bytes", "request_digest", "response_bytes", "response_digest", "status")


@dataclass(slots=True)
class End:
    """One end of a delegation: entry `seq` of the log `origin`, about `agent`. `outcome` is empty until there is one.

    Of the caller, `nodes` holds the one node that was minted for the delegation. Of the callee, `node` is its own and
    `nodes` are those that came with the work; `peer` is the monitor that brought them, `caller` the agent behind that,
    `shown` the ids of the BETs that came along, `rests_on` how many entries of the caller's log these rest on at most,
    None if they do not say.
    """

    origin: str
    seq: int
    agent: str
    timestamp: float
    wid: str
    node: str
    nodes: tuple[str, ...]
    peer: str = ""
    caller: str = ""
    shown: tuple[str, ...] = ()
    rests_on: int | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One delegation; `caller` and `callee` are agents, "" where the files do not say.

    `state`: agreed; broken_off (at one end at least, so nothing was compared); refused (the callee did not take it, or
    nothing arrived); open (an outcome is still to come); one_sided (the other end is in none of the files);
    contradicted.
    """

    state: State
    wid: str
    node: str
    caller: str
    callee: str
    callee_node: str = ""


@dataclass(slots=True)
class _Logs:
    """The ends of all files. `served`: agents, each with the origins of the logs that tell of work that came in for it.

    `whole`: origins of logs of which a file lacks no entry, erased, left out or cut off, each with how many these are,
    and the time of the last.
    """

    outgoing: list[End] = field(default_factory=list)
    incoming: defaultdict[str, list[End]] = field(default_factory=lambda: defaultdict(list))
    origins: set[str] = field(default_factory=set)
    served: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    whole: dict[str, tuple[int, float]] = field(default_factory=dict)

    def reaches(self, origin: str, time: float) -> bool:
        """Whether a file of this log goes on to beyond this time of another clock."""
        return self.whole[origin][1] > time + SKEW


def reconcile(paths: Iterable[Path], chain: Chain) -> tuple[list[Edge], list[Problem]]:
    """All delegations that the files tell of, and what does not hold. Raises UsageError if a file cannot be read."""
    logs, tokens = _read(paths), _Tokens.of(chain)
    edges: list[Edge] = []
    problems: list[Problem] = []
    for out in logs.outgoing:
        problems += tokens.missing_node(out)
        found = [end for end in logs.incoming.pop(out.node, []) if out.node in end.nodes]
        if not found:
            edges.append(Edge(_state_alone(out), out.wid, out.node, out.agent, ""))
            problems += _without_callee(out, logs, chain, tokens)
        for end in found:
            differences = list(_differences(out, end, chain))
            state: State = "contradicted" if differences else _state_of(out, end)
            edges.append(Edge(state, out.wid, out.node, out.agent, end.agent, end.node))
            problems += [_contradiction(out, end, what) for what in differences]
            problems += [*tokens.missing_node(end), *tokens.missing_evidence(out, end)]
        if len(found) > 1:
            where = " and ".join(f"{end.origin}, entry {end.seq}" for end in found)
            problems.append(Problem("bad", f"the delegation {out.node} was taken more than once: {where}", out.node))
    for node, ends in logs.incoming.items():
        for end in ends:
            problems += tokens.missing_node(end)
            edges.append(Edge("one_sided", end.wid, node, end.caller, end.agent, end.node))
            problems.append(_without_caller(node, end, logs))
    return edges, problems


def _state_of(out: End, end: End) -> State:
    if not (out.outcome and end.outcome):
        return "open"
    return "agreed" if out.outcome.get("complete") and end.outcome.get("complete") else "broken_off"


def _state_alone(out: End) -> State:
    if not out.outcome:
        return "open"
    return "one_sided" if _was_taken(out) else "refused"


def _was_taken(out: End) -> bool:
    """Whether the callee has answered as one that took the work."""
    status = out.outcome.get("status")
    return isinstance(status, int) and 200 <= status < 300


def _without_callee(out: End, logs: _Logs, chain: Chain, tokens: _Tokens) -> Iterator[Problem]:
    """A delegation that was answered, of which no file says that it came in."""
    if not _was_taken(out):
        return
    named = f"the delegation {out.node} (entry {out.seq} of {out.origin})"
    minted = chain.nodes.get((out.wid, out.node))
    callees = {one for one in (minted.ect.audience if minted is not None else ()) if one in logs.served}
    if not callees or logs.origins != logs.whole.keys():
        yield Problem("missing", f"that {named} came in is in none of the files", out.node)
        return
    who = ", ".join(sorted(callees))
    if tokens.came_back(out) or any(logs.reaches(o, out.ended or 0.0) for one in callees for o in logs.served[one]):
        yield Problem("bad", f"{named} was answered, and the log of {who} knows nothing of it", out.node)
    else:
        yield Problem("missing", f"that {named} came in is not in the log of {who}, {_TOO_SHORT}", out.node)


def _without_caller(node: str, end: End, logs: _Logs) -> Problem:
    named = f"the delegation {node} that came in (entry {end.seq} of {end.origin})"
    origin = end.peer.removeprefix("spiffe://")
    if origin not in logs.whole:
        return Problem("missing", f"that {named} went out is in none of the files", node)
    count, _ = logs.whole[origin]
    if end.rests_on is None or end.rests_on <= count or logs.reaches(origin, end.timestamp):
        return Problem("bad", f"the log of {end.peer} knows nothing of {named}", node)
    return Problem("missing", f"that {named} went out is not in the log of {end.peer}, {_TOO_SHORT}", node)


def _contradiction(out: End, end: End, what: str) -> Problem:
    where = f"entry {out.seq} of {out.origin} and entry {end.seq} of {end.origin}"
    return Problem("bad", f"the two ends of the delegation {out.node} differ in {what} ({where})", out.node)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What there is in all files: ids of nodes and BETs, digests of BETs with the ends of their windows."""

    nodes: frozenset[str]
    bets: frozenset[str]
    digests: Mapping[str, float]

    @classmethod
    def of(cls, chain: Chain) -> _Tokens:
        digests = {_digest(one.token): one.end for one in chain.bets.values()}
        return cls(frozenset(jti for _, jti in chain.nodes), frozenset(chain.bets), digests)

    def missing_node(self, end: End) -> Iterator[Problem]:
        """The node of an entry that is there itself."""
        if end.node not in self.nodes:
            what = f"the node {end.node} of the delegation in entry {end.seq} of {end.origin} is in none of the files"
            yield Problem("missing", what, end.node)

    def came_back(self, out: End) -> list[float]:
        """The ends of the windows of BETs that came back from a delegation and are there."""
        return [self.digests[one] for one in out.outcome.get("peer_bet", ()) if one in self.digests]

    def missing_evidence(self, out: End, end: End) -> Iterator[Problem]:
        """What went along and what came back, as far as both ends say. Agents may add lines of their own to an answer,
        so it is enough if one that came back is there."""
        for jti in (jti for jti in end.shown if jti not in self.bets):
            what = f"the BET {jti} that came with the delegation {out.node} is in none of the files"
            yield Problem("missing", what, jti)
        there = self.came_back(out)
        if out.outcome.get("peer_bet") and not there:
            what = f"the evidence that came back from the delegation {out.node} is in none of the files"
            yield Problem("missing", what, out.node)
        elif out.outcome.get("last_evidence") in CAME_LATER and max(there, default=0.0) < (end.ended or 0.0):
            what = f"the evidence that came after the answer to the delegation {out.node} does not cover its end"
            yield Problem("bad", what, out.node)


def _differences(out: End, end: End, chain: Chain) -> Iterator[str]:
    if out.wid != end.wid:
        yield f"the workflow: {out.wid} and {end.wid}"
    if out.agent != end.caller:
        yield f"who delegates: {out.agent} and {end.caller}"
    if f"spiffe://{out.origin}" != end.peer:
        yield f"the monitor that brought it: {out.origin} and {end.peer}"
    if end.timestamp < out.timestamp - SKEW or (out.ended is not None and end.timestamp > out.ended + SKEW):
        yield f"time by more than the skew of {SKEW:.0f} s"
    if not (out.outcome.get("complete") and end.outcome.get("complete")):
        return
    for name in _COMPARED:
        mine, theirs = out.outcome.get(name), end.outcome.get(name)
        if mine != theirs:
            yield f"{name}: {mine} and {theirs}"
    answered = chain.nodes.get((end.wid, end.node))
    came_back = out.outcome.get("peer_ect", ())
    if answered is not None and not any(_digest(node.ect.token) in came_back for node in _continued(answered)):
        yield f"the node that came back: the caller did not get {end.node}"


def _continued(node: Node) -> Iterator[Node]:
    """The node, and those that took its place in the same agent's work: it is soon too old to be sent."""
    seen, waiting = {node.ect.jti}, [node]
    while waiting:
        yield (one := waiting.pop())
        for child in one.children:
            if child.ect.jti not in seen and (child.agent, child.ect.issuer) == (node.agent, node.ect.issuer):
                seen.add(child.ect.jti)
                waiting.append(child)


def _digest(line: str) -> str:
    return base64url.encode(hashlib.sha256(line.encode()).digest())


def edge_json(edge: Edge) -> dict[str, Any]:
    """An edge for `--json`."""
    return asdict(edge)


def _read(paths: Iterable[Path]) -> _Logs:
    logs = _Logs()
    for path in paths:
        try:
            if is_ledger(path):
                with closing(SqliteReader(path)) as reader, closing(export_lines(reader)) as lines:
                    _take(logs, (record for _, record in read_records(lines)))
            else:
                with open_lines(path) as lines:
                    _take(logs, (record for _, record in read_records(lines)))
        except FormatError:
            continue  # what verifying the log itself reports
    return logs


def _take(logs: _Logs, records: Iterator[Record]) -> None:
    origin, count, missing, last = "", 0, 0, b""
    awaiting: dict[int, End] = {}
    for record in records:
        if isinstance(record, Header):
            origin, count = record.origin, record.count
            missing = count
            logs.origins.add(origin)
        elif isinstance(record, EntryLine):
            missing -= 1
            last = record.data
            if b'"delegation"' in record.data:
                _take_entry(logs, origin, awaiting, _parse(record.data))
    if origin and not missing:
        logs.whole[origin] = max(logs.whole.get(origin, (0, 0.0)), (count, _time(last)))


def _rests_on(evidence: Iterable[Mapping[str, Any]]) -> int | None:
    return max((int(one["log_size"]) for one in evidence if "log_size" in one), default=None)


def _time(last: bytes) -> float:
    found = _parse(last).get("timestamp") if last else 0
    return float(found) if isinstance(found, int | float) else 0.0


def _parse(data: bytes) -> dict[str, Any]:
    try:
        entry = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise FormatError(f"an entry is not JSON: {e}") from None
    if not isinstance(entry, dict):
        raise FormatError("an entry is not a JSON object")
    return entry


def _take_entry(logs: _Logs, origin: str, awaiting: dict[int, End], entry: dict[str, Any]) -> None:
    if entry.get("action_type") != "delegation":
        return
    try:
        if "outcome_of" in entry:
            end = awaiting.pop(entry["outcome_of"], None)
            if end is not None:
                end.outcome, end.ended = dict(entry["outcome"]), float(entry["timestamp"])
            return
        parameters = entry["action_parameters"]
        inbound = parameters.get("direction") == "inbound"
        if inbound or "callee" in parameters:
            logs.served[entry["agent_id"] if inbound else parameters["callee"]].add(origin)
        if entry["decision"] not in LET_OUT or not went_on(entry):
            return
        end = End(
            origin,
            entry.get("decision_of", entry["seq"]),
            entry["agent_id"],
            float(entry["timestamp"]),
            entry["wid"],
            entry["node"],
            tuple(parameters["parents"]) if inbound else (entry["node"],),
            parameters["peer"] if inbound else "",
            parameters["caller"] if inbound else "",
            tuple(str(one["jti"]) for one in parameters["evidence"]) if inbound else (),
            _rests_on(parameters["evidence"]) if inbound else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise FormatError(f"an entry of a delegation is malformed: {e!r}") from None
    awaiting[end.seq] = end
    if not inbound:
        logs.outgoing.append(end)
        return
    for node in end.nodes:
        logs.incoming[node].append(end)
