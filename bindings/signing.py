"""Signed bindings: a detached JWS (RFC 7515 appendix F) over the canonical form, in a file beside the binding.

The signature covers the RFC 8785 form, so white space and member order of the file may change and its meaning may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..formats import base64url, jws, strict_json
from ..formats.canonical import canonical
from ..formats.errors import FormatError, UsageError, VerificationError
from ..formats.keys import from_jwk, thumbprint

TYP = "binding+jws"
_MAX_TOKEN = 64 * 1024 * 1024


def signature_path(path: Path) -> Path:
    """Where the signature of a binding file stands: `<file>.sig`."""
    return path.with_name(path.name + ".sig")


def sign(document: Mapping[str, Any], signer: jws.Signer) -> str:
    """The detached JWS (`header..signature`) of a binding's object. Raises FormatError if it has no canonical form."""
    header, _, signature = jws.sign_compact({"typ": TYP}, canonical(dict(document)), signer).split(".")
    return f"{header}..{signature}"


def verify(document: Mapping[str, Any], signature: str, keys: Mapping[str, jws.PublicKey]) -> str:
    """Return the kid that signed. Raises VerificationError unless one of `keys` (by kid) signed exactly this."""
    parts = signature.split(".")
    if len(parts) != 3 or parts[1]:
        raise VerificationError("the signature is not a detached JWS (header..signature)")
    try:
        payload = base64url.encode(canonical(dict(document)))
    except FormatError as e:
        raise VerificationError(f"the binding has no canonical form: {e}") from None

    def resolve(kid: str) -> jws.PublicKey:
        if kid not in keys:
            raise VerificationError(f"the binding is signed by the key {kid!r}, which is not trusted here")
        return keys[kid]

    token = f"{parts[0]}.{payload}.{parts[2]}"
    return jws.verify_compact(token, typ=frozenset((TYP,)), resolve=resolve, max_bytes=_MAX_TOKEN).kid


def read_keys(path: Path) -> dict[str, jws.PublicKey]:
    """The public keys of a JWK or JWK Set file, by their thumbprint. Raises UsageError."""
    try:
        document = strict_json.loads_object(path.read_bytes())
        jwks = document.get("keys", [document])
        if not isinstance(jwks, list) or not jwks or not all(isinstance(jwk, dict) for jwk in jwks):
            raise FormatError("expected a JWK or a JWK Set with at least one key")
        keys = [from_jwk(jwk) for jwk in jwks]
    except OSError as e:
        raise UsageError(f"the key {path} cannot be read: {e.strerror}") from None
    except FormatError as e:
        raise UsageError(f"{path} is not a public key: {e}") from None
    return {thumbprint(key): key for key in keys}
