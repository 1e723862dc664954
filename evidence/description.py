"""What a monitor says of itself, signed: the code that it runs, its configuration, the bindings in force.

An Entity Attestation Token (RFC 9711) as a JWT, in a profile of our own (docs/tokens.md): `swname` and `swversion` are
registered claims, what they have no claim for stands beside them. `ueid`, `oemid` and their like are about hardware, of
which a monitor knows nothing; `measurements` wants a content format, and there is none for what is measured here. The
`typ` is its own, so that it can pass for no BET, node or attestation result, nor they for it. The header has the
evidence certificate (`x5c`): the CA's is all that a reader needs.

The claims stand in an entry of the log too, whose `seq` is their `log_size`. BETs name, by its digest, the description
that is the newest in the tree that they rest on (`ext.description`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..formats import base64url, jws, strict_json
from ..formats.canonical import canonical, digest
from ..formats.errors import VerificationError
from ..formats.jws import Signer
from . import claims as read
from .claims import KeyResolver, new_id
from .entry import DESCRIPTION, own_fields
from .ledger import Ledger
from .store import Reader

TYP = "monitor-description+jwt"
PROFILE = "urn:lictor:eat:monitor"
SOFTWARE = "lictor"
MAX_BINDINGS = 256
"""How many bindings are named one by one; `bindings_digest` is over all."""
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Description:
    """A description as read. `digest` is that of its claims, `started` and `iat` are NumericDates.

    `package` and `dependencies` are SHA-256 in hex (docs/monitors.md says of what), `configuration`, `bindings` and
    `bindings_digest` base64url. `distributions` are versions by name; `extensions` as `Extension.to_json` has them.
    """

    issuer: str
    jti: str
    iat: int
    started: float
    log_origin: str
    log_size: int
    version: str
    python: str
    package: str
    dependencies: str
    distributions: Mapping[str, str]
    configuration: str
    bindings: tuple[str, ...]
    bindings_digest: str
    extensions: tuple[Mapping[str, str], ...]
    durability: str
    digest: str
    token: str


def claims_of(
    monitor_id: str,
    ledger: Ledger,
    measured: Mapping[str, Any],
    bindings: Iterable[str],
    extensions: Iterable[Mapping[str, str]],
) -> dict[str, Any]:
    """The claims of a description made now; the next entry of `ledger` is to hold them.

    `measured` are `swversion`, `started`, `python`, `package`, `dependencies`, `distributions` and `configuration`.
    """
    digests = sorted(bindings)
    return {
        "iss": monitor_id,
        "jti": new_id(),
        "iat": int(ledger.now()),
        "eat_profile": PROFILE,
        "swname": SOFTWARE,
        **measured,
        "log_origin": ledger.origin,
        "log_size": ledger.size,
        "bindings": digests[:MAX_BINDINGS],
        "bindings_digest": digest(digests),
        "extensions": list(extensions),
        "durability": ledger.durability,
    }


def enter(ledger: Ledger, signer: Signer, x5c: list[str], claims: Mapping[str, Any]) -> Description:
    """Sign the claims, put them into the log and name them in every BET from now on.

    `x5c` is the certificate of the signer's key. Raises LedgerError, VerificationError for claims that no reader takes.
    """
    token = jws.sign_compact({"typ": TYP, "x5c": x5c}, canonical(claims), signer)
    found = parse(claims, token)
    ledger.add(own_fields(found.issuer, DESCRIPTION, {"description": dict(claims), "digest": found.digest}))
    ledger.put_document("description", found.digest, {"token": token})
    ledger.described = found.digest
    return found


def tokens(stored: Reader) -> dict[str, str]:
    """Every description of the log's monitor by its digest, oldest first."""
    return {row.id: str(strict_json.loads_object(row.data)["token"]) for row in stored.documents("description")}


def newest_token(stored: Reader) -> str | None:
    """The monitor's newest description."""
    return next(reversed(tokens(stored).values()), None)


def parse(claims: Mapping[str, Any], token: str) -> Description:
    """The description that the claims are. Raises VerificationError naming the claim that is wrong."""
    if claims.get("eat_profile") != PROFILE:
        raise VerificationError(f"the claim 'eat_profile' is {claims.get('eat_profile')!r}, expected {PROFILE!r}")
    if claims.get("swname") != SOFTWARE:
        raise VerificationError(f"the claim 'swname' is {claims.get('swname')!r}, expected {SOFTWARE!r}")
    issuer, origin = read.text(claims, "iss"), read.text(claims, "log_origin")
    if issuer != f"spiffe://{origin}":
        raise VerificationError(f"the description is of {issuer} and speaks of the log {origin}")
    return Description(
        issuer=issuer,
        jti=read.uuid_text(claims, "jti"),
        iat=read.integer(claims, "iat"),
        started=read.number(claims, "started"),
        log_origin=origin,
        log_size=read.integer(claims, "log_size"),
        version=_version(claims),
        python=read.text(claims, "python"),
        package=_sha256(claims, "package"),
        dependencies=_sha256(claims, "dependencies"),
        distributions=_texts(claims, "distributions", claims.get("distributions")),
        configuration=read.text(claims, "configuration"),
        bindings=tuple(read.text({"bindings": one}, "bindings") for one in _list(claims, "bindings")),
        bindings_digest=read.text(claims, "bindings_digest"),
        extensions=tuple(_texts(claims, "extensions", one) for one in _list(claims, "extensions")),
        durability=read.text(claims, "durability"),
        digest=base64url.encode(sha256(canonical(claims)).digest()),
        token=token,
    )


def verify(token: str, resolve: KeyResolver) -> Description:
    """Form, signature and claims. Raises VerificationError, FormatError."""
    return parse(read.verified_claims(token, frozenset({TYP}), resolve), token)


def _version(claims: Mapping[str, Any]) -> str:
    """RFC 9711 section 4.2.7: the version, and perhaps its scheme."""
    value = claims.get("swversion")
    if not isinstance(value, list) or not 1 <= len(value) <= 2:
        raise VerificationError("the claim 'swversion' is not an array of a version and perhaps its scheme")
    return read.text({"swversion": value[0]}, "swversion")


def _sha256(claims: Mapping[str, Any], name: str) -> str:
    value = read.text(claims, name)
    if len(value) != 64 or not _HEX.issuperset(value):
        raise VerificationError(f"the claim {name!r} is {value[:80]!r}, expected a SHA-256 in hexadecimal")
    return value


def _list(claims: Mapping[str, Any], name: str) -> list[Any]:
    value = claims.get(name)
    if not isinstance(value, list):
        raise VerificationError(f"the claim {name!r} is not an array")
    return value


def _texts(claims: Mapping[str, Any], name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise VerificationError(f"in the claim {name!r} stands something that is not an object of texts")
    return {read.text({name: member}, name): read.text(value, member) for member in value}
