import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.bindings.registry import load_directory
from lictor.bindings.signing import sign, signature_path
from lictor.formats.errors import UsageError, VerificationError
from lictor.formats.keys import KeySigner

SIGNER = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
OTHER = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
KEYS = {SIGNER.kid: SIGNER.public_key()}
DRAFT = json.loads((Path(__file__).parent / "data" / "good" / "the_example_of_the_draft.json").read_bytes())


def put(directory: Path, name: str, policy: str, signer: KeySigner | None = SIGNER) -> Path:
    file = directory / f"{name}.json"
    document = {**DRAFT, "policy_id": f"urn:example:policy:{policy}"}
    file.write_text(json.dumps(document))
    if signer is not None:
        signature_path(file).write_text(sign(document, signer) + "\n")
    return file


def test_signed_bindings_load_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, "b", "one")
    put(tmp_path, "a", "two")
    (tmp_path / "README.md").write_text("not a binding")
    assert [b.policy_id for b in load_directory(tmp_path, KEYS)] == ["urn:example:policy:two", "urn:example:policy:one"]


def test_an_empty_directory_is_no_binding(tmp_path: Path) -> None:
    assert load_directory(tmp_path, KEYS) == ()


def test_unsigned_is_refused_unless_allowed(tmp_path: Path) -> None:
    file = put(tmp_path, "a", "one", signer=None)
    with pytest.raises(UsageError, match=f"{file} is not signed: run lictor binding sign {file}"):
        load_directory(tmp_path, KEYS)
    assert len(load_directory(tmp_path, {}, allow_unsigned=True)) == 1


@pytest.mark.parametrize("allow_unsigned", [False, True])
def test_a_wrong_signature_is_never_allowed(tmp_path: Path, allow_unsigned: bool) -> None:
    file = put(tmp_path, "a", "one")
    file.write_text(file.read_text().replace("approved-1", "approved-9"))
    with pytest.raises(VerificationError, match=f"^{file}: the signature is wrong"):
        load_directory(tmp_path, KEYS, allow_unsigned)


def test_a_foreign_signature_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a", "one", signer=OTHER)
    with pytest.raises(VerificationError, match="not trusted here"):
        load_directory(tmp_path, KEYS)


def test_the_signature_of_one_binding_is_none_of_another(tmp_path: Path) -> None:
    a, b = put(tmp_path, "a", "one"), put(tmp_path, "b", "two")
    signature_path(b).write_text(signature_path(a).read_text())
    with pytest.raises(VerificationError, match=f"^{b}: the signature is wrong"):
        load_directory(tmp_path, KEYS)


def test_a_policy_id_stands_once(tmp_path: Path) -> None:
    a, b = put(tmp_path, "a", "one"), put(tmp_path, "b", "one")
    with pytest.raises(UsageError, match=f"^{b}: the policy_id urn:example:policy:one is already in {a}"):
        load_directory(tmp_path, KEYS)


def test_one_broken_binding_refuses_all(tmp_path: Path) -> None:
    put(tmp_path, "a", "one")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UsageError, match=r"b\.json: not JSON"):
        load_directory(tmp_path, KEYS)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the bindings directory .* cannot be read: No such file"):
        load_directory(tmp_path / "none", KEYS)


def test_a_binding_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(UsageError, match=r"a\.json cannot be read"):
        load_directory(tmp_path, KEYS, allow_unsigned=True)


def test_a_signature_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = put(tmp_path, "a", "one")
    signature_path(file).write_bytes(b"\xff..\xff")
    with pytest.raises(VerificationError):
        load_directory(tmp_path, KEYS)
