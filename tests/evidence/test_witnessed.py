"""The line that shows who witnessed the log behind a BET: its form, and everything that must not pass for one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence import bet
from lictor.evidence.bet import Bet
from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.claims import KeyResolver, new_id
from lictor.evidence.cosignature import Cosigner
from lictor.evidence.merkle import consistency_proof, leaf_hash, root
from lictor.evidence.witnessed import MAX_LINE, WitnessedLine, verify_line
from lictor.formats import base64url
from lictor.formats.errors import FormatError, VerificationError
from lictor.formats.jws import PublicKey
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note

PEER = "spiffe://example.test/monitor/one"
ORIGIN = PEER.removeprefix("spiffe://")
OLD, SIZE = 5, 13
LEAVES = [leaf_hash(bytes([number])) for number in range(20)]
NOW = 1_790_000_000
STRANGER = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32))
COSIGNER = Cosigner("w.example", KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)))


def resting_on(signer: KeySigner, size: int = SIZE, tree_root: bytes | None = None, **ext: Any) -> Bet:
    """A BET over the log's first `size` entries."""
    rests = {"checkpoint_size": size, "checkpoint_root": base64url.encode(tree_root or root(LEAVES[:size])), **ext}
    claims = {
        "iss": PEER,
        "sub": "spiffe://example.test/agent/a",
        "aud": ["x"],
        "iat": NOW,
        "exp": NOW + 3600,
        "jti": new_id(),
        "wid": new_id(),
        "exec_act": "behavioral_verification",
        "pred": [new_id()],
        "bhv_policy": "urn:p",
        "bhv_result": "pass",
        "bhv_evidence": bet.EMPTY_EVIDENCE,
        "bhv_window": {"start": NOW - 1, "end": NOW},
        "ext": {name: value for name, value in rests.items() if value is not None},
    }
    return bet.verify(bet.issue(claims, signer), lambda kid, iss, at=None: signer.public_key())


def note_of(signer: KeySigner, size: int = OLD, origin: str = ORIGIN, leaves: list[bytes] = LEAVES) -> str:
    note = CheckpointSigner(origin, signer).sign(size, root(leaves[:size]))
    return note + COSIGNER.sign(parse_note(note).text, NOW)


def line_of(signer: KeySigner, **changes: Any) -> WitnessedLine:
    proof = tuple(consistency_proof(LEAVES[:SIZE], OLD))
    return replace(WitnessedLine(note_of(signer), SIZE, proof), **changes)


def test_it_holds_and_gives_the_note(signer: KeySigner, keys: KeyResolver) -> None:
    line = line_of(signer)
    assert WitnessedLine.parse(line.text()) == line
    assert verify_line(line.text(), [resting_on(signer), resting_on(signer)], PEER, keys) == line.note
    same = replace(line, note=note_of(signer, SIZE), proof=())
    assert verify_line(same.text(), [resting_on(signer)], PEER, keys) == same.note


def changed(at: int) -> Callable[[KeySigner], WitnessedLine]:
    def change(signer: KeySigner) -> WitnessedLine:
        line = line_of(signer)
        proof = list(line.proof)
        proof[at] = bytes(32)
        return replace(line, proof=tuple(proof))

    return change


OTHER = [leaf_hash(b"another history"), *LEAVES[1:]]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        pytest.param(lambda s: line_of(s, size=SIZE - 1), "the proof leads to 12 entries", id="proof for another size"),
        pytest.param(lambda s: line_of(s, proof=()), "does not show", id="no proof"),
        pytest.param(changed(0), "does not show", id="first hash changed"),
        pytest.param(changed(-1), "does not show", id="last hash changed"),
        pytest.param(lambda s: line_of(s, proof=(*line_of(s).proof, bytes(32))), "does not show", id="a hash too many"),
        pytest.param(lambda s: line_of(s, note=note_of(s, OLD - 1)), "does not show", id="a staler note than proved"),
        pytest.param(lambda s: line_of(s, note=note_of(s, 17)), "does not show", id="note of a longer log"),
        pytest.param(lambda s: line_of(s, note=note_of(s, 0)), "does not show", id="note of the empty log"),
        pytest.param(
            lambda s: line_of(s, note=note_of(s, leaves=OTHER)), "does not show", id="note of a second history"
        ),
        pytest.param(
            lambda s: line_of(s, note=note_of(s, origin="example.test/monitor/two")),
            "no known key",
            id="of another log",
        ),
        pytest.param(lambda s: line_of(s, note=note_of(STRANGER)), "no known key", id="signed by another key"),
        pytest.param(lambda s: line_of(s, note=note_of(s).replace("\n5\n", "\n6\n")), "is wrong", id="text altered"),
        pytest.param(lambda s: line_of(s, note="no note"), "not a signed note", id="no note"),
        pytest.param(
            lambda s: line_of(s, note="a\n\n" + "\u2014 a aaaaaaaa\n" * 17), "17 signatures", id="17 signatures"
        ),
    ],
)
def test_what_is_refused(
    signer: KeySigner, keys: KeyResolver, made: Callable[[KeySigner], WitnessedLine], message: str
) -> None:
    with pytest.raises((VerificationError, FormatError), match=message):
        verify_line(made(signer).text(), [resting_on(signer)], PEER, keys)


@pytest.mark.parametrize(
    ("rests", "message"),
    [
        ({"tree_root": bytes(32)}, "does not show"),
        ({"size": SIZE + 1}, "rests on 14"),
        ({"checkpoint_size": None}, "does not say what tree"),
        ({"checkpoint_root": None}, "does not say what tree"),
        ({"checkpoint_root": "!"}, "base64url"),
    ],
)
def test_every_bet_must_rest_on_the_tree(
    signer: KeySigner, keys: KeyResolver, rests: dict[str, Any], message: str
) -> None:
    with pytest.raises((VerificationError, FormatError), match=message):
        verify_line(line_of(signer).text(), [resting_on(signer), resting_on(signer, **rests)], PEER, keys)


def test_a_bet_that_is_not_signed_with_ed25519_cannot_be_held_to_a_checkpoint() -> None:
    signer = KeySigner.of(ec.generate_private_key(ec.SECP256R1()))

    def resolve(kid: str, iss: str, at: float | None = None) -> PublicKey:
        return signer.public_key()

    with pytest.raises(VerificationError, match="Ed25519"):
        verify_line(line_of(STRANGER).text(), [resting_on(signer)], PEER, resolve)


NOTE_64 = base64.b64encode(b"note").decode()
GOOD = f":{NOTE_64}:;size=13;proof=:{base64.b64encode(bytes(64)).decode()}:"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{GOOD} ", id="an octet more"),
        pytest.param(GOOD.replace(";size", "; size"), id="white space"),
        pytest.param(GOOD.replace(";size=13", ""), id="no size"),
        pytest.param(GOOD.replace("size=13", "size=013"), id="leading zero"),
        pytest.param(GOOD.replace("size=13", "size=0"), id="size zero"),
        pytest.param(GOOD.replace("size=13", f"size={'9' * 17}"), id="size of 17 digits"),
        pytest.param(GOOD.replace("size=13", "size=\u0661"), id="other digits"),
        pytest.param(f"{GOOD};x=1", id="a parameter more"),
        pytest.param(f":{NOTE_64}:;proof=::;size=13", id="another order"),
        pytest.param(f"{GOOD},{GOOD}", id="two items"),
        pytest.param(":AAA:;size=1;proof=::", id="no padding"),
        pytest.param(":AB==:;size=1;proof=::", id="stray bits"),
        pytest.param(f":{NOTE_64}:;size=1;proof=:AA==:", id="half a hash"),
        pytest.param(":__8=:;size=1;proof=::", id="another alphabet"),
        pytest.param(f":{base64.b64encode(bytes([255])).decode()}:;size=1;proof=::", id="not UTF-8"),
        pytest.param(WitnessedLine("x" * MAX_LINE, 1, ()).text(), id="oversize"),
    ],
)
def test_lines_that_have_another_form_are_none(line: str) -> None:
    assert WitnessedLine.parse(GOOD) == WitnessedLine("note", 13, (bytes(32), bytes(32)))
    with pytest.raises(FormatError):
        WitnessedLine.parse(line)


def test_a_line_of_very_many_witnesses_and_a_very_long_log_is_short_enough(signer: KeySigner) -> None:
    note = note_of(signer, 2**40 - 1, leaves=[])
    note += "".join(COSIGNER.sign(parse_note(note).text, NOW) for _ in range(14))
    assert len(WitnessedLine(note, 2**40, (bytes(32),) * 41).text()) < MAX_LINE
