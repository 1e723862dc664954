"""The published vectors for BETs and ECTs: our verifier accepts and refuses exactly what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joserfc.jws
import jwt
import pytest
from joserfc.jwk import import_key

from lictor.evidence import bet, ect
from lictor.evidence.windows import DEFAULT_DENY, Window
from lictor.formats import strict_json
from lictor.formats.canonical import canonical
from lictor.formats.errors import FormatError, VerificationError
from lictor.formats.jws import PublicKey
from lictor.formats.keys import from_jwk

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = {kind: json.loads((VECTORS / kind / "vectors.json").read_text()) for kind in ("bet", "ect")}
JWKS = json.loads((VECTORS / "keys.json").read_text())["keys"]
KEYS = {(jwk["kid"], jwk["iss"]): from_jwk({name: value for name, value in jwk.items() if name != "d"}) for jwk in JWKS}
VERIFY: dict[str, Callable[..., Any]] = {"bet": bet.verify, "ect": ect.verify}
ALL = [pytest.param(kind, v, id=f"{kind}-{v['name']}") for kind, file in FILES.items() for v in file["vectors"]]
NOT_THE_SIGNATURE = ("signature is wrong", "no key", "is not for us")
ABOUT_KEYS = {
    "unknown-kid": "no key",
    "kid-of-another-issuer": "no key",
    "signed-by-another-key": "signature is wrong",
    "changed-claim": "signature is wrong",
    "wrong-audience": "is not for us",
}


def resolve(kid: str, iss: str, at: float | None = None) -> PublicKey:
    try:
        return KEYS[kid, iss]
    except KeyError:
        raise VerificationError(f"no key {kid} of {iss}") from None


@pytest.mark.parametrize(("kind", "vector"), ALL)
def test_vector(kind: str, vector: dict[str, Any]) -> None:
    file = FILES[kind]

    def verify() -> Any:
        return VERIFY[kind](vector["token"], resolve, now=file["now"], audience=file["audience"])

    if vector["good"]:
        verify()
        return
    with pytest.raises((VerificationError, FormatError)) as refused:
        verify()
    text = str(refused.value)
    expected = ABOUT_KEYS.get(vector["name"])
    if expected is not None:
        assert expected in text
    else:
        assert not any(part in text for part in NOT_THE_SIGNATURE), "refused for something else than it is made to show"


@pytest.mark.parametrize(("kind", "vector"), [p for p in ALL if p.values[1]["good"]])
def test_other_libraries_accept_the_signature_of_good_ones(kind: str, vector: dict[str, Any]) -> None:
    header = jwt.get_unverified_header(vector["token"])
    [jwk] = [jwk for jwk in JWKS if jwk["kid"] == header["kid"]]
    public = {name: value for name, value in jwk.items() if name not in ("d", "iss")}
    with warnings.catch_warnings(action="ignore"):  # joserfc says that RFC 9864 has another name for EdDSA
        found = joserfc.jws.deserialize_compact(vector["token"], import_key(public), algorithms=[header["alg"]])
    assert json.loads(found.payload)["jti"]
    if header["alg"] != "Ed25519":  # a name that PyJWT does not know
        unchecked = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
        assert jwt.decode(vector["token"], jwt.PyJWK(public), [header["alg"]], options=unchecked)["jti"]


def test_the_evidence_of_the_entries_is_what_our_windows_compute() -> None:
    with_entries = [v for v in FILES["bet"]["vectors"] if "entries" in v]
    assert len(with_entries) == 3
    for vector in with_entries:
        window = Window("spiffe://example.test/agent/a", DEFAULT_DENY, 0.0, 0, None)
        for text in vector["entries"]:
            entry = strict_json.loads_object(text.encode())
            assert canonical(entry) == text.encode()
            window.add(entry["seq"], text.encode())
        found = bet.verify(vector["token"], resolve, now=FILES["bet"]["now"])
        assert found.evidence == window.evidence()


def test_every_vector_is_named_once() -> None:
    for file in FILES.values():
        names = [vector["name"] for vector in file["vectors"]]
        assert len(set(names)) == len(names) > 40
        assert len({vector["token"] for vector in file["vectors"]}) == len(names)


def test_the_script_makes_these_very_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(VECTORS / "generate.py"), str(tmp_path)], check=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [str(path) for path in made] == [
        *("bet/README.md", "bet/vectors.json", "ect/README.md", "ect/vectors.json", "keys.json"),
    ]
    for path in made:
        assert (tmp_path / path).read_bytes() == (VECTORS / path).read_bytes(), f"{path}: run tests/vectors/generate.py"
