"""Public keys as JWK (RFC 7517, RFC 8037), thumbprints (RFC 7638), and private keys in files that only we can read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from . import base64url
from .canonical import canonical
from .errors import FormatError, UsageError
from .jws import PublicKey, raw_ecdsa

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def to_jwk(key: PublicKey) -> dict[str, Any]:
    """The required members of the key's JWK, `kid` (its thumbprint) and `alg`."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        jwk: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(raw)}
        alg = "EdDSA"
    else:
        numbers = key.public_numbers()
        x, y = (base64url.encode(n.to_bytes(32)) for n in (numbers.x, numbers.y))
        jwk, alg = {"kty": "EC", "crv": "P-256", "x": x, "y": y}, "ES256"
    return {**jwk, "kid": base64url.encode(hashlib.sha256(canonical(jwk)).digest()), "alg": alg, "use": "sig"}


def from_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    """Raises FormatError unless `jwk` is an Ed25519 or P-256 public key meant for signatures."""
    if "d" in jwk or "k" in jwk:
        raise FormatError("the JWK holds a private or symmetric key")
    key_ops = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(key_ops, list) or "verify" not in key_ops:
        raise FormatError("the JWK is not meant for verifying signatures (use, key_ops)")
    if jwk.get("alg", "EdDSA") not in ("EdDSA", "Ed25519", "ES256"):
        raise FormatError(f"the JWK is for the algorithm {jwk['alg']!r}, expected EdDSA, Ed25519 or ES256")
    try:
        if (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519"):
            return ed25519.Ed25519PublicKey.from_public_bytes(base64url.decode(jwk["x"]))
        if (jwk["kty"], jwk["crv"]) == ("EC", "P-256"):
            x, y = (base64url.decode(jwk[name]) for name in ("x", "y"))
            if len(x) != 32 or len(y) != 32:
                raise FormatError("a coordinate of P-256 has 32 octets")
            numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
            return numbers.public_key()
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise FormatError(f"the JWK is not a key: {e!r}") from None
    raise FormatError(f"the JWK has kty {jwk.get('kty')!r} and crv {jwk.get('crv')!r}, expected Ed25519 or P-256")


def thumbprint(key: PublicKey) -> str:
    """RFC 7638 thumbprint, base64url of SHA-256."""
    return str(to_jwk(key)["kid"])


def write_private(path: Path, key: PrivateKey) -> None:
    """Write the key as PKCS#8 PEM, readable by the owner only. Refuses to overwrite (FileExistsError)."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(pem)


def read_closed(path: Path) -> bytes:
    """A file with a private key in it. Raises UsageError if it cannot be read or is open to others."""
    try:
        with open(path, "rb") as f:
            mode = os.fstat(f.fileno()).st_mode
            pem = f.read()
    except OSError as e:
        raise UsageError(f"the key {path} cannot be read: {e.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"the key {path} is open to others (mode {stat.S_IMODE(mode):04o}): run chmod 600 {path}")
    return pem


def read_private(path: Path) -> PrivateKey:
    """Read a PKCS#8 PEM key. Raises UsageError if it is missing, of another kind, or open to others."""
    pem = read_closed(path)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as e:
        raise UsageError(f"{path} is not a private key in PEM without a password: {e}") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise UsageError(f"the key {path} is neither Ed25519 nor EC on P-256")


@dataclass(frozen=True, slots=True)
class KeySigner:
    """The `Signer` over a private key in memory."""

    key: PrivateKey
    kid: str
    alg: str

    @classmethod
    def of(cls, key: PrivateKey) -> KeySigner:
        """A signer whose kid is the key's RFC 7638 thumbprint."""
        jwk = to_jwk(key.public_key())
        return cls(key, jwk["kid"], jwk["alg"])

    @classmethod
    def from_file(cls, path: Path) -> KeySigner:
        """Raises UsageError (see `read_private`)."""
        return cls.of(read_private(path))

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        return raw_ecdsa(self.key.sign(data, ec.ECDSA(hashes.SHA256())))

    def public_key(self) -> PublicKey:
        return self.key.public_key()
