import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lictor.bindings.signing import read_keys, sign, signature_path, verify
from lictor.formats import base64url, jws
from lictor.formats.canonical import canonical
from lictor.formats.errors import UsageError, VerificationError
from lictor.formats.keys import KeySigner, to_jwk

SIGNER = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
OTHER = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
KEYS = {SIGNER.kid: SIGNER.public_key()}
DOCUMENT: dict[str, Any] = {"policy_id": "urn:example:p", "expected_behaviors": [{"a": 1, "b": "é"}]}
GOOD = sign(DOCUMENT, SIGNER)


def test_sign_and_verify() -> None:
    assert verify(DOCUMENT, GOOD, KEYS) == SIGNER.kid
    header = json.loads(base64url.decode(GOOD.partition("..")[0]))
    assert header == {"typ": "binding+jws", "alg": "EdDSA", "kid": SIGNER.kid}


def test_es256_is_allowed() -> None:
    signer = KeySigner.of(ec.generate_private_key(ec.SECP256R1()))
    assert verify(DOCUMENT, sign(DOCUMENT, signer), {signer.kid: signer.public_key()}) == signer.kid


def test_member_order_does_not_matter() -> None:
    verify(dict(reversed(DOCUMENT.items())), GOOD, KEYS)


def _attached(typ: str) -> str:
    header, _, signature = jws.sign_compact({"typ": typ}, canonical(DOCUMENT), SIGNER).split(".")
    return f"{header}..{signature}"


@pytest.mark.parametrize(
    ("document", "signature", "complaint"),
    [
        pytest.param({**DOCUMENT, "mode": "enforce"}, GOOD, "signature is wrong", id="member added"),
        pytest.param({**DOCUMENT, "policy_id": "urn:example:q"}, GOOD, "signature is wrong", id="member changed"),
        pytest.param(DOCUMENT, sign(DOCUMENT, OTHER), "which is not trusted here", id="key not trusted"),
        pytest.param(DOCUMENT, _attached("bet+jwt"), "typ is 'bet", id="signed as something else"),
        pytest.param(
            DOCUMENT, jws.sign_compact({"typ": "binding+jws"}, canonical(DOCUMENT), SIGNER), "detached", id="payload"
        ),
        pytest.param(DOCUMENT, "", "detached", id="empty"),
        pytest.param(DOCUMENT, "..", "token is not three", id="only dots"),
        pytest.param(DOCUMENT, GOOD + "=", "token is not three", id="padded"),
        pytest.param({"a": 10**30}, GOOD, "no canonical form", id="document without canonical form"),
    ],
)
def test_bad_signature(document: dict[str, Any], signature: str, complaint: str) -> None:
    with pytest.raises(VerificationError, match=complaint):
        verify(document, signature, KEYS)


def test_signature_stands_beside_the_file() -> None:
    assert signature_path(Path("bindings/a.json")) == Path("bindings/a.json.sig")


def test_read_keys(tmp_path: Path) -> None:
    path = tmp_path / "operator.jwk"
    path.write_text(json.dumps(to_jwk(SIGNER.public_key())))
    assert list(read_keys(path)) == [SIGNER.kid]
    path.write_text(json.dumps({"keys": [to_jwk(s.public_key()) for s in (SIGNER, OTHER)]}))
    assert set(read_keys(path)) == {SIGNER.kid, OTHER.kid}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys":[]}', '{"keys":[1]}', '{"keys":{}}', '{"kty":"oct","k":"AA"}']
)
def test_bad_key_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "operator.jwk"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"operator\.jwk is not a public key"):
        read_keys(path)


def test_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_keys(tmp_path / "operator.jwk")
