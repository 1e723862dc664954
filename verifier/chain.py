"""A delegation chain from the evidence files of all monitors that took part: its nodes, their BETs, what does not hold.

Rules (specifications.md section 1.8): a node's id is its own within its workflow; predecessors exist, belong to the
same workflow and are not younger than their successors beyond the skew; nothing is its own ancestor; a node has at most
10,000 ancestors, and one that has more is refused. A predecessor of another issuer must have been addressed to the
successor: else anyone could hang its work under a node that it merely saw. A BET is a child of a node of its agent.

What is bad is a lie; what is missing is only not there: a predecessor in none of the files, a key in none of them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..certs.evidence_keys import EvidenceKeys
from ..evidence import bet, ect
from ..evidence.ancestry import not_addressed, too_young
from ..evidence.bet import Bet
from ..evidence.claims import SKEW, KeyResolver
from ..evidence.ect import MAX_ANCESTORS, Ect
from ..evidence.export import Document, TokenLine
from ..formats import jws
from ..formats.errors import FormatError, VerificationError
from ..formats.jws import PublicKey
from .bets import before_entries, bet_json, parse_bet

Key = tuple[str, str]
"""(wid, jti) of a node; wid is empty where the issuer names no workflow."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold: bad (a lie) or missing (not in the files), and the id of the token it is about."""

    kind: Literal["bad", "missing"]
    what: str
    jti: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(slots=True)
class Node:
    """A node with its place in the DAG: predecessors and successors that are in the files, BETs about it."""

    ect: Ect
    parents: list[Node] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    bets: list[Bet] = field(default_factory=list)

    @property
    def agent(self) -> str:
        return self.ect.subject or self.ect.issuer


@dataclass(slots=True)
class Chain:
    """Everything that the files say about delegation. `nodes` by (wid, jti)."""

    nodes: dict[Key, Node] = field(default_factory=dict)
    bets: dict[str, Bet] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def verdict(self) -> Literal["intact", "gap", "bad"]:
        kinds = {problem.kind for problem in self.problems}
        return "bad" if "bad" in kinds else "gap" if kinds else "intact"

    def workflows(self) -> dict[str, list[Node]]:
        """The nodes of each workflow, oldest first."""
        found: defaultdict[str, list[Node]] = defaultdict(list)
        for (wid, _), node in sorted(self.nodes.items(), key=lambda item: item[1].ect.iat):
            found[wid].append(node)
        return dict(found)

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "nodes": len(self.nodes),
            "bets": len(self.bets),
            "workflows": [
                {"wid": wid, "nodes": [node_json(node) for node in nodes]} for wid, nodes in self.workflows().items()
            ],
            "problems": [{"kind": p.kind, "what": p.what, "jti": p.jti} for p in self.problems],
        }


def node_json(node: Node) -> dict[str, Any]:
    """A node for `--json`."""
    return {
        "jti": node.ect.jti,
        "agent": node.agent,
        "issuer": node.ect.issuer,
        "exec_act": node.ect.exec_act,
        "iat": node.ect.iat,
        "parents": list(node.ect.parents),
        "children": [child.ect.jti for child in node.children],
        "bets": [bet_json(one) for one in node.bets],
    }


def read_chain(paths: Iterable[Path]) -> Chain:
    """The chain as the files tell it, no signature verified. Raises UsageError for a file that cannot be read."""
    return _build(paths, None)


def verify_chain(paths: Iterable[Path], ca_pem: bytes, jwks: Iterable[Mapping[str, Any]] = ()) -> Chain:
    """The chain with every signature and rule verified; keys travel in the files, or are `jwks`, and lead to a CA.

    Raises UsageError for a file that cannot be read, VerificationError for a CA that is none.
    """
    keys = EvidenceKeys(ca_pem)
    for jwk in jwks:
        keys.add_jwk(jwk)
    return _build(paths, keys)


def _build(paths: Iterable[Path], keys: EvidenceKeys | None) -> Chain:
    chain = Chain()
    nodes, bets = _collect(paths, keys, chain)
    resolve = _resolver(keys) if keys is not None else None
    _add_nodes(chain, nodes, resolve)
    _add_bets(chain, bets, resolve)
    _link(chain)
    _check_order(chain)
    return chain


def _collect(paths: Iterable[Path], keys: EvidenceKeys | None, chain: Chain) -> tuple[list[str], list[str]]:
    """The tokens of all files, each once; their keys go into `keys`."""
    tokens: dict[str, dict[str, None]] = {"ect": {}, "bet": {}}
    for path in paths:
        try:
            for record in before_entries(path):
                if isinstance(record, TokenLine):
                    tokens[record.kind][record.token] = None
                elif keys is not None and isinstance(record, Document) and record.kind == "key":
                    keys.add_jwk(record.value)
        except (FormatError, VerificationError) as e:
            chain.problems.append(Problem("bad", f"{path}: {e}"))
    return list(tokens["ect"]), list(tokens["bet"])


class _NoKey(VerificationError):
    """The key is in none of the files."""


def _resolver(keys: EvidenceKeys) -> KeyResolver:
    """`keys.resolve`, telling a key that is not there from one that must not be relied on."""
    known = {jwk["kid"] for jwk in keys.jwks()}

    def resolve(kid: str, iss: str, at: float | None = None) -> PublicKey:
        if kid not in known:
            raise _NoKey(f"the key {kid} of {iss} is in none of the files")
        return keys.resolve(kid, iss, at)

    return resolve


def _read_node(token: str, resolve: KeyResolver | None) -> Ect:
    if resolve is not None:
        return ect.verify(token, resolve)
    return ect.parse(jws.parse_compact(token, typ=ect.ACCEPTED_TYP).claims(), token)


def _read_bet(token: str, resolve: KeyResolver | None) -> Bet:
    return bet.verify(token, resolve) if resolve is not None else parse_bet(token)


def _add_nodes(chain: Chain, tokens: Iterable[str], resolve: KeyResolver | None) -> None:
    for token in tokens:
        try:
            node = _read_node(token, resolve)
        except (VerificationError, FormatError) as e:
            chain.problems.append(_unreadable("node", token, e))
            continue
        key = (node.wid or "", node.jti)
        if key in chain.nodes:
            chain.problems.append(Problem("bad", f"two different nodes have the id {node.jti}", node.jti))
        else:
            chain.nodes[key] = Node(node)


def _add_bets(chain: Chain, tokens: Iterable[str], resolve: KeyResolver | None) -> None:
    for token in tokens:
        try:
            one = _read_bet(token, resolve)
        except (VerificationError, FormatError) as e:
            chain.problems.append(_unreadable("BET", token, e))
            continue
        if one.jti in chain.bets:
            chain.problems.append(Problem("bad", f"two different BETs have the id {one.jti}", one.jti))
        else:
            chain.bets[one.jti] = one


def _unreadable(kind: str, token: str, e: Exception) -> Problem:
    try:
        jti = str(jws.parse_compact(token, typ=ect.ACCEPTED_TYP | {bet.TYP}).claims().get("jti", ""))
    except (VerificationError, FormatError):
        jti = ""
    return Problem("missing" if isinstance(e, _NoKey) else "bad", f"{kind} {jti or token[:24] + '…'}: {e}", jti)


def _link(chain: Chain) -> None:
    """Predecessors and BETs to their nodes."""
    by_jti: defaultdict[str, list[Node]] = defaultdict(list)
    for node in chain.nodes.values():
        by_jti[node.ect.jti].append(node)
    for node in chain.nodes.values():
        for jti in node.ect.parents:
            parent = _same_workflow(by_jti.get(jti, []), node.ect.wid)
            if parent is not None:
                node.parents.append(parent)
                parent.children.append(node)
                chain.problems += _edge_problems(parent.ect, node)
            else:
                chain.problems.append(_absent("predecessor", jti, f"node {node.ect.jti}", node.ect.jti, by_jti))
    for one in chain.bets.values():
        for jti in one.parents:
            owner = _same_workflow(by_jti.get(jti, []), one.wid)
            if owner is not None:
                owner.bets.append(one)
                chain.problems += _bet_problems(owner, one)
            else:
                chain.problems.append(_absent("node", jti, f"BET {one.jti}", one.jti, by_jti))


def _same_workflow(found: list[Node], wid: str | None) -> Node | None:
    """The one of `wid`; a node that names no workflow fits any."""
    return next((node for node in found if node.ect.wid is None or node.ect.wid == wid), None)


def _absent(role: str, jti: str, of: str, about: str, by_jti: dict[str, list[Node]]) -> Problem:
    if jti in by_jti:
        other = by_jti[jti][0].ect.wid
        return Problem("bad", f"the {role} {jti} of {of} is of another workflow ({other})", about)
    return Problem("missing", f"the {role} {jti} of {of} is in none of the files", about)


def _edge_problems(parent: Ect, node: Node) -> Iterator[Problem]:
    child = node.ect
    if what := too_young(parent.jti, parent.iat, child.jti, child.iat):
        yield Problem("bad", what, child.jti)
    what = not_addressed(parent.audience, child.jti, child.issuer, node.agent)
    if what and parent.issuer != child.issuer:
        yield Problem("bad", what, child.jti)


def _bet_problems(owner: Node, one: Bet) -> Iterator[Problem]:
    if one.subject != owner.agent:
        yield Problem("bad", f"BET {one.jti} is about {one.subject}, its node about {owner.agent}", one.jti)
    if owner.ect.iat > one.iat + SKEW:
        yield Problem("bad", f"BET {one.jti} is older than its node {owner.ect.jti}", one.jti)


def _check_order(chain: Chain) -> None:
    """Acyclic, by taking away what has no predecessor left; then no node with too many ancestors."""
    waiting = {key: len(node.parents) for key, node in chain.nodes.items()}
    ready = deque(key for key, count in waiting.items() if count == 0)
    while ready:
        for child in chain.nodes[ready.popleft()].children:
            key = (child.ect.wid or "", child.ect.jti)
            waiting[key] -= 1
            if waiting[key] == 0:
                ready.append(key)
    for (_, jti), count in waiting.items():
        if count > 0:
            chain.problems.append(Problem("bad", f"node {jti} is its own ancestor, or comes after one that is", jti))
    if len(chain.nodes) <= MAX_ANCESTORS:
        return
    for node in chain.nodes.values():
        if not node.children and _ancestors_exceed(node):
            what = f"node {node.ect.jti} has more than {MAX_ANCESTORS} ancestors"
            chain.problems.append(Problem("bad", what, node.ect.jti))


def _ancestors_exceed(node: Node) -> bool:
    seen: set[int] = set()
    queue = [node]
    while queue:
        for parent in queue.pop().parents:
            if id(parent) not in seen:
                seen.add(id(parent))
                queue.append(parent)
        if len(seen) > MAX_ANCESTORS:
            return True
    return False
