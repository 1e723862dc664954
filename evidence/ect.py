"""Execution Context Tokens (draft-nennemann-wimse-ect): lictor's profile, every constant of the draft in one place.

The body of the draft was not available word for word; this profile follows its revision history and its reference
implementation (specifications.md section 1). Both generations of names are read (`wimse-exec+jwt`/`exec+jwt`,
`par`/`pred`, `ext`/`ect_ext`) and both are written where they do not clash; the `typ` written is `exec+jwt`.
Stricter than the reference implementation: a missing `pred`/`par` is malformed, ids must be UUIDs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..formats import base64url, jws
from ..formats.canonical import canonical
from ..formats.errors import FormatError, VerificationError
from ..formats.jws import Signer
from . import claims as read
from .claims import KeyResolver

HEADER = "Execution-Context"
TYP = "exec+jwt"
ACCEPTED_TYP = frozenset({"exec+jwt", "wimse-exec+jwt"})
EXEC_ACT = "agent_execution"
"""What a node that the monitor minted says was executed: the observed work of the agent."""
BEHAVIORAL_VERIFICATION = "behavioral_verification"
"""`exec_act` of a BET; an ECT that claims it is refused."""
LIFETIME = 600
"""Seconds from `iat` to `exp` of a node that we mint."""
MAX_AGE = 900
"""Seconds after which a node's `iat` is too old to be accepted."""
FRESH = 300
"""Seconds for which a minted node is reused before a continuation node takes its place."""
IDLE = 900
"""Seconds without an action after which an agent's own work is a new workflow."""
MAX_ANCESTORS = 10_000


@dataclass(frozen=True, slots=True)
class Ect:
    """One node of a delegation DAG. `wid` is None where the issuer names no workflow; times are NumericDates."""

    issuer: str
    subject: str | None
    audience: tuple[str, ...]
    jti: str
    wid: str | None
    exec_act: str
    parents: tuple[str, ...]
    iat: int
    exp: int
    ext: Mapping[str, Any]
    token: str


@dataclass(frozen=True, slots=True)
class Minted:
    """A node that this monitor minted: what the store and the header need of it."""

    jti: str
    wid: str
    iat: int
    parents: tuple[str, ...]
    token: str


def mint(
    signer: Signer,
    *,
    issuer: str,
    subject: str,
    audience: Iterable[str],
    wid: str,
    parents: tuple[str, ...],
    now: float,
    ext: Mapping[str, Any] | None = None,
) -> Minted:
    """A signed node for work of `subject` that `issuer` observed. Raises VerificationError if `ext` is too large."""
    members = {"observed": True, **(ext or {})}
    read.check_extension("ext", members)
    jti, iat = read.new_id(), int(now)
    claims = {
        "iss": issuer,
        "sub": subject,
        "aud": list(dict.fromkeys(audience)),
        "iat": iat,
        "exp": iat + LIFETIME,
        "jti": jti,
        "wid": wid,
        "exec_act": EXEC_ACT,
        "par": list(parents),
        "pred": list(parents),
        "ext": members,
        "ect_ext": members,
    }
    return Minted(jti, wid, iat, parents, jws.sign_compact({"typ": TYP}, canonical(claims), signer))


def parse(claims: Mapping[str, Any], token: str) -> Ect:
    """The node that the claims describe. Raises VerificationError naming the claim that is wrong."""
    exec_act = read.text(claims, "exec_act")
    if exec_act == BEHAVIORAL_VERIFICATION:
        raise VerificationError(f"the claim 'exec_act' is {exec_act!r}: that is a BET, not an ECT")
    for name in ("inp_hash", "out_hash"):
        if name in claims:
            check_digest(claims, name)
    node = Ect(
        issuer=read.text(claims, "iss"),
        subject=read.text(claims, "sub") if "sub" in claims else None,
        audience=read.audience(claims),
        jti=read.uuid_text(claims, "jti"),
        wid=read.uuid_text(claims, "wid") if "wid" in claims else None,
        exec_act=exec_act,
        parents=read.predecessors(claims),
        iat=read.integer(claims, "iat"),
        exp=read.integer(claims, "exp"),
        ext=read.extension(claims),
        token=token,
    )
    if node.jti in node.parents:
        raise VerificationError(f"the node {node.jti} is its own predecessor")
    return node


def check_digest(claims: Mapping[str, Any], name: str) -> str:
    """A SHA-256 digest as 43 characters of base64url."""
    value = read.text(claims, name)
    try:
        good = len(value) == 43 and len(base64url.decode(value)) == 32
    except FormatError:
        good = False
    if not good:
        raise VerificationError(
            f"the claim {name!r} is {value[:60]!r}, expected SHA-256 as 43 characters of base64url without padding"
        )
    return value


def verify(
    token: str,
    resolve: KeyResolver,
    *,
    now: float | None = None,
    audience: Iterable[str] | None = None,
    peer: str | None = None,
) -> Ect:
    """Steps 1 to 11 of specifications.md section 1.7; replay and DAG are the caller's. Raises VerificationError.

    `peer` is the identity of the mTLS peer, which must be the issuer. `now` None checks only what does not depend on
    the time of reading, for evidence that was kept.
    """
    node = parse(read.verified_claims(token, ACCEPTED_TYP, resolve), token)
    if peer is not None and node.issuer != peer:
        raise VerificationError(f"the token's issuer is {node.issuer}, expected the peer of the connection {peer}")
    read.check_audience(node.audience, audience)
    read.check_issued(node.iat, node.exp, now)
    if now is not None and now - node.iat > MAX_AGE:
        raise VerificationError(f"the token is {now - node.iat:.0f} s old, more than {MAX_AGE}")
    return node
