"""Signed notes and checkpoints: the vector of C2SP, our own round trip, and notes that must be refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence.checkpoint import (
    Checkpoint,
    CheckpointSigner,
    Verifier,
    parse_checkpoint,
    verify_checkpoint,
    verify_note,
)
from lictor.formats.errors import FormatError, UsageError, VerificationError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "c2sp" / "signed-note-vector.json").read_bytes())
ORIGIN = "example.test/monitor/one"
ROOT = bytes(range(32))
SIGNER = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
NOTES = CheckpointSigner(ORIGIN, SIGNER)
KNOWN = [NOTES.verifier]
NOTE = NOTES.sign(7, ROOT)
LINE = NOTE.split("\n\n")[1]


def test_vector_verifies() -> None:
    verifier = Verifier.parse(VECTOR["vkey"])
    assert str(verifier) == VECTOR["vkey"]
    assert verify_note(VECTOR["note"], [verifier]).text == "This is an example message.\n"


def test_vector_with_an_altered_text_is_refused() -> None:
    with pytest.raises(VerificationError, match=r"example\.com/foo.*wrong"):
        verify_note(VECTOR["note"].replace("example m", "Example m"), [Verifier.parse(VECTOR["vkey"])])


def test_round_trip() -> None:
    assert verify_checkpoint(NOTE, ORIGIN, KNOWN) == Checkpoint(ORIGIN, 7, ROOT)
    assert NOTE.startswith(f"{ORIGIN}\n7\n{base64.b64encode(ROOT).decode()}\n\n\u2014 {ORIGIN} ")


def test_lines_of_unknown_keys_are_ignored() -> None:
    stranger = CheckpointSigner("witness.test", KeySigner.of(Ed25519PrivateKey.generate())).sign(7, ROOT)
    note = NOTE + stranger.split("\n\n")[1]
    assert verify_checkpoint(note, ORIGIN, KNOWN).size == 7


def test_a_known_key_that_signed_wrongly_spoils_the_note() -> None:
    second = CheckpointSigner("witness.test", KeySigner.of(Ed25519PrivateKey.generate()))
    note = NOTE + second.sign(8, ROOT).split("\n\n")[1]
    with pytest.raises(VerificationError, match=r"witness\.test"):
        verify_checkpoint(note, ORIGIN, [*KNOWN, second.verifier])


def test_a_note_of_unknown_keys_only_is_refused() -> None:
    stranger = CheckpointSigner(ORIGIN, KeySigner.of(Ed25519PrivateKey.generate()))
    with pytest.raises(VerificationError, match="no known key signed the note"):
        verify_checkpoint(stranger.sign(7, ROOT), ORIGIN, KNOWN)


def test_the_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(VerificationError, match=r"the log 'example\.test/monitor/one', expected 'other\.test'"):
        verify_checkpoint(NOTE, "other.test", KNOWN)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        pytest.param("", "not a signed note", id="empty"),
        pytest.param(NOTE.split("\n\n")[0] + "\n", "not a signed note", id="no signature"),
        pytest.param(NOTE[:-1], "not a signed note", id="no final line feed"),
        pytest.param(NOTE.replace("\u2014 ", "- "), "not a signature line", id="hyphen for the dash"),
        pytest.param(NOTE.replace("\n", "\r\n"), "control character", id="carriage returns"),
        pytest.param(NOTE.replace(f"\u2014 {ORIGIN}", "\u2014 a+b"), "not a signature line", id="plus in the name"),
        pytest.param(NOTE.replace(LINE, LINE[:-3] + "!\n"), "not base64", id="signature not base64"),
        pytest.param(NOTE.replace(LINE, f"\u2014 {ORIGIN} AAAA\n"), "holds no signature", id="signature empty"),
        pytest.param(NOTE + LINE * 16, "17 signatures, more than 16", id="too many signatures"),
        pytest.param("x" * 70_000, "more than 65536", id="too long"),
    ],
)
def test_bad_note(note: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_note(note)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a\n7\n", "three lines", id="no root"),
        pytest.param("a\n\n7\n", "three lines", id="empty line"),
        pytest.param("a\n07\nAAAA\n", "leading zeros", id="leading zero"),
        pytest.param("a\n-1\nAAAA\n", "leading zeros", id="negative"),
        pytest.param("a\n\u0667\nAAAA\n", "leading zeros", id="arabic digit"),
        pytest.param("a\n7\nAAAA\n", "root has 3 octets, expected 32", id="short root"),
        pytest.param("a\n7\n" + "A" * 42 + "B=\n", "one spelling", id="stray bits"),
    ],
)
def test_bad_checkpoint(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_checkpoint(parse_note(f"{text}\n{LINE}"))


def test_extension_lines_are_ignored() -> None:
    root = base64.b64encode(ROOT).decode()
    assert parse_checkpoint(parse_note(f"a\n0\n{root}\nextra\n\n{LINE}")) == Checkpoint("a", 0, ROOT)


@pytest.mark.parametrize("origin", ["", "with space", "with+plus", "line\nfeed", "no\u00a0break"])
def test_origin_that_cannot_name_a_key(origin: str) -> None:
    with pytest.raises(UsageError, match="cannot name a key"):
        CheckpointSigner(origin, SIGNER)


def test_a_key_that_is_not_ed25519_cannot_sign_checkpoints() -> None:
    with pytest.raises(UsageError, match="Ed25519"):
        CheckpointSigner(ORIGIN, KeySigner.of(ec.generate_private_key(ec.SECP256R1())))


@pytest.mark.parametrize(
    "vkey",
    ["", "a", "a+00000000+", "a b+530d903a+x", VECTOR["vkey"].replace("530d903a", "530d903b"), VECTOR["vkey"][:-4]],
)
def test_bad_verifier_key(vkey: str) -> None:
    with pytest.raises(FormatError):
        Verifier.parse(vkey)
