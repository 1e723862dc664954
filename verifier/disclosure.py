"""Verification of a disclosure, with one CA certificate as the root of trust and perhaps a policy on witnesses.

A good one proves: the monitor that the CA vouches for signed a tree in which this entry stands at this place; the
opened values are those whose salted digests the entry held from the beginning; and, with a BET, that the same monitor
signed for this agent a window that reaches over the entry's place and time and rests on that very tree. It does not
prove that `bhv_evidence` was computed with this entry in it, nor what else was in the window: that takes all entries of
the window.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from ..certs.evidence_keys import EvidenceKeys
from ..evidence import bet as bets
from ..evidence.bet import Bet
from ..evidence.checkpoint import parse_checkpoint
from ..evidence.disclosure import outside, parse_disclosure
from ..evidence.proof_files import parse_extra, parse_inclusion
from ..evidence.salted import SD, Opened, open_disclosure, sd_digest
from ..formats import base64url
from ..formats.cosignature import CheckpointPolicy
from ..formats.errors import FormatError, VerificationError
from ..formats.signed_note import parse_note
from .bets import bet_json
from .proof import ProofReport, check_proof


@dataclass(frozen=True, slots=True)
class DisclosureReport:
    """What a good disclosure shows. `hidden` values of the entry were not shown."""

    proof: ProofReport
    opened: tuple[Opened, ...]
    hidden: int
    bet: Bet | None

    @property
    def entry(self) -> dict[str, Any]:
        return self.proof.entry or {}

    def to_json(self) -> dict[str, Any]:
        fields = {one.name: one.value for one in self.opened}
        shown = {**self.proof.to_json(), "kind": "disclosure", "fields": fields, "hidden": self.hidden}
        return shown if self.bet is None else {**shown, "bet": bet_json(self.bet)}


def claimed_origin(text: str) -> str:
    """The log that a disclosure says it is of; nothing of it is verified. Raises FormatError."""
    return parse_checkpoint(parse_note(parse_inclusion(parse_disclosure(text).proof).note)).origin


def check_disclosure(
    text: str, ca_pem: bytes, policy: CheckpointPolicy | None = None, revoked: Container[int] = frozenset()
) -> DisclosureReport:
    """Verify a disclosure file. `revoked`: serial numbers of certificates of that CA whose keys vouch for nothing.

    Raises FormatError and VerificationError naming what does not hold.
    """
    shown = parse_disclosure(text)
    proof = check_proof(shown.proof, ca_pem, policy, revoked)
    if proof.kind != "inclusion" or proof.entry is None:
        raise FormatError("'proof' is not the proof of an entry")
    opened, hidden = _open(proof.entry, shown.fields)
    keys = EvidenceKeys(ca_pem, revoked)
    one = _bet(shown.bet, shown.proof, proof, keys) if shown.bet is not None else None
    return DisclosureReport(proof, opened, hidden, one)


def _open(entry: dict[str, Any], texts: Iterable[str]) -> tuple[tuple[Opened, ...], int]:
    """The values, each of which the entry holds the digest of, and how many more it holds."""
    parameters = entry.get("action_parameters")
    held = parameters.get(SD, []) if isinstance(parameters, dict) else []
    if not isinstance(held, list) or not all(isinstance(digest, str) for digest in held):
        raise VerificationError(f"the entry's action_parameters.{SD} is not a list of digests")
    left, opened = set(held), []
    for text in texts:
        one = open_disclosure(text)
        if sd_digest(text) not in left:
            raise VerificationError(f"the value of {one.name} is not one that the entry holds the digest of, once")
        left.remove(sd_digest(text))
        opened.append(one)
    names = [one.name for one in opened]
    if len(set(names)) != len(names):
        raise VerificationError("two values are shown under one name")
    return tuple(opened), len(left)


def _bet(token: str, text: str, proof: ProofReport, keys: EvidenceKeys) -> Bet:
    extra = parse_inclusion(text).extra
    assert extra is not None  # check_proof read it
    assert proof.entry is not None
    for jwk in parse_extra(extra)[1]:
        keys.add_jwk(jwk)
    one = bets.verify(token, keys.resolve)
    if one.ext.get("log_origin") != proof.origin or one.issuer.removeprefix("spiffe://") != proof.origin:
        raise VerificationError(f"the BET is of the log {one.ext.get('log_origin')!r}, expected {proof.origin!r}")
    rests = one.ext.get("checkpoint_size"), one.ext.get("checkpoint_root")
    proved = proof.size, base64url.encode(bytes.fromhex(proof.root))
    if rests != proved:
        raise VerificationError(f"the BET rests on the tree {rests}, the proof is under {proved}")
    try:
        problem = outside(one, proof.entry) or _contradiction(one, proof.entry)
    except (KeyError, TypeError) as e:
        raise VerificationError(f"the entry lacks what entries have: {e!r}") from None
    if problem is not None:
        raise VerificationError(f"the entry is not in the window of the BET as it stands: {problem}")
    return one


def _contradiction(one: Bet, entry: dict[str, Any]) -> str | None:
    """A behavior of the BET's policy that failed here cannot have passed there."""
    failed = [
        str(said["behavior_id"])
        for said in entry.get("behaviors", ())
        if said["policy_id"] == one.policy and said["result"] != "pass"
    ]
    if failed and one.result == "pass":
        return f"{failed[0]} failed here and the BET says pass"
    return None
