"""Attestation results as EAR JWTs (draft-ietf-rats-ear), and how results of behavior become trust tiers (AR4SI).

The profile written is that of draft -04 of the working group (May 2026); `veraison` is the older one, which the
Veraison libraries read. AR4SI has no claim for behavior, so `executables` carries it, with negative values, which it
leaves to the implementation; what was seen stands word for word in the submodule's private claim `lictor.behavior`. A
status is never better than the worst claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...evidence import claims as read
from ...evidence.claims import KeyResolver
from ...formats import jws
from ...formats.canonical import canonical
from ...formats.errors import VerificationError
from ...formats.jws import Signer

Status = Literal["none", "affirming", "warning", "contraindicated"]
Profile = Literal["ietf", "veraison"]

TYP = "eat+jwt"
PROFILES: Mapping[Profile, str] = {
    "ietf": "tag:ietf.org,2026:rats/ear#04",
    "veraison": "tag:github.com,2023:veraison/ear",
}
STATUSES: tuple[Status, ...] = ("affirming", "none", "warning", "contraindicated")
"""From the best to the worst that a relying party can be told."""
AFFIRMED, WARNED, CONTRAINDICATED = -2, -33, -97
"""Values of AR4SI's tiers that are ours to define."""
NOT_AUTHENTIC = 99
"""AR4SI: cryptographic validation failed."""
BEHAVIOR = "lictor.behavior"
_VALUES: Mapping[Status, int] = {
    "none": 0,
    "affirming": AFFIRMED,
    "warning": WARNED,
    "contraindicated": CONTRAINDICATED,
}
MIN_NONCE, MAX_NONCE = 8, 88


@dataclass(frozen=True, slots=True)
class Submodule:
    """What is said of one agent: `policies` are the ids it was judged by, `behavior` the details in words."""

    status: Status
    policies: tuple[str, ...] = ()
    behavior: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vector(self) -> dict[str, int]:
        return {"executables": _VALUES[self.status]}


@dataclass(frozen=True, slots=True)
class Result:
    """An attestation result as read. `submodules` by the SPIFFE ID of the agent."""

    issuer: str
    profile: Profile
    iat: int
    exp: int
    status: Status
    submodules: Mapping[str, Submodule]


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of several; none where there is none."""
    return max(statuses, key=STATUSES.index, default="none")


def check_nonce(nonce: str) -> str:
    """RFC 9711 section 4.1: 8 to 88 characters. Raises VerificationError."""
    if not MIN_NONCE <= len(nonce) <= MAX_NONCE or not nonce.isascii() or not nonce.isprintable():
        raise VerificationError(f"a nonce has {MIN_NONCE} to {MAX_NONCE} printable ASCII characters")
    return nonce


def issue(
    signer: Signer,
    issuer: str,
    submodules: Mapping[str, Submodule],
    now: float,
    lifetime: int,
    nonce: str | None = None,
    profile: Profile = "ietf",
    build: str = "",
) -> str:
    """Sign a result about some agents: good for `lifetime` seconds, in answer to `nonce`; `build`: our version."""
    status = worst(one.status for one in submodules.values())
    claims = {
        "iss": issuer,
        "eat_profile": PROFILES[profile],
        "iat": int(now),
        "exp": int(now) + lifetime,
        _name(profile, "verifier-id"): {"developer": "lictor", "build": build or "unknown"},
        _name(profile, "status"): status,
        "submods": {agent: _submodule(one, profile) for agent, one in submodules.items()},
        **({} if nonce is None else {"eat_nonce": nonce}),
    }
    return jws.sign_compact({"typ": TYP}, canonical(claims), signer)


def verify(
    token: str, resolve: KeyResolver, *, now: float | None = None, nonce: str | None = None, skew: float = 30.0
) -> Result:
    """Signature, profile and form; with `now` the times; with `nonce` that it answers to it.

    Raises VerificationError with what is wrong.
    """
    claims = read.verified_claims(token, frozenset({TYP}), resolve)
    issuer, profile = read.text(claims, "iss"), _profile(claims)
    iat, exp = read.integer(claims, "iat"), read.integer(claims, "exp")
    if now is not None and not iat - skew <= now < exp + skew:
        raise VerificationError(f"the result is of {iat} to {exp}, which is not now ({now:.0f})")
    modules = claims.get("submods")
    if not isinstance(modules, dict) or not modules:
        raise VerificationError("the result says nothing of anybody: there are no submods")
    submodules = {agent: _read_submodule(agent, value, profile) for agent, value in modules.items()}
    status = _status(claims.get(_name(profile, "status")), "the result")
    if status != worst(one.status for one in submodules.values()):
        raise VerificationError(f"the result's status is {status!r}, which is not that of its worst submodule")
    if nonce is not None and claims.get("eat_nonce") != nonce:
        raise VerificationError("the result does not answer to the nonce that was sent")
    return Result(issuer, profile, iat, exp, status, submodules)


def _name(profile: Profile, name: str) -> str:
    return f"ear.{name}" if profile == "veraison" else f"ear_{name.replace('-', '_')}"


def _submodule(one: Submodule, profile: Profile) -> dict[str, Any]:
    policies = list(one.policies)
    said: dict[str, Any] = {
        _name(profile, "status"): one.status,
        _name(profile, "trustworthiness-vector"): one.vector,
        BEHAVIOR: dict(one.behavior),
    }
    if policies:
        # The older profile has room for one.
        said |= (
            {"ear.appraisal-policy-id": policies[0]}
            if profile == "veraison"
            else {"ear_appraisal_policy_ids": policies}
        )
    return said


def _read_submodule(agent: str, value: object, profile: Profile) -> Submodule:
    if not isinstance(value, dict):
        raise VerificationError(f"the submodule of {agent} is not an object")
    status = _status(value.get(_name(profile, "status")), f"the submodule of {agent}")
    vector = value.get(_name(profile, "trustworthiness-vector"), {})
    if not isinstance(vector, dict) or any(type(claim) is not int for claim in vector.values()):
        raise VerificationError(f"the trustworthiness vector of {agent} is not an object of integers")
    tiers = [tier_of(claim) for claim in vector.values()]
    if STATUSES.index(status) < STATUSES.index(worst(tiers)) and tiers:
        raise VerificationError(f"the status {status!r} of {agent} is better than the worst claim about it")
    policies = value.get("ear_appraisal_policy_ids", value.get("ear.appraisal-policy-id", []))
    policies = [policies] if isinstance(policies, str) else policies
    behavior = value.get(BEHAVIOR, {})
    if not isinstance(policies, list) or not all(isinstance(one, str) for one in policies):
        raise VerificationError(f"the appraisal policies of {agent} are not texts")
    if not isinstance(behavior, dict):
        raise VerificationError(f"the submodule of {agent} is malformed")
    return Submodule(status, tuple(policies), behavior)


def tier_of(claim: int) -> Status:
    """AR4SI section 3.1: the tier of a value."""
    if claim in (-1, 0, 1):
        return "none"
    size = claim if claim > 0 else -claim - 1
    if size < 32:
        return "affirming"
    return "warning" if size < 96 else "contraindicated"


def _profile(claims: Mapping[str, Any]) -> Profile:
    for name, uri in PROFILES.items():
        if claims.get("eat_profile") == uri:
            return name
    raise VerificationError(f"the profile {claims.get('eat_profile')!r} is not one of EAR's that are known here")


def _status(value: object, what: str) -> Status:
    for status in STATUSES:
        if value == status:
            return status
    raise VerificationError(f"the status of {what} is {value!r}, expected {', '.join(STATUSES)}")
