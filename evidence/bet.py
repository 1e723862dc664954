"""Behavioral Evidence Tokens: the monitor's signed word on one window of one agent under one policy.

`typ` is `bet+jwt`. The claims of the draft (`bhv_*`) stand at top level; `ext` holds what the draft does not have: the
log's origin, where the window lies in it, the tree it rests on, the BET before it, and why it was issued. A BET is a
child of the agent's ECT node (`par` and `pred`) and can never pass for one: its `typ` and `exec_act` are its own.

The result of a window (`aggregate`), which the draft leaves open:

- fail: a behavior of severity critical was violated, or every behavior that was evaluated was;
- partial: some were violated;
- pass: none was.

An action that no behavior judged (default deny, or the monitor itself refused it) counts as one more behavior that was
evaluated and violated, so its window is never a pass. A window in which nothing needed judgement under the policy (no
entry at all, outcomes only, or actions that other policies observe) is a pass: there is nothing that it vouches for
wrongly, and each of its behaviors says `not-run` (the word of RFC 9711), so that a Verifier that wants them exercised
can tell. `prevented` counts the violations that were denied before anything left; they count as violations. So do those
that were held (`held`), whether a person let them out in the end (`approved`) or not (`prevented`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..formats import jws
from ..formats.canonical import canonical, digest
from ..formats.errors import VerificationError
from ..formats.jws import Signer
from . import claims as read
from .claims import KeyResolver
from .ect import BEHAVIORAL_VERIFICATION, check_digest

HEADER = "Behavioral-Evidence"
TYP = "bet+jwt"
LIFETIME = 3600
"""Seconds from `iat` to `exp`, as in the draft's example."""
EMPTY_EVIDENCE = "T1PNoYwrqgwDVLtfmj7L5e0Sq02OEbqHPC8RFhICuUU"
"""`bhv_evidence` of a window without entries: SHA-256 over `[]`."""
MAX_DETAILS = 32
"""How many behaviors `bhv_details` names, those violated first; `ext.details_omitted` counts the others."""
MAX_QUOTED = 1024
RESULTS = ("pass", "fail", "partial")
TRIGGERS = ("interval", "violation", "delegation", "response", "reload", "shutdown", "demand")
_CLAIMS = ("bhv_policy", "bhv_result", "bhv_evidence", "bhv_window", "bhv_details")


@dataclass(slots=True)
class Tally:
    """What one behavior said in one window; `held` counts violations, and `approved` what a person then let out.

    A decision may fall into a later window than the violation that it is about: it is counted where it stands.
    """

    evaluated: int = 0
    violations: int = 0
    prevented: int = 0
    held: int = 0
    approved: int = 0


@dataclass(frozen=True, slots=True)
class Bet:
    """A BET as read: `start` <= t < `end` are NumericDates, `parents` the jti of the agent's node, `ext` as it came."""

    issuer: str
    subject: str
    audience: tuple[str, ...]
    jti: str
    iat: int
    exp: int
    wid: str
    parents: tuple[str, ...]
    policy: str
    result: str
    evidence: str
    start: float
    end: float
    details: tuple[Mapping[str, Any], ...]
    ext: Mapping[str, Any]
    token: str


def aggregate(tallies: Mapping[str, Tally], severities: Mapping[str, str], unjudged: int) -> str:
    """The result of a window; see the module. `unjudged` counts the actions that no behavior judged."""
    evaluated = [name for name, tally in tallies.items() if tally.evaluated]
    violated = [name for name in evaluated if tallies[name].violations]
    if any(severities.get(name) == "critical" for name in violated):
        return "fail"
    failed = len(violated) + (unjudged > 0)
    if failed == 0:
        return "pass"
    return "fail" if failed == len(evaluated) + (unjudged > 0) else "partial"


def details(tallies: Mapping[str, Tally], behaviors: Iterable[str]) -> tuple[list[dict[str, Any]], int]:
    """`bhv_details` (violated, passed, not run; by id) and how many more there would be."""
    ranked = []
    for name in {*tallies, *behaviors}:
        tally = tallies.get(name) or Tally()
        result = "fail" if tally.violations else "pass" if tally.evaluated else "not-run"
        ranked.append((("fail", "pass", "not-run").index(result), name, result, tally))
    ranked.sort(key=lambda item: item[:2])
    shown = [
        {
            "behavior_id": name,
            "result": result,
            "evaluated": tally.evaluated,
            "violations": tally.violations,
            "prevented": tally.prevented,
            **({"held": tally.held} if tally.held else {}),
            **({"approved": tally.approved} if tally.approved else {}),
        }
        for _, name, result, tally in ranked[:MAX_DETAILS]
    ]
    return shown, max(0, len(ranked) - MAX_DETAILS)


def refused(seq: int, target: str, reason: str) -> dict[str, Any]:
    """`ext.refused`: the action that a BET of trigger violation is about; a long target by its digest only."""
    action: dict[str, Any] = {"seq": seq, "reason": reason[:128]}
    if len(canonical(target)) <= MAX_QUOTED:
        return {**action, "action_target": target}
    return {**action, "action_target_digest": digest(target)}


def issue(claims: Mapping[str, Any], signer: Signer) -> str:
    """Sign the claims of a BET. Raises VerificationError for claims that a reader would refuse."""
    parse(claims, "")
    return jws.sign_compact({"typ": TYP}, canonical(claims), signer)


def parse(claims: Mapping[str, Any], token: str) -> Bet:
    """The BET that the claims describe. Raises VerificationError naming the claim that is wrong."""
    if claims.get("exec_act") != BEHAVIORAL_VERIFICATION:
        raise VerificationError(
            f"the claim 'exec_act' is {claims.get('exec_act')!r}, expected 'behavioral_verification'"
        )
    ext = read.extension(claims)
    found = _behavioral(claims, ext)
    bet = Bet(
        issuer=read.text(claims, "iss"),
        subject=read.text(claims, "sub"),
        audience=read.audience(claims),
        jti=read.uuid_text(claims, "jti"),
        iat=read.integer(claims, "iat"),
        exp=read.integer(claims, "exp"),
        wid=read.uuid_text(claims, "wid"),
        parents=read.predecessors(claims),
        policy=read.text(found, "bhv_policy"),
        result=read.text(found, "bhv_result"),
        evidence=check_digest(found, "bhv_evidence"),
        **_window(found),
        details=_details(found),
        ext=ext,
        token=token,
    )
    _check_consistent(bet)
    return bet


def verify(
    token: str,
    resolve: KeyResolver,
    *,
    now: float | None = None,
    audience: Iterable[str] | None = None,
    peer: str | None = None,
) -> Bet:
    """Form, signature, claims, and where given audience, time and issuer. Raises VerificationError with the reason.

    `now` None checks only what does not depend on the time of reading, for evidence that was kept.
    """
    bet = parse(read.verified_claims(token, frozenset({TYP}), resolve), token)
    if peer is not None and bet.issuer != peer:
        raise VerificationError(f"the token's issuer is {bet.issuer}, expected the peer of the connection {peer}")
    read.check_audience(bet.audience, audience)
    read.check_issued(bet.iat, bet.exp, now)
    return bet


def _behavioral(claims: Mapping[str, Any], ext: Mapping[str, Any]) -> dict[str, Any]:
    """The `bhv_*` claims: at top level, or in the extension object where the draft's registry puts them, never both."""
    found = {}
    for name in _CLAIMS:
        if name in claims and name in ext:
            raise VerificationError(f"the claim {name!r} stands at top level and in the extension object")
        if name in claims or name in ext:
            found[name] = claims[name] if name in claims else ext[name]
    return found


def _window(found: Mapping[str, Any]) -> dict[str, float]:
    window = found.get("bhv_window")
    if not isinstance(window, dict):
        raise VerificationError("the claim 'bhv_window' is not there as an object with start and end")
    try:
        start, end = read.number(window, "start"), read.number(window, "end")
    except VerificationError as e:
        raise VerificationError(f"in bhv_window: {e}") from None
    if start >= end:
        raise VerificationError(f"the claim 'bhv_window' is reversed or empty: start {start:f}, end {end:f}")
    return {"start": start, "end": end}


def _details(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    value = found.get("bhv_details", [])
    if not isinstance(value, list):
        raise VerificationError("the claim 'bhv_details' is not an array")
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise VerificationError(f"the claim 'bhv_details'[{number}] is not an object")
        try:
            read.text(item, "behavior_id")
            read.text(item, "result")
        except VerificationError as e:
            raise VerificationError(f"in bhv_details[{number}]: {e}") from None
    return tuple(value)


def _check_consistent(bet: Bet) -> None:
    if bet.result not in RESULTS:
        raise VerificationError(f"the claim 'bhv_result' is {bet.result!r}, expected pass, fail or partial")
    if not bet.parents:
        raise VerificationError("the claim 'pred' is empty, expected the jti of the agent's node")
    read.check_issued(bet.iat, bet.exp, None)
    if bet.end > bet.iat + read.SKEW:
        raise VerificationError(f"the claim 'bhv_window' ends at {bet.end:f}, after the token was issued at {bet.iat}")
    failed = [str(item["behavior_id"]) for item in bet.details if item["result"] == "fail"]
    if bet.result == "pass" and failed:
        raise VerificationError(f"the claim 'bhv_result' is 'pass' although {failed[0]} has the result 'fail'")
    for name in ("first_seq", "count", "checkpoint_size"):
        if name in bet.ext:
            read.integer(bet.ext, name)
