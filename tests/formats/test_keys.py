import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import import_key

from lictor.formats import base64url
from lictor.formats.errors import FormatError, UsageError
from lictor.formats.keys import KeySigner, PrivateKey, from_jwk, read_private, thumbprint, to_jwk, write_private

KEYS = {"Ed25519": ed25519.Ed25519PrivateKey.generate(), "P-256": ec.generate_private_key(ec.SECP256R1())}
both = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


@both
def test_jwk_comes_back_as_the_same_key(key: PrivateKey) -> None:
    assert from_jwk(to_jwk(key.public_key())) == key.public_key()


@both
def test_other_libraries_read_our_jwk(key: PrivateKey) -> None:
    jwk = to_jwk(key.public_key())
    assert import_key(jwk).thumbprint() == jwk["kid"]
    assert jwt.PyJWK(jwk).key == key.public_key()


def test_thumbprint_of_rfc_8037() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(from_jwk(jwk)) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


_ED = to_jwk(KEYS["Ed25519"].public_key())
_EC = to_jwk(KEYS["P-256"].public_key())


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param({**_ED, "d": "AAAA"}, id="private"),
        pytest.param({"kty": "oct", "k": "AAAA"}, id="symmetric"),
        pytest.param({**_ED, "use": "enc"}, id="for encryption"),
        pytest.param({**_ED, "alg": "HS256"}, id="for HS256"),
        pytest.param({**_ED, "key_ops": ["sign"]}, id="key_ops without verify"),
        pytest.param({**_ED, "x": _ED["x"] + "="}, id="padded"),
        pytest.param({**_ED, "x": _ED["x"][:-2]}, id="too short"),
        pytest.param({**_ED, "x": 5}, id="x is a number"),
        pytest.param({**_ED, "crv": "Ed448"}, id="other curve"),
        pytest.param({**_EC, "crv": "P-384"}, id="P-384"),
        pytest.param({**_EC, "y": _EC["x"]}, id="not on the curve"),
        pytest.param(
            {**_EC, "x": base64url.encode(bytes(1) + base64url.decode(_EC["x"]))}, id="coordinate of 33 octets"
        ),
        pytest.param({k: v for k, v in _EC.items() if k != "y"}, id="no y"),
        pytest.param({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, id="RSA"),
        pytest.param({}, id="empty"),
        pytest.param({**_ED, "key_ops": 7}, id="key_ops is a number"),
        pytest.param({**_ED, "kty": ["OKP"]}, id="kty is a list"),
    ],
)
def test_bad_jwk_is_refused(jwk: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        from_jwk(json.loads(json.dumps(jwk)))


@both
def test_key_files_are_ours_alone(tmp_path: Path, key: PrivateKey) -> None:
    path = tmp_path / "a.key"
    write_private(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeySigner.from_file(path).kid == thumbprint(key.public_key())
    with pytest.raises(FileExistsError):
        write_private(path, key)
    path.chmod(0o640)
    with pytest.raises(UsageError, match=r"open to others \(mode 0640\): run chmod 600"):
        read_private(path)


def test_key_files_that_are_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_private(tmp_path / "missing.key")
    path = tmp_path / "b.key"
    path.touch(0o600)
    with pytest.raises(UsageError, match="not a private key in PEM"):
        read_private(path)
    rsa_key = rsa.generate_private_key(65537, 2048)
    path.write_bytes(rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UsageError, match="neither Ed25519 nor EC on P-256"):
        read_private(path)


def test_a_key_on_another_curve_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.key"
    write_private(path, ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(UsageError, match="P-256"):
        read_private(path)
