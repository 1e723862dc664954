"""Delegations that are refused where they come in: by name, what is sent, the reason, and words of what is said of it.

They are sent by a monitor of the trust domain, with a certificate and an evidence key that are good; `other` is one
whose tokens it has seen and whose key it does not have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from end_to_end.attackers import Attacker, Sent, part, unsigned, with_mac

from lictor.evidence.bet import TYP as BET
from lictor.evidence.claims import new_id
from lictor.evidence.ect import TYP as ECT
from lictor.formats import base64url
from lictor.formats.canonical import canonical
from lictor.formats.keys import KeySigner

Make = Callable[[Attacker, Attacker], Sent]
ELSEWHERE = "spiffe://test.internal/agent/elsewhere"
NOT_KNOWN = "is known that the identity CA vouches for"


def node(**changes: Any) -> Make:
    """A node with these claims, and good evidence for it."""
    return lambda m, other: m.tokens(m.node(**changes))


def header(typ: str = ECT, **more: Any) -> Make:
    """A node with such a header."""
    return text(lambda m, claims: m.sign(claims, typ, **more))


def evidence(typ: str = BET, **changes: Any) -> Make:
    """A good node, and a BET with these claims."""

    def make(m: Attacker, other: Attacker) -> Sent:
        claims = m.node()
        return [m.sign(claims, ECT)], [m.sign(m.bet(claims, **changes), typ)]

    return make


def text(write: Callable[[Attacker, dict[str, Any]], str]) -> Make:
    """A node written in some way, and good evidence for it."""

    def make(m: Attacker, other: Attacker) -> Sent:
        claims = m.node()
        return [write(m, claims)], m.tokens(claims)[1]

    return make


def mixed(nodes: Callable[[Sent, Sent], list[str]], bets: Callable[[Sent, Sent], list[str]]) -> Make:
    """Of what it could send itself, and what another has sent."""

    def make(m: Attacker, other: Attacker) -> Sent:
        own, others = m.tokens(m.node()), other.tokens(other.node())
        return nodes(own, others), bets(own, others)

    return make


def two(first: Mapping[str, Any], second: Mapping[str, Any]) -> Make:
    """Two nodes, each with evidence."""

    def make(m: Attacker, other: Attacker) -> Sent:
        sent = [m.tokens(m.node(**changes)) for changes in (first, second)]
        return [one for nodes, _ in sent for one in nodes], [one for _, bets in sent for one in bets]

    return make


def after(*parents: str) -> dict[str, list[str]]:
    return {"par": [*parents], "pred": [*parents]}


def extension(**members: Any) -> Make:
    return node(ext=members, ect_ext=members)


def issued(at: float, lasts: float = 600) -> Make:
    """A node of `at` seconds from now. What it is depends on when it is made, so it is made when it is sent."""
    return lambda m, other: node(iat=later(at), exp=later(at + lasts))(m, other)


def reported(at: float, lasts: float = 600, end: float = -1) -> Make:
    """The same of a BET, whose window ends `end` seconds from now."""

    def make(m: Attacker, other: Attacker) -> Sent:
        window = {"start": later(end - 60), "end": later(end)}
        return evidence(iat=later(at), exp=later(at + lasts), bhv_window=window)(m, other)

    return make


def later(seconds: float) -> int:
    return int(time.time() + seconds)


def younger_parent(m: Attacker, other: Attacker) -> Sent:
    wid, root = new_id(), new_id()
    return two({"jti": root, "wid": wid}, {"wid": wid, **after(root), "iat": later(-60)})(m, other)


def spliced(m: Attacker, claims: dict[str, Any]) -> str:
    """Other claims between a header and a signature that are good."""
    head, _, signature = m.sign(m.node(), ECT).split(".")
    return f"{head}.{part(claims)}.{signature}"


def twice(m: Attacker, claims: dict[str, Any]) -> str:
    """A claim twice, rightly signed."""
    payload = json.dumps(claims).replace('{"iss"', f'{{"wid":"{new_id()}","iss"', 1)
    head = {"typ": ECT, "alg": m.signer.alg, "kid": m.signer.kid}
    signed = f"{base64url.encode(canonical(head))}.{base64url.encode(payload.encode())}"
    return f"{signed}.{base64url.encode(m.signer.sign(signed.encode()))}"


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = {"a": found}
    return found


LOST, WID = new_id(), new_id()
ONE, OTHER = new_id(), new_id()

REFUSED: dict[str, tuple[Make, str, str]] = {
    # Who says it, and who signed it.
    "no node": (mixed(lambda own, others: [], lambda own, others: own[1]), "ect_missing", "issued by the peer"),
    "no evidence": (mixed(lambda own, others: own[0], lambda own, others: []), "bet_missing", "no Behavioral-Evidence"),
    "all that another sent": (
        mixed(lambda own, others: others[0], lambda own, others: others[1]),
        "ect_missing",
        "issued by the peer",
    ),
    "a node that one does not own": (node(iss="spiffe://test.internal/monitor/other"), "ect_missing", "by the peer"),
    "a node signed by another": (
        lambda m, other: text(lambda m, claims: other.sign(claims, ECT))(m, other),
        "ect_invalid",
        NOT_KNOWN,
    ),
    "a node signed with a key that is nobody's": (
        text(lambda m, claims: m.sign(claims, ECT, KeySigner.of(ed25519.Ed25519PrivateKey.generate()))),
        "ect_invalid",
        NOT_KNOWN,
    ),
    "a node that brings its key": (
        text(lambda m, claims: _with_key_of_its_own(m, claims)),
        "ect_invalid",
        NOT_KNOWN,
    ),
    "evidence of another": (
        mixed(lambda own, others: own[0], lambda own, others: others[1]),
        "bet_invalid",
        "expected the peer of the connection",
    ),
    "evidence handed on by the agent": (
        mixed(lambda own, others: own[0] + others[0], lambda own, others: own[1] + others[1]),
        "bet_invalid",
        "expected the peer of the connection",
    ),
    # A downgraded level.
    "claims that nobody signed": (text(lambda m, claims: part(claims)), "ect_invalid", "not three base64url parts"),
    "alg none": (text(lambda m, claims: unsigned(claims, ECT)), "ect_invalid", "not three base64url parts"),
    "alg none with a signature": (
        text(lambda m, claims: unsigned(claims, ECT) + "AAAA"),
        "ect_invalid",
        "alg is 'none', expected EdDSA",
    ),
    "alg HS256 under the public key": (
        text(lambda m, claims: with_mac(claims, ECT, m.signer, m.files.evidence_cert.read_bytes())),
        "ect_invalid",
        "alg is 'HS256', expected EdDSA",
    ),
    "alg ES256 under a key of Ed25519": (
        text(lambda m, claims: with_alg(m, claims, "ES256")),
        "ect_invalid",
        "does not belong to its key",
    ),
    "a signature cut off": (text(lambda m, claims: m.sign(claims, ECT)[:-5]), "ect_invalid", "not base64url"),
    "claims of another token": (text(spliced), "ect_invalid", "the signature is wrong"),
    # One kind of token for another.
    "a BET for a node": (
        mixed(lambda own, others: own[1], lambda own, others: own[1]),
        "ect_invalid",
        "typ is 'bet+jwt'",
    ),
    "a node for a BET": (
        mixed(lambda own, others: own[0], lambda own, others: own[0]),
        "bet_invalid",
        "typ is 'exec+jwt'",
    ),
    "a BET with the typ of a node": (
        lambda m, other: text(lambda m, claims: m.sign(m.bet(claims), ECT))(m, other),
        "ect_invalid",
        "that is a BET, not an ECT",
    ),
    "a node with the typ of a BET": (
        evidence(exec_act="agent_execution"),
        "bet_invalid",
        "expected 'behavioral_verification'",
    ),
    "any other JWT": (header("JWT"), "ect_invalid", "typ is 'JWT'"),
    "crit": (header(crit=["tenant"], tenant=1), "ect_invalid", "'crit', which is not understood"),
    "crit of the BET": (
        lambda m, other: (lambda c: ([m.sign(c, ECT)], [m.sign(m.bet(c), BET, crit=["x"], x=1)]))(m.node()),
        "bet_invalid",
        "'crit', which is not understood",
    ),
    # Limits.
    "an extension of 4097 bytes": (extension(a="x" * (4097 - len('{"a":""}'))), "ect_invalid", "has 4097 bytes, more"),
    "an extension of depth 6": (extension(a=nested(5)), "ect_invalid", "nests 6 levels deep, more than 5"),
    "bindings that cannot be read": (extension(within=[["digest"]]), "ect_invalid", "'within' is no list"),
    "101 predecessors": (node(**after(*(new_id() for _ in range(101)))), "ect_invalid", "101 members, more than 100"),
    "17 nodes": (
        mixed(lambda own, others: own[0] * 17, lambda own, others: own[1]),
        "ect_invalid",
        "17 Execution-Context lines",
    ),
    "17 BETs": (
        mixed(lambda own, others: own[0], lambda own, others: own[1] * 17),
        "bet_invalid",
        "17 Behavioral-Evidence lines",
    ),
    # Whom it is for, and when.
    "aud of another": (node(aud=[ELSEWHERE]), "ect_invalid", "the token is not for us"),
    "evidence for another": (evidence(aud=[ELSEWHERE]), "bet_invalid", "the token is not for us"),
    "33 s from the future": (issued(33), "ect_invalid", "from the future"),
    "evidence 33 s from the future": (reported(33), "bet_invalid", "from the future"),
    "expired": (issued(-60, 59), "ect_invalid", "the token expired"),
    "evidence that expired": (reported(-60, 59, -61), "bet_invalid", "the token expired"),
    "older than 900 s": (issued(-902, 3600), "ect_invalid", "more than 900"),
    "over before it began": (issued(0, -1), "ect_invalid", "expected later than 'iat'"),
    "a window that is not over yet": (reported(0, 600, 60), "bet_invalid", "after the token was issued"),
    # Claims that say two things, or nothing.
    "par unlike pred": (node(par=[LOST]), "ect_invalid", "'pred' and 'par' differ"),
    "ext unlike ect_ext": (node(ext={"depth": 1}), "ect_invalid", "'depth' of 'ext' and 'ect_ext' differs"),
    "a claim twice": (text(twice), "ect_invalid", "'wid' stands twice"),
    "no predecessors": (node(par=None, pred=None), "ect_invalid", "'pred' (or 'par') is missing"),
    "no exec_act": (node(exec_act=None), "ect_invalid", "'exec_act' is missing"),
    "jti that is no UUID": (
        text(lambda m, claims: m.sign({**claims, "jti": "1"}, ECT)),
        "ect_invalid",
        "expected a UUID",
    ),
    "wid that is no UUID": (text(lambda m, claims: m.sign({**claims, "wid": "1"}, ECT)), "ect_invalid", "a UUID"),
    # Evidence that is not of this node.
    "evidence of another node": (
        lambda m, other: (m.tokens(m.node())[0], m.tokens(m.node())[1]),
        "bet_invalid",
        "which did not come along",
    ),
    "evidence about another agent": (evidence(sub=ELSEWHERE), "bet_invalid", f"is about {ELSEWHERE}"),
    "evidence of another workflow": (evidence(wid=WID), "bet_invalid", "is of the workflow"),
    "a pass over a failure": (
        evidence(bhv_details=[{"behavior_id": "x", "result": "fail"}]),
        "bet_invalid",
        "'pass' although x",
    ),
    # The DAG, as far as it comes along.
    "nodes of two workflows": (two({}, {}), "ect_invalid", "name different workflows"),
    "one node twice": (
        mixed(lambda own, others: own[0] * 2, lambda own, others: own[1]),
        "ect_invalid",
        "name one node twice",
    ),
    "a node that is its own predecessor": (node(jti=ONE, **after(ONE)), "ect_invalid", "is its own predecessor"),
    "a cycle": (
        two({"jti": ONE, "wid": WID, **after(OTHER)}, {"jti": OTHER, "wid": WID, **after(ONE)}),
        "ect_invalid",
        "is its own ancestor",
    ),
    "a predecessor that is younger": (younger_parent, "ect_invalid", "older than its predecessor"),
}


def with_alg(m: Attacker, claims: Mapping[str, Any], alg: str) -> str:
    signed = f"{part({'alg': alg, 'typ': ECT, 'kid': m.signer.kid})}.{part(claims)}"
    return f"{signed}.{base64url.encode(m.signer.sign(signed.encode()))}"


def _with_key_of_its_own(m: Attacker, claims: Mapping[str, Any]) -> str:
    key = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(key.public_key().public_bytes_raw())}
    return m.sign(claims, ECT, key, jwk=jwk, jku="https://localhost/keys")
