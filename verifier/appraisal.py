"""What a BET is worth to whoever asks about its agent: reasons, each with the trust tier that it leads to.

Signature and claims are verified before (`evidence.bet`). Judged here is one BET by itself: its result, and whether its
policy is one that the Verifier knows, in a version of which it has a reference copy. How BETs continue each other is
the register's (`register`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..evidence.bet import Bet
from ..formats.errors import VerificationError
from .ear import Status, worst

RESULTS: Mapping[str, Status] = {"pass": "affirming", "partial": "warning", "fail": "contraindicated"}
DEFAULT_DENY = "urn:lictor:policy:default-deny"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a status is not affirming. `what` is machine-readable, `text` for people."""

    what: str
    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class References:
    """Digests of the bindings that the Verifier knows, by policy id. Without any, every policy is taken as it is."""

    digests: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, bindings: Iterable[tuple[str, str]]) -> References:
        """From pairs of policy id and digest."""
        found: dict[str, frozenset[str]] = {}
        for policy, digest in bindings:
            found[policy] = found.get(policy, frozenset()) | {digest}
        return cls(found)

    def reasons(self, bet: Bet) -> list[Reason]:
        if not self.digests or bet.policy == DEFAULT_DENY:
            return []
        known = self.digests.get(bet.policy)
        if known is None:
            return [Reason("unknown_policy", "warning", f"there is no reference copy of the policy {bet.policy}")]
        if bet.ext.get("binding_digest") not in known:
            version = bet.ext.get("binding_version", "")
            text = f"the binding {bet.policy} {version} that judged is none of the reference copies".replace("  ", " ")
            return [Reason("other_binding", "contraindicated", text)]
        return []


def appraise(bet: Bet, references: References) -> tuple[Status, tuple[Reason, ...]]:
    """The status that this BET alone gives its agent, and why."""
    reasons = references.reasons(bet)
    status = RESULTS[bet.result]
    if status != "affirming":
        violated = [str(one["behavior_id"]) for one in bet.details if one["result"] == "fail"]
        prevented = sum(int(one["prevented"]) for one in bet.details if isinstance(one.get("prevented"), int))
        named = f", of {', '.join(violated)}" if violated else ""
        text = f"the result under {bet.policy} is {bet.result}{named}; {prevented} violations were prevented"
        reasons.append(Reason("violations", status, text))
    if bet.ext.get("durability") == "os":
        reasons.append(Reason("durability_os", "affirming", "a power cut may have taken the log's last entries"))
    return worst((status, *(reason.status for reason in reasons))), tuple(reasons)


def check_sender(bet: Bet, sender: str) -> None:
    """A monitor speaks for itself only: `sender` is the mTLS peer's SPIFFE ID. Raises VerificationError."""
    if bet.issuer != sender:
        raise VerificationError(f"the BET {bet.jti} is of {bet.issuer} and was sent by {sender}")
