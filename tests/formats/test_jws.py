"""Every way a token can be bad, and that the good ones are read by PyJWT and joserfc (and theirs by us)."""

import hashlib
import hmac
import json
from typing import Any

import joserfc.jws
import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import import_key

from lictor.formats import base64url, jws
from lictor.formats.errors import FormatError, VerificationError
from lictor.formats.keys import KeySigner, PrivateKey, to_jwk

TYP = frozenset(("bet+jwt",))
ED = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
EC = KeySigner.of(ec.generate_private_key(ec.SECP256R1()))
CLAIMS = {"iss": "spiffe://example.org/monitor/m", "iat": 1_700_000_000, "bhv_result": "pass"}
PAYLOAD = json.dumps(CLAIMS, separators=(",", ":")).encode()
both = pytest.mark.parametrize("signer", [ED, EC], ids=["EdDSA", "ES256"])


def resolve(kid: str) -> jws.PublicKey:
    for signer in (ED, EC):
        if signer.kid == kid:
            return signer.public_key()
    raise VerificationError(f"unknown kid {kid}")


def verify(token: str) -> jws.Token:
    return jws.verify_compact(token, typ=TYP, resolve=resolve)


def forge(header: Any, payload: bytes = PAYLOAD, signer: KeySigner = ED, signature: bytes | None = None) -> str:
    """A token with any header; signed by `signer` unless a signature is given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    signing_input = f"{base64url.encode(text)}.{base64url.encode(payload)}"
    raw = signer.sign(signing_input.encode()) if signature is None else signature
    return f"{signing_input}.{base64url.encode(raw)}"


def good_header(signer: KeySigner = ED, **more: Any) -> dict[str, Any]:
    return {"typ": "bet+jwt", "alg": signer.alg, "kid": signer.kid, **more}


@both
def test_a_signed_token_verifies(signer: KeySigner) -> None:
    token = verify(jws.sign_compact({"typ": "bet+jwt"}, PAYLOAD, signer))
    assert token.claims() == CLAIMS
    assert token.header == good_header(signer)


def test_forged_header_helper_makes_good_tokens() -> None:
    assert verify(forge(good_header())).claims() == CLAIMS
    assert verify(forge(good_header(typ="application/BET+JWT"))).claims() == CLAIMS
    assert verify(forge(good_header(alg="Ed25519"))).claims() == CLAIMS


@both
def test_py_jwt_reads_our_tokens(signer: KeySigner) -> None:
    token = jws.sign_compact({"typ": "bet+jwt"}, PAYLOAD, signer)
    assert jwt.decode(token, signer.public_key(), algorithms=[signer.alg], options={"verify_iat": False}) == CLAIMS


@both
def test_joserfc_reads_our_tokens(signer: KeySigner) -> None:
    token = jws.sign_compact({"typ": "bet+jwt"}, PAYLOAD, signer)
    key = import_key(to_jwk(signer.public_key()))
    found = joserfc.jws.deserialize_compact(token, key, algorithms=[signer.alg])
    assert found.payload == PAYLOAD


@both
def test_we_read_the_tokens_of_py_jwt(signer: KeySigner) -> None:
    header = {"typ": "bet+jwt", "kid": signer.kid}
    token = jwt.encode(CLAIMS, signer.key, algorithm=signer.alg, headers=header)
    assert verify(token).claims() == CLAIMS


def _hs256_with(secret: bytes) -> str:
    text = f"{base64url.encode(json.dumps(good_header(alg='HS256')).encode())}.{base64url.encode(PAYLOAD)}"
    return f"{text}.{base64url.encode(hmac.digest(secret, text.encode(), hashlib.sha256))}"


_PEM = ED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
_RAW = ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
_GOOD = forge(good_header())
_GOOD_EC = forge(good_header(EC), signer=EC)
_NO_KID = {"typ": "bet+jwt", "alg": "EdDSA"}


def _changed(token: str, part: int) -> str:
    parts = token.split(".")
    first = "A" if parts[part][10] != "A" else "B"
    parts[part] = parts[part][:10] + first + parts[part][11:]
    return ".".join(parts)


@pytest.mark.parametrize(
    ("token", "complaint"),
    [
        pytest.param(forge(good_header(alg="none"), signature=b""), "not three base64url parts", id="alg none"),
        pytest.param(forge(good_header(alg="none")), "alg is 'none'", id="alg none with a signature"),
        pytest.param(forge(good_header(alg="NONE")), "alg is 'NONE'", id="alg NONE"),
        pytest.param(_hs256_with(_PEM), "alg is 'HS256'", id="HS256 with the public key as PEM as secret"),
        pytest.param(_hs256_with(_RAW), "alg is 'HS256'", id="HS256 with the raw public key as secret"),
        pytest.param(forge(good_header(alg="RS256")), "alg is 'RS256'", id="RS256"),
        pytest.param(forge(good_header(alg=None)), "alg is None", id="alg null"),
        pytest.param(forge(good_header(alg=["EdDSA"])), "alg is", id="alg a list"),
        pytest.param(forge(good_header(alg="ES256")), "does not belong to its key", id="ES256 said of an Ed25519 key"),
        pytest.param(forge(good_header(EC, alg="EdDSA"), signer=EC), "does not belong", id="EdDSA said of an EC key"),
        pytest.param(forge(good_header(typ="JWT")), "typ is 'JWT', expected bet", id="other typ"),
        pytest.param(forge(good_header(typ="wimse-exec+jwt")), "typ is 'wimse-exec", id="an ECT for a BET"),
        pytest.param(forge({"alg": "EdDSA", "kid": ED.kid}), "typ is None", id="no typ"),
        pytest.param(forge(good_header(typ=["bet+jwt"])), "typ is", id="typ a list"),
        pytest.param(forge(good_header(crit=["exp"], exp=1)), "'crit', which is not understood", id="crit"),
        pytest.param(forge(good_header(crit=[])), "'crit'", id="crit empty"),
        pytest.param(forge(good_header(b64=False)), "'b64'", id="b64"),
        pytest.param(forge(good_header(zip="DEF")), "'zip'", id="zip"),
        pytest.param(forge(_NO_KID), "no kid", id="no kid"),
        pytest.param(forge({**_NO_KID, "kid": 7}), "no kid", id="kid a number"),
        pytest.param(forge(good_header(kid="someone")), "unknown kid", id="unknown kid"),
        pytest.param(_GOOD + "=", "not three base64url parts", id="padded signature"),
        pytest.param(_GOOD.replace(".", "=.", 1), "not three base64url parts", id="padded header"),
        pytest.param(_GOOD + "\n", "not three base64url parts", id="newline at the end"),
        pytest.param(" " + _GOOD, "not three base64url parts", id="space before"),
        pytest.param(_GOOD + ".AAAA", "not three base64url parts", id="four parts"),
        pytest.param(_GOOD.rpartition(".")[0], "not three base64url parts", id="two parts"),
        pytest.param("", "not three base64url parts", id="empty"),
        pytest.param("é.é.é", "not three base64url parts", id="not ASCII"),
        pytest.param(_GOOD.replace("-", "+").replace("_", "/") + "+", "not three", id="plain base64"),
        pytest.param(
            forge(b'{"typ":"bet+jwt","alg":"EdDSA","alg":"none","kid":"x"}'), "'alg' stands twice", id="alg twice"
        ),
        pytest.param(forge(b"[]"), "not an object", id="header a list"),
        pytest.param(forge(b"\xff"), "not UTF-8", id="header not UTF-8"),
        pytest.param(forge(good_header(), signature=bytes(63)), "63 octets, expected 64", id="Ed25519 too short"),
        pytest.param(forge(good_header(), signature=bytes(64)), "signature is wrong", id="signature of zeros"),
        pytest.param(forge(good_header(EC), signature=bytes(64)), "signature is wrong", id="ES256 of zeros"),
        pytest.param(forge(good_header(EC), signature=bytes(66)), "66 octets, expected 64", id="ES256 with 66 octets"),
        pytest.param(
            forge(good_header(EC), signature=bytes(514)), "514 octets, expected 64", id="ES256 with 514 octets"
        ),
        pytest.param(forge(good_header(kid=EC.kid, alg="ES256")), "signature is wrong", id="signed by another key"),
        pytest.param(_changed(_GOOD, 1), "signature is wrong", id="payload changed"),
        pytest.param(_changed(_GOOD, 2), "signature is wrong", id="signature changed"),
        pytest.param(_changed(_GOOD_EC, 2), "signature is wrong", id="ES256 signature changed"),
        pytest.param("A" * (jws.MAX_TOKEN + 1), "more than 65536", id="too long"),
    ],
)
def test_a_bad_token_is_refused(token: str, complaint: str) -> None:
    with pytest.raises(VerificationError, match=complaint):
        verify(token)


def test_es256_in_der_is_refused() -> None:
    key = EC.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    token = forge(good_header(EC), signature=key.sign(b"x", ec.ECDSA(hashes.SHA256())))
    with pytest.raises(VerificationError, match="octets, expected 64"):
        verify(token)


def test_es256_with_zero_padding_is_refused() -> None:
    """The signature itself is right; the 66 octets of P-521 around it would make the token malleable."""
    good = base64url.decode(_GOOD_EC.rpartition(".")[2])
    padded = bytes(1) + good[:32] + bytes(1) + good[32:]
    with pytest.raises(VerificationError, match="66 octets, expected 64"):
        verify(f"{_GOOD_EC.rpartition('.')[0]}.{base64url.encode(padded)}")


@pytest.mark.parametrize(
    "payload", [b'{"iss":"a","iss":"b"}', b"[]", b"not json", b'{"exp":NaN}', b'{"exp":1e999}', b""]
)
def test_claims_are_strict(payload: bytes) -> None:
    token = verify(forge(good_header(), payload))
    with pytest.raises(FormatError):
        token.claims()


@both
def test_alg_and_kid_follow_from_the_signer(signer: KeySigner) -> None:
    token = jws.sign_compact({"typ": "bet+jwt", "alg": "none", "kid": "x"}, PAYLOAD, signer)
    assert verify(token).header == good_header(signer)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()])
def test_other_curves_do_not_verify(curve: ec.EllipticCurve) -> None:
    key: PrivateKey = ec.generate_private_key(curve)
    with pytest.raises(VerificationError, match="does not belong to its key"):
        jws.verify_raw("ES256", b"x", bytes(64), key.public_key())
