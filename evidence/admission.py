"""Whether a delegation that comes in may be taken up: its ECTs and BETs are verified before anything is minted.

The lines that the mTLS peer issued, and under which a BET hangs, are the parents; there must be one. Other lines (an
agent may have handed on what it got: lines of other issuers, and nodes of the peer that brought earlier work) are
counted, not relied on and not verified. Every BET must be the peer's, about the parent's agent, under the parent's
node, for us, and in time; there must be one. A checkpoint that came along must be of the log that they rest on.

`examine` runs where agent traffic is parsed and holds no key. What needs one memory for all workers
(replay, the nodes that are known) is with the recorder (`arrivals`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ..formats import jws
from ..formats.canonical import digest
from ..formats.errors import FormatError, LictorError, VerificationError
from . import bet, ect, witnessed
from .bet import Bet
from .claims import SKEW, KeyResolver, predecessors
from .ect import Ect
from .entry import InboundDraft
from .lineage import MAX_WITHIN, exceeds_within, split_lines
from .store import NodeRow

MAX_LINES = 16
"""Of each header, of those that are relied on."""
MAX_ALONG = 64
"""`Execution-Context` lines with those that are only counted: an agent that hands on all adds to them every time."""
MAX_REMEMBERED = 1_000_000
_DIGEST = re.compile("[A-Za-z0-9_-]{43}")
_MAX_SCORE = 2**53
_PROFILE = re.compile("[!-~]{1,256}")


class _Refused(LictorError):
    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def examine(
    *,
    agent_id: str,
    peer_id: str,
    action_target: str,
    action_parameters: Mapping[str, Any],
    execution_context: Sequence[str],
    behavioral_evidence: Sequence[str],
    traceparent: str | None,
    resolve: KeyResolver,
    accepted: Iterable[str],
    now: float,
    checkpoint: Sequence[str] = (),
) -> InboundDraft:
    """Verify what came along with a delegation to `agent_id`; the draft says allow, or deny and why. Never raises.

    `accepted` are the ids of which one must be in every `aud` (the agent's and its monitor's). Reasons of a denial:
    `ect_missing`, `ect_invalid`, `bet_missing`, `bet_invalid`, `checkpoint_invalid`; `arrivals` adds `ect_replayed`.
    """
    audience = frozenset(accepted)
    nodes, bets = split_lines(execution_context), split_lines(behavioral_evidence)
    try:
        parents, foreign = _parents(nodes, bets, peer_id, resolve, audience, now)
        within = _within(parents)
        evidence = _evidence(bets, parents, peer_id, resolve, audience, now)
        note = _witnessed(split_lines(checkpoint), evidence, peer_id, resolve)
    except _Refused as e:
        return InboundDraft(agent_id, peer_id, action_target, action_parameters, "deny", e.reason, str(e))
    return InboundDraft(
        agent_id,
        peer_id,
        action_target,
        {**action_parameters, "foreign_lines": foreign} if foreign else action_parameters,
        "allow",
        "allowed",
        wid=parents[0].wid,
        parents=[_row(node) for node in parents],
        evidence=[
            {
                "jti": one.jti,
                "policy": one.policy,
                "result": one.result,
                "until": min(one.end, one.iat),
                "digest": digest(one.token),
                "level": _level(one),
                **({"log_size": one.ext["checkpoint_size"]} if _level(one) == 3 else {}),
            }
            for one in evidence
        ],
        traceparent=traceparent,
        depth=_depth(parents),
        scores=_scores(parents),
        within=within,
        checkpoint=note,
    )


def _level(one: Bet) -> int:
    """The assurance level of what was shown: 3 if it names the log of its issuer and the tree that it rests on."""
    said = [one.ext.get(name) for name in ("first_seq", "count", "checkpoint_size")]
    in_log = one.ext.get("log_origin") == one.issuer.removeprefix("spiffe://")
    root = one.ext.get("checkpoint_root")
    rooted = isinstance(root, str) and _DIGEST.fullmatch(root) is not None
    return 3 if in_log and rooted and all(type(number) is int for number in said) else 2


def _depth(parents: Sequence[Ect]) -> int | None:
    """How often the work was handed on, this time included, as the peer states it; None if it does not."""
    stated = [node.ext.get("depth") for node in parents]
    depths = [depth for depth in stated if type(depth) is int and 0 <= depth < ect.MAX_ANCESTORS]
    return max(depths) + 1 if len(depths) == len(stated) else None


def _within(parents: Sequence[Ect]) -> list[list[str]]:
    """The groups of bindings that all parents name. What cannot be read cannot be kept to, so it is refused."""
    found: list[list[str]] = []
    for group in (group for node in parents for group in _groups(node.ext.get("within", []))):
        if group not in found:
            found.append(group)
    if exceeds_within(found):
        what = f"the work is within {sum(map(len, found))} bindings, more than {MAX_WITHIN}"
        raise _Refused("ect_invalid", f"Execution-Context: {what}")
    return found


def _groups(value: object) -> list[list[str]]:
    good = isinstance(value, list) and len(value) <= MAX_WITHIN and all(isinstance(group, list) for group in value)
    digests = [one for group in value for one in group] if good and isinstance(value, list) else [None]
    if len(digests) > MAX_WITHIN or not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in digests):
        raise _Refused(
            "ect_invalid", f"Execution-Context: 'within' is no list of at most {MAX_WITHIN} lists of digests"
        )
    return value if isinstance(value, list) else []


def _scores(parents: Sequence[Ect]) -> dict[str, float]:
    """The lowest `perf_score` of the profile that all parents state (draft, "Performance Claims in ECT")."""
    profile, *others = [node.ext.get("perf_profile") for node in parents]
    scores = [node.ext.get("perf_score") for node in parents]
    good = [float(s) for s in scores if isinstance(s, int | float) and not isinstance(s, bool) and abs(s) < _MAX_SCORE]
    if not isinstance(profile, str) or not _PROFILE.fullmatch(profile) or len(good) < len(parents):
        return {}
    return {profile: min(good)} if all(other == profile for other in others) else {}


def _row(node: Ect) -> dict[str, Any]:
    return {
        "jti": node.jti,
        "wid": node.wid or "",
        "agent_id": node.subject or node.issuer,
        "issuer": node.issuer,
        "iat": node.iat,
        "parents": node.parents,
        "token": node.token,
    }


def _parents(
    lines: Sequence[str],
    bets: Sequence[str],
    peer_id: str,
    resolve: KeyResolver,
    audience: frozenset[str],
    now: float,
) -> tuple[list[Ect], int]:
    """The peer's nodes for which there is evidence, and the number of other lines."""
    if len(lines) > MAX_ALONG:
        raise _Refused("ect_invalid", f"{len(lines)} Execution-Context lines came along, more than {MAX_ALONG}")
    try:
        of_peer = _of_peer(lines, bets, peer_id)
        if len(of_peer) > MAX_LINES:
            raise VerificationError(
                f"{len(of_peer)} Execution-Context lines of the peer came along, more than {MAX_LINES}"
            )
        nodes = [ect.verify(line, resolve, now=now, audience=audience, peer=peer_id) for line in of_peer]
    except (VerificationError, FormatError) as e:
        raise _Refused("ect_invalid", f"Execution-Context: {e}") from None
    if not nodes:
        raise _Refused("ect_missing", f"no Execution-Context line was issued by the peer {peer_id}")
    if len({node.wid for node in nodes}) > 1:
        raise _Refused("ect_invalid", "Execution-Context: the peer's lines name different workflows")
    if len({node.jti for node in nodes}) < len(nodes):
        raise _Refused("ect_invalid", "Execution-Context: the peer's lines name one node twice")
    _check_order(nodes)
    return nodes, len(lines) - len(nodes)


def _check_order(nodes: Sequence[Ect]) -> None:
    """Among the nodes that came along none is its own ancestor, and none is older than its predecessor."""
    known = {node.jti: node for node in nodes}
    for node in nodes:
        for parent in (known[jti] for jti in node.parents if jti in known):
            if parent.iat > node.iat + SKEW:
                what = f"the node {node.jti} is {parent.iat - node.iat} s older than its predecessor {parent.jti}"
                raise _Refused("ect_invalid", f"Execution-Context: {what}")
    try:
        TopologicalSorter({node.jti: node.parents for node in nodes}).prepare()
    except CycleError as e:
        raise _Refused("ect_invalid", f"Execution-Context: the node {e.args[1][0]} is its own ancestor") from None


def _of_peer(lines: Sequence[str], bets: Sequence[str], peer_id: str) -> list[str]:
    """The lines that say they are the peer's, under which a BET says it hangs; if there is none, all of the peer's."""
    claimed = [(line, jws.parse_compact(line, typ=ect.ACCEPTED_TYP).claims()) for line in lines]
    of_peer = [(line, str(claims.get("jti"))) for line, claims in claimed if claims.get("iss") == peer_id]
    named = {jti for token in bets for jti in _named_by(token)}
    return [line for line, jti in of_peer if jti in named] or [line for line, _ in of_peer]


def _named_by(token: str) -> tuple[str, ...]:
    try:
        return predecessors(jws.parse_compact(token, typ=frozenset({bet.TYP})).claims())
    except (VerificationError, FormatError):
        return ()  # what verifying the BET itself reports


def _evidence(
    lines: Sequence[str],
    parents: list[Ect],
    peer_id: str,
    resolve: KeyResolver,
    audience: frozenset[str],
    now: float,
) -> list[Bet]:
    if not lines:
        raise _Refused("bet_missing", "no Behavioral-Evidence line came along")
    if len(lines) > MAX_LINES:
        raise _Refused("bet_invalid", f"{len(lines)} Behavioral-Evidence lines came along, more than {MAX_LINES}")
    found = []
    try:
        for line in lines:
            one = bet.verify(line, resolve, now=now, audience=audience, peer=peer_id)
            check_under(one, parents)
            found.append(one)
    except (VerificationError, FormatError) as e:
        raise _Refused("bet_invalid", f"Behavioral-Evidence: {e}") from None
    return found


def _witnessed(lines: Sequence[str], evidence: Sequence[Bet], peer_id: str, resolve: KeyResolver) -> str:
    """The checkpoint that came along with the evidence; at most one, and like the evidence it must be the peer's."""
    if not lines:
        return ""
    if len(lines) > 1:
        what = f"{len(lines)} {witnessed.HEADER} lines came along, expected one at most"
        raise _Refused("checkpoint_invalid", what)
    try:
        return witnessed.verify_line(lines[0], evidence, peer_id, resolve)
    except (VerificationError, FormatError) as e:
        raise _Refused("checkpoint_invalid", f"{witnessed.HEADER}: {e}") from None


def check_under(one: Bet, nodes: Iterable[Ect]) -> None:
    """Raises VerificationError unless the BET is a child of one of `nodes`: same workflow, about the same agent."""
    for node in nodes:
        if node.jti not in one.parents:
            continue
        if node.wid is not None and one.wid != node.wid:
            raise VerificationError(f"the BET {one.jti} is of the workflow {one.wid}, its node of {node.wid}")
        if one.subject != (node.subject or node.issuer):
            raise VerificationError(f"the BET {one.jti} is about {one.subject}, its node about {node.subject}")
        return
    raise VerificationError(f"the BET {one.jti} belongs to the node {', '.join(one.parents)}, which did not come along")


class ReplayMemory:
    """Every (wid, jti) that was taken, for as long as its token could still be accepted."""

    def __init__(self, stored: Iterable[NodeRow], now: float) -> None:
        """Take up what was `stored` (as received) and could still be accepted."""
        self._seen: set[tuple[str, str]] = set()
        self._order: deque[tuple[float, tuple[str, str]]] = deque()
        for row in stored:
            if row.origin == "received" and row.iat > now - ect.MAX_AGE - SKEW:
                self._keep((row.wid, row.jti), now)

    def take(self, keys: Sequence[tuple[str, str]], now: float) -> str | None:
        """Remember all of `keys` as taken, or say why not."""
        while self._order and self._order[0][0] < now:
            self._seen.discard(self._order.popleft()[1])
        for key in keys:
            if key in self._seen:
                return f"the node {key[1]} was taken before"
        if len(self._seen) + len(keys) > MAX_REMEMBERED:
            return f"{MAX_REMEMBERED} nodes were taken lately; one more could not be told from a replay"
        for key in keys:
            self._keep(key, now)
        return None

    def _keep(self, key: tuple[str, str], now: float) -> None:
        """A token taken now is from the future by at most the skew, so it is too old after that much more."""
        self._seen.add(key)
        self._order.append((now + ect.MAX_AGE + 2 * SKEW, key))
