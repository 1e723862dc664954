"""JWS in compact form (RFC 7515), with the narrowings of RFC 8725: pinned algorithm, type and key, one spelling.

Only Ed25519 (`EdDSA`, and RFC 9864's `Ed25519` when reading) and ES256 exist here. `none`, the HMACs and RSA cannot be
chosen by a token, because the algorithm follows from the key that the caller resolved. `EdDSA` is written because more
libraries read it; it is the same signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from . import base64url, strict_json
from .canonical import canonical
from .errors import FormatError, VerificationError

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
MAX_TOKEN = 64 * 1024
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+", re.ASCII)


class Signer(Protocol):
    """Signs bytes with a key that stays where it is (a file, an agent process, a key store)."""

    @property
    def kid(self) -> str:
        """The key's id, as verifiers look it up."""

    @property
    def alg(self) -> str:
        """`EdDSA` or `ES256`."""

    def sign(self, data: bytes) -> bytes:
        """The raw JWS signature (64 octets for EdDSA and ES256)."""

    def public_key(self) -> PublicKey:
        """The key that verifies what `sign` returns."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token whose form was checked, whose signature was not: header, claims and the pieces to verify."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes

    @property
    def kid(self) -> str:
        return str(self.header["kid"])

    def claims(self) -> dict[str, Any]:
        """The payload as a JSON object; duplicate members are an error (FormatError)."""
        return strict_json.loads_object(self.payload)


def sign_compact(header: dict[str, Any], payload: bytes, signer: Signer) -> str:
    """`payload` signed as a compact JWS. `alg` and `kid` come from the signer, whatever `header` says."""
    full = {**header, "alg": signer.alg, "kid": signer.kid}
    signing_input = f"{base64url.encode(canonical(full))}.{base64url.encode(payload)}"
    return f"{signing_input}.{base64url.encode(signer.sign(signing_input.encode('ascii')))}"


def parse_compact(text: str, *, typ: frozenset[str], max_bytes: int = MAX_TOKEN) -> Token:
    """Check the form of a compact JWS: size, parts, spelling, `typ`, `crit`, `alg`, `kid`. Raises VerificationError."""
    if len(text) > max_bytes:
        raise VerificationError(f"the token has {len(text)} characters, more than {max_bytes}")
    if not _COMPACT.fullmatch(text):
        raise VerificationError("the token is not three base64url parts without padding")
    first, second, third = text.split(".")
    try:
        header = strict_json.loads_object(base64url.decode(first))
        payload, signature = base64url.decode(second), base64url.decode(third)
    except FormatError as e:
        raise VerificationError(f"the token cannot be read: {e}") from None
    _check_header(header, typ)
    return Token(header, payload, f"{first}.{second}".encode("ascii"), signature)


def _check_header(header: dict[str, Any], typ: frozenset[str]) -> None:
    found = header.get("typ")
    if not isinstance(found, str) or found.lower().removeprefix("application/") not in typ:
        raise VerificationError(f"the token's typ is {found!r}, expected {' or '.join(sorted(typ))}")
    if header.get("alg") not in ("EdDSA", "Ed25519", "ES256"):
        raise VerificationError(f"the token's alg is {header.get('alg')!r}, expected EdDSA, Ed25519 or ES256")
    if not isinstance(header.get("kid"), str):
        raise VerificationError("the token's header has no kid")
    for name in ("crit", "b64", "zip"):
        if name in header:
            raise VerificationError(f"the token's header has {name!r}, which is not understood here")


def verify_signature(token: Token, key: PublicKey) -> None:
    """Raises VerificationError unless `token` was signed by `key` with the algorithm that this key has."""
    verify_raw(str(token.header["alg"]), token.signing_input, token.signature, key)


def verify_raw(alg: str, data: bytes, signature: bytes, key: PublicKey) -> None:
    """Raises VerificationError unless `signature` over `data` is of `key` and `alg` belongs to that key."""
    if len(signature) != 64:
        raise VerificationError(f"the signature has {len(signature)} octets, expected 64")
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and alg in ("EdDSA", "Ed25519"):
            key.verify(signature, data)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) and alg == "ES256":
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
        else:
            raise VerificationError(f"the token's alg {alg!r} does not belong to its key")
    except InvalidSignature:
        raise VerificationError("the signature is wrong") from None


def verify_compact(
    text: str, *, typ: frozenset[str], resolve: Callable[[str], PublicKey], max_bytes: int = MAX_TOKEN
) -> Token:
    """Parse, find the key by `kid` (`resolve` raises VerificationError for an unknown one), verify."""
    token = parse_compact(text, typ=typ, max_bytes=max_bytes)
    verify_signature(token, resolve(token.kid))
    return token


def raw_ecdsa(der_signature: bytes) -> bytes:
    """The 64-octet JWS form (RFC 7518 section 3.4) of a DER ECDSA signature over P-256."""
    r, s = decode_dss_signature(der_signature)
    return r.to_bytes(32) + s.to_bytes(32)
