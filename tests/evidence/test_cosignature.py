"""Cosignatures of witnesses: the bytes of the specification, and what must not count."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.cosignature import Cosigner, read_witnesses
from lictor.formats.cosignature import CheckpointPolicy, Witness
from lictor.formats.errors import FormatError, UsageError, VerificationError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in range(1, 5)]
COSIGNERS = [Cosigner(f"w{i}.example", KeySigner.of(key)) for i, key in enumerate(KEYS, 1)]
WITNESSES = tuple(cosigner.witness for cosigner in COSIGNERS)
NOTE = CheckpointSigner("log.example", KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))).sign(7, bytes(32))
TEXT = parse_note(NOTE).text


def test_the_bytes_are_those_of_the_specification() -> None:
    line = COSIGNERS[0].sign(TEXT, 1679315147)
    dash, name, encoded = line.rstrip("\n").split(" ")
    raw, public = base64.b64decode(encoded), KEYS[0].public_key().public_bytes_raw()
    assert (dash, name, len(raw)) == ("\u2014", "w1.example", 4 + 8 + 64)
    assert raw[:4] == hashlib.sha256(b"w1.example\n\x04" + public).digest()[:4]
    assert int.from_bytes(raw[4:12]) == 1679315147
    KEYS[0].public_key().verify(raw[12:], b"cosignature/v1\ntime 1679315147\n" + TEXT.encode())
    assert str(WITNESSES[0]) == f"w1.example+{raw[:4].hex()}+{base64.b64encode(bytes([4]) + public).decode()}"
    assert Witness.parse(str(WITNESSES[0])) == WITNESSES[0]


def test_a_quorum_counts_each_witness_once() -> None:
    policy = CheckpointPolicy(WITNESSES[:3], 2)
    one = COSIGNERS[0].sign(TEXT, 1)
    assert not policy.holds(parse_note(NOTE))
    assert not policy.holds(parse_note(NOTE + one))
    assert not policy.holds(parse_note(NOTE + one + COSIGNERS[0].sign(TEXT, 2)))
    assert not policy.holds(parse_note(NOTE + one + COSIGNERS[3].sign(TEXT, 1)))
    good = parse_note(NOTE + one + COSIGNERS[2].sign(TEXT, 9))
    assert policy.holds(good)
    assert policy.signers(good) == ("w1.example", "w3.example")


def _changed(line: str, at: int) -> str:
    raw = bytearray(base64.b64decode(line.split(" ")[2]))
    raw[at] ^= 1
    return f"\u2014 w1.example {base64.b64encode(raw).decode()}\n"


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("another time", _changed(COSIGNERS[0].sign(TEXT, 5), 11)),
        ("another signature", _changed(COSIGNERS[0].sign(TEXT, 5), 40)),
        ("another checkpoint", COSIGNERS[0].sign(TEXT.replace("7", "8"), 5)),
        ("too short", COSIGNERS[0].sign(TEXT, 5)[:80] + "AA==\n"),
    ],
)
def test_a_wrong_cosignature_of_a_known_witness_is_an_error(case: str, line: str) -> None:
    with pytest.raises((VerificationError, FormatError)):
        CheckpointPolicy(WITNESSES[:1], 1).holds(parse_note(NOTE + line))


def test_a_plain_signature_by_a_witness_key_is_no_cosignature() -> None:
    plain = CheckpointSigner("w1.example", KeySigner.of(KEYS[0])).sign(7, bytes(32)).splitlines(keepends=True)[-1]
    assert CheckpointPolicy(WITNESSES[:1], 1).signers(parse_note(NOTE + plain)) == ()


def test_policies_that_mean_nothing_are_refused() -> None:
    for quorum in (0, 3):
        with pytest.raises(UsageError, match="cannot be asked of 2"):
            CheckpointPolicy(WITNESSES[:2], quorum)
    twin = Cosigner("other.example", KeySigner.of(KEYS[0])).witness
    with pytest.raises(UsageError, match="same key"):
        CheckpointPolicy((WITNESSES[0], twin), 1)


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "witnesses"
    path.write_text(f"# ours\n{WITNESSES[0]}\n\n{WITNESSES[1]}\n")
    assert read_witnesses(path) == WITNESSES[:2]
    path.write_text("# none\n")
    with pytest.raises(UsageError, match="holds no verifier key"):
        read_witnesses(path)
    path.write_text(f"{WITNESSES[0]}\nlog.example+00000000+AQ==\n")
    with pytest.raises(UsageError, match="line 2"):
        read_witnesses(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_witnesses(tmp_path / "none")
