"""What BETs are worth to whoever asks about their agent: reasons, each with the trust tier that it leads to.

Signature and claims are verified before (`evidence.bet`). Judged here are one BET by itself, and its policy by the
reference copies that the Verifier has. How BETs continue each other is the register's (`register`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...bindings.apart import Rules
from ...bindings.model import Binding
from ...bindings.registry import load_files
from ...bindings.signing import read_keys
from ...bindings.subjects import applies_to, for_agents_of
from ...evidence.bet import Bet
from ...evidence.claims import SKEW
from ...evidence.windows import DEFAULT_DENY
from ...formats.errors import UsageError, VerificationError
from ...formats.spiffe import SpiffeId
from .ear import Status

RESULTS: dict[str, Status] = {"pass": "affirming", "partial": "warning", "fail": "contraindicated"}
MAX_TEXT = 200
"""Characters of a reason's text, and of an id that a monitor chose."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What speaks for or against an agent. `what` is machine-readable, `text` for people."""

    what: str
    status: Status
    text: str

    @classmethod
    def of(cls, what: str, status: Status, text: str) -> Reason:
        return cls(what, status, shortened(text))


def shortened(text: str) -> str:
    """What monitors chose, as it goes into a result: however long it is, there must be room for the rest."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


class NotYet(VerificationError):
    """The BET may be good later: its clock is ahead of ours."""


@dataclass(frozen=True, slots=True)
class References:
    """The bindings that the Verifier knows, each in all versions that may judge. Without any, all will do.

    `digests` by policy id; `subjects` of all versions of a policy; `bindings` by digest.
    """

    digests: dict[str, frozenset[str]] = field(default_factory=dict)
    subjects: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    bindings: dict[str, Binding] = field(default_factory=dict)
    _rules: dict[str, Rules] = field(default_factory=dict)
    _views: dict[str, References] = field(default_factory=dict)

    @classmethod
    def of(cls, bindings: Iterable[Binding]) -> References:
        found = cls()
        for one in bindings:
            found.digests[one.policy_id] = found.digests.get(one.policy_id, frozenset()) | {one.digest}
            found.bindings[one.digest] = one
            found.subjects[one.policy_id] = (*found.subjects.get(one.policy_id, ()), one.subjects)
        return found

    @classmethod
    def load(cls, directory: Path, signers: Iterable[Path]) -> References:
        """All `*.json` of a directory, signed. Raises UsageError, also if there is none, and VerificationError."""
        keys = {kid: key for path in signers for kid, key in read_keys(path).items()}
        found = cls.of(binding for _, binding in load_files(directory, keys))
        if not found.digests:
            # Else whoever empties the directory has every policy taken.
            raise UsageError(f"{directory} holds no reference copies: put some there, or leave references out")
        return found

    def at_monitors_of(self, trust_domain: str) -> References:
        """The same, as monitors of a trust domain judge by them: without subjects for the agents of that one."""
        if trust_domain not in self._views:
            self._views[trust_domain] = self.of(for_agents_of(trust_domain, self.bindings.values()))
        return self._views[trust_domain]

    def rules(self, digest: str) -> Rules | None:
        """The behaviors of the binding with this digest, made ready to judge when they are first asked for."""
        if digest not in self._rules and digest in self.bindings:
            self._rules[digest] = Rules([self.bindings[digest]])
        return self._rules.get(digest)

    def reasons(self, policy: str, digests: Iterable[str]) -> Iterator[Reason]:
        """Against evidence under `policy`, judged by the bindings with these digests."""
        if not self.digests or policy == DEFAULT_DENY.policy_id:
            return
        known = self.digests.get(policy)
        if known is None:
            yield Reason.of("unknown_policy", "warning", f"there is no reference copy of the policy {policy}")
        elif not known.issuperset(digests):
            text = f"a binding that judged under {policy} is none of the reference copies"
            yield Reason.of("other_binding", "contraindicated", text)

    def missing(self, agent: str, policies: Iterable[str], monitors: Iterable[str]) -> Iterator[Reason]:
        """Against an agent of which there is evidence of these `monitors` under these `policies` only."""
        there, home = set(policies), SpiffeId.parse(agent).trust_domain
        own = home in {SpiffeId.parse(monitor).trust_domain for monitor in monitors}
        for policy, versions in self.subjects.items():
            if policy not in there and all(applies_to(one, agent) if one else own for one in versions):
                text = f"the policy {policy} applies to the agent, and there is no evidence under it"
                yield Reason.of("policy_missing", "warning", text)


def appraise(bet: Bet) -> tuple[Status, tuple[Reason, ...]]:
    """The status that this BET alone gives its agent, and why."""
    reasons = []
    status = RESULTS[bet.result]
    if status != "affirming":
        violated = [str(one["behavior_id"]) for one in bet.details if one["result"] == "fail"]
        prevented = sum(one["prevented"] for one in bet.details if type(one.get("prevented")) is int)
        named = f", of {', '.join(violated)}" if violated else ""
        text = f"the result under {bet.policy} is {bet.result}; {prevented} violations were prevented{named}"
        reasons.append(Reason.of("violations", status, text))
    if bet.ext.get("durability") == "os":
        text = f"a power cut may take the last entries of the log of {bet.issuer}"
        reasons.append(Reason.of("durability_os", "affirming", text))
    return status, tuple(reasons)


def check_sent(bet: Bet, sender: str, now: float) -> None:
    """A monitor speaks for itself only, and of its own log: `sender` is the mTLS peer's SPIFFE ID.

    Raises VerificationError, NotYet.
    """
    if bet.issuer != sender:
        raise VerificationError(f"the BET {bet.jti} is of {bet.issuer} and was sent by {sender}")
    if f"spiffe://{bet.ext.get('log_origin')}" != sender:
        raise VerificationError(f"the BET {bet.jti} is about the log {bet.ext.get('log_origin')}, not that of {sender}")
    if not isinstance(bet.ext.get("checkpoint_size"), int) or not isinstance(bet.ext.get("checkpoint_root"), str):
        raise VerificationError(f"the BET {bet.jti} does not name the tree of the log that it rests on")
    if bet.iat > now + SKEW:
        raise NotYet(f"the BET {bet.jti} is {bet.iat - now:.0f} s ahead of the Verifier's clock")
