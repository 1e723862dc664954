"""What ECTs and BETs have in common: reading claims strictly, and the limits that both must keep.

Every reader raises VerificationError with the claim's name, what was expected and what was found. A bool is never a
number, a missing claim is never an empty one.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..formats import jws
from ..formats.errors import FormatError, VerificationError
from ..formats.jws import PublicKey

SKEW = 30.0
"""Seconds by which the clocks of two monitors may differ (specifications.md section 1.8)."""
MAX_EXT_BYTES = 4096
MAX_EXT_DEPTH = 5
MAX_PREDECESSORS = 100
MAX_TEXT = 2048
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_EXT_NAMES = ("ext", "ect_ext")


class KeyResolver(Protocol):
    """Finds the key `kid` of an issuer, such as `EvidenceKeys.resolve`."""

    def __call__(self, kid: str, iss: str, at: float | None = None) -> PublicKey:
        """Raises VerificationError for a key that is not known, or whose certificate was not valid at `at`."""


def new_id() -> str:
    """A random UUID (RFC 9562, version 4) for `jti` and `wid`."""
    return str(uuid.uuid4())


def verified_claims(token: str, typ: frozenset[str], resolve: KeyResolver) -> dict[str, Any]:
    """The claims of a compact JWS of one of the types `typ`, after its signature was verified."""
    parsed = jws.parse_compact(token, typ=typ)
    try:
        claims = parsed.claims()
    except FormatError as e:
        raise VerificationError(f"the token's claims cannot be read: {e}") from None
    jws.verify_signature(parsed, resolve(parsed.kid, text(claims, "iss"), integer(claims, "iat")))
    return claims


def _wrong(name: str, claims: Mapping[str, Any], expected: str) -> VerificationError:
    if name not in claims:
        return VerificationError(f"the claim {name!r} is missing, expected {expected}")
    found = json.dumps(claims[name], default=str)
    return VerificationError(f"the claim {name!r} is {found[:80]}, expected {expected}")


def text(claims: Mapping[str, Any], name: str) -> str:
    """A string of 1 to 2048 printable characters: ids end up on terminals."""
    value = claims.get(name)
    if not _is_text(value):
        raise _wrong(name, claims, f"a string of 1 to {MAX_TEXT} printable characters")
    return str(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def integer(claims: Mapping[str, Any], name: str) -> int:
    """An integer from 0 to 2^53-1. `1.0` is not one."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value < 2**53:
        raise _wrong(name, claims, "an integer")
    return value


def number(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate, with or without a fraction."""
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise _wrong(name, claims, "a number from 0 to 2^53")
    return float(value)


def uuid_text(claims: Mapping[str, Any], name: str) -> str:
    """A UUID in its text form."""
    value = claims.get(name)
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise _wrong(name, claims, "a UUID")
    return value


def audience(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """`aud` as a tuple; one string counts as an array of one (RFC 7519 section 4.1.3)."""
    value = claims.get("aud")
    members = [value] if isinstance(value, str) else value
    if not isinstance(members, list) or not members or not all(map(_is_text, members)):
        raise _wrong("aud", claims, "a string or an array of strings")
    return tuple(members)


def predecessors(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """`pred` (or `par`, its older name). Both may be there if they are equal; neither is malformed; [] is a root."""
    names = [name for name in ("pred", "par") if name in claims]
    if not names:
        raise VerificationError("the claim 'pred' (or 'par') is missing, expected an array of UUIDs")
    if len(names) == 2 and claims["pred"] != claims["par"]:
        raise VerificationError("the claims 'pred' and 'par' differ, expected the same array")
    value = claims[names[0]]
    if not isinstance(value, list) or not all(isinstance(m, str) and _UUID.fullmatch(m) for m in value):
        raise _wrong(names[0], claims, "an array of UUIDs")
    if len(value) > MAX_PREDECESSORS:
        raise VerificationError(f"the claim {names[0]!r} has {len(value)} members, more than {MAX_PREDECESSORS}")
    if len(set(value)) != len(value):
        raise VerificationError(f"the claim {names[0]!r} names a predecessor twice")
    return tuple(value)


def extension(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The members of `ext` and `ect_ext` together, each within 4096 bytes and depth 5; a clash is an error."""
    members: dict[str, Any] = {}
    for name in _EXT_NAMES:
        if name not in claims:
            continue
        value = claims[name]
        if not isinstance(value, dict):
            raise _wrong(name, claims, "an object")
        check_extension(name, value)
        for member in value:
            if member in members and members[member] != value[member]:
                raise VerificationError(f"the member {member!r} of 'ext' and 'ect_ext' differs")
        members.update(value)
    return members


def check_extension(name: str, value: Mapping[str, Any]) -> None:
    """Raises VerificationError if the object breaks the limits of an ECT extension (specifications.md section 1.4)."""
    depth = _depth(value)
    if depth > MAX_EXT_DEPTH:
        raise VerificationError(f"the claim {name!r} nests {depth} levels deep, more than {MAX_EXT_DEPTH}")
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    if size > MAX_EXT_BYTES:
        raise VerificationError(f"the claim {name!r} has {size} bytes, more than {MAX_EXT_BYTES}")


def _depth(value: Any) -> int:
    """How many containers nest, counted level by level (no recursion into hostile depth)."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [member for item in level for member in (item.values() if isinstance(item, dict) else item)]
    return depth


def check_issued(iat: int, exp: int, now: float | None) -> None:
    """`iat` < `exp`; with `now` also: not expired, not from the future beyond the skew."""
    if exp <= iat:
        raise VerificationError(f"the claim 'exp' is {exp}, expected later than 'iat' {iat}")
    if now is None:
        return
    if iat > now + SKEW:
        raise VerificationError(f"the token is from the future: 'iat' is {iat}, the time is {now:.0f}")
    if exp <= now:
        raise VerificationError(f"the token expired {now - exp:.0f} s ago: 'exp' is {exp}, the time is {now:.0f}")


def check_audience(found: Iterable[str], accepted: Iterable[str] | None) -> None:
    """Raises VerificationError unless one of `accepted` is in `found`. None: any audience will do."""
    if accepted is None:
        return
    expected = set(accepted)
    if expected.isdisjoint(found):
        raise VerificationError(
            f"the token is not for us: 'aud' is {', '.join(found)}, expected {' or '.join(sorted(expected))}"
        )
