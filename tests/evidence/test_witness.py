"""A witness's answers, status by status, and what it never does: sign two histories, or forget."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.cosignature import Cosigner
from lictor.evidence.merkle import consistency_proof, leaf_hash, root
from lictor.evidence.witness import MAX_KEPT, AddCheckpoint, Answer, WitnessDesk, WitnessState
from lictor.formats.errors import FormatError, LedgerError, UsageError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note, parse_signature

ORIGIN = "log.example"
NOW = 1_700_000_000


def key(number: int) -> KeySigner:
    return KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


LOG, OTHER_KEY = CheckpointSigner(ORIGIN, key(1)), CheckpointSigner(ORIGIN, key(2))
COSIGNER = Cosigner("w.example", key(9))
TRUE = [leaf_hash(b"%d" % i) for i in range(40)]
FALSE = [*TRUE[:3], leaf_hash(b"rewritten"), *TRUE[4:]]


def request(old: int, size: int, leaves: list[bytes] = TRUE, signer: CheckpointSigner = LOG) -> bytes:
    proof = consistency_proof(leaves[:size], old) if 0 < old < size else []
    return AddCheckpoint(old, tuple(proof), signer.sign(size, root(leaves[:size]))).text().encode()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[WitnessState]:
    made = WitnessState(tmp_path / "state.db")
    yield made
    made.close()


def desk_of(state: WitnessState) -> WitnessDesk:
    return WitnessDesk(COSIGNER, {ORIGIN: (LOG.verifier,)}, state, lambda: NOW)


@pytest.fixture
def desk(state: WitnessState) -> WitnessDesk:
    return desk_of(state)


def test_it_signs_what_continues(desk: WitnessDesk) -> None:
    held = 0
    for size in (5, 5, 6, 32, 40):
        body = request(held, size)
        answer = desk.add_checkpoint(body)
        assert answer.status == 200, answer
        note = parse_note(AddCheckpoint.parse(body).note)
        assert COSIGNER.witness.verify(parse_signature(answer.body.removesuffix("\n")), note.text) == NOW
        held = size


def test_an_empty_log_can_be_signed_and_then_grow(desk: WitnessDesk) -> None:
    assert [desk.add_checkpoint(request(0, size)).status for size in (0, 0, 7)] == [200, 200, 200]


def without_proof(body: bytes) -> bytes:
    one = AddCheckpoint.parse(body)
    return AddCheckpoint(one.old_size, (), one.note).text().encode()


def with_proof(body: bytes) -> bytes:
    one = AddCheckpoint.parse(body)
    return AddCheckpoint(one.old_size, (*one.proof, bytes(32)), one.note).text().encode()


EMPTY_WITH_A_ROOT = AddCheckpoint(0, (), LOG.sign(0, bytes(32))).text().encode()
WRONG_SIGNATURE = request(8, 9).replace(b"\n9\n", b"\n10\n")


@pytest.mark.parametrize(
    ("case", "body", "status"),
    [
        ("nothing", b"", 400),
        ("no old size", request(8, 9).replace(b"old 8\n", b""), 400),
        ("an old size with a leading zero", request(8, 9).replace(b"old 8", b"old 08"), 400),
        ("a negative old size", request(8, 9).replace(b"old 8", b"old -8"), 400),
        ("a hash that is none", request(8, 9).replace(b"old 8\n", b"old 8\nAAAA\n"), 400),
        ("64 hashes", request(8, 9).replace(b"old 8\n", b"old 8\n" + b"A" * 43 + b"=\n" * 64), 400),
        ("no checkpoint", b"old 8\n\n", 400),
        ("not UTF-8", request(8, 9) + b"\xff", 400),
        ("an old size larger than the checkpoint's", request(0, 7).replace(b"old 0", b"old 8"), 400),
        ("a signature of another key", request(8, 9, signer=OTHER_KEY), 403),
        ("a wrong signature", WRONG_SIGNATURE, 403),
        ("another log", request(8, 9, signer=CheckpointSigner("other.example", key(1))), 404),
        ("an older size", request(7, 9), 409),
        ("no size", request(0, 9), 409),
        ("a shorter log", request(0, 7), 409),
        ("another tree of the same size", request(8, 8, FALSE), 422),
        ("another tree that is longer", request(8, 12, FALSE), 422),
        ("no proof", without_proof(request(8, 9)), 422),
        ("a proof where none belongs", with_proof(request(8, 8)), 422),
        ("a proof too long", with_proof(request(8, 12)), 422),
    ],
)
def test_it_refuses_everything_else(
    desk: WitnessDesk, state: WitnessState, case: str, body: bytes, status: int
) -> None:
    assert desk.add_checkpoint(request(0, 8)).status == 200
    answer = desk.add_checkpoint(body)
    assert answer.status == status, answer
    assert "w.example" not in answer.body
    if status == 409:
        assert answer == Answer(409, "8\n", "text/x.tlog.size")
    assert desk.add_checkpoint(request(8, 9)).status == 200, "what was refused left no trace"
    assert bool(state.refused(ORIGIN)) == (status == 422)


@pytest.mark.parametrize("body", [EMPTY_WITH_A_ROOT, with_proof(request(0, 7))])
def test_a_first_checkpoint_that_cannot_be(desk: WitnessDesk, body: bytes) -> None:
    assert desk.add_checkpoint(body).status == 422


def test_the_proof_of_another_history_is_kept(desk: WitnessDesk, state: WitnessState) -> None:
    first = request(0, 8)
    desk.add_checkpoint(first)
    bad = request(8, 12, FALSE)
    for _ in range(2):
        assert desk.add_checkpoint(bad).status == 422
    ((note, held, why),) = state.refused(ORIGIN)
    assert (note, held) == (AddCheckpoint.parse(bad).note, AddCheckpoint.parse(first).note)
    assert f"12 entries of {ORIGIN}" in why


def test_what_is_kept_is_bounded(desk: WitnessDesk, state: WitnessState) -> None:
    for number in range(MAX_KEPT + 5):
        state.keep_refused(ORIGIN, str(number), (0, ""), "why", NOW)
    assert len(state.refused(ORIGIN)) == MAX_KEPT


def test_it_remembers_across_a_restart(tmp_path: Path) -> None:
    state = WitnessState(tmp_path / "state.db")
    assert desk_of(state).add_checkpoint(request(0, 8)).status == 200
    state.close()
    state = WitnessState(tmp_path / "state.db")
    assert desk_of(state).add_checkpoint(request(0, 9)) == Answer(409, "8\n", "text/x.tlog.size")
    assert desk_of(state).add_checkpoint(request(8, 9, FALSE)).status == 422
    state.close()


def test_two_at_once_cannot_both_continue(tmp_path: Path) -> None:
    """Two connections to one state, as two processes would have: of two branches at most one is signed."""
    states = [WitnessState(tmp_path / "state.db") for _ in range(2)]
    assert desk_of(states[0]).add_checkpoint(request(0, 8)).status == 200
    tails = [[*TRUE[:8], leaf_hash(b"%d" % branch)] for branch in range(2)]
    start, statuses = threading.Barrier(2), [0, 0]

    def ask(branch: int) -> None:
        start.wait()
        statuses[branch] = desk_of(states[branch]).add_checkpoint(request(8, 9, tails[branch])).status

    threads = [threading.Thread(target=ask, args=(branch,)) for branch in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409]
    for state in states:
        state.close()


def test_it_signs_nothing_that_it_cannot_keep(desk: WitnessDesk, state: WitnessState) -> None:
    state._db.execute("PRAGMA query_only = 1")
    with pytest.raises(LedgerError, match="cannot be written"):
        desk.add_checkpoint(request(0, 8))


def test_a_state_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("text, not a database, and long enough to be looked at" * 10)
    with pytest.raises(UsageError, match="cannot be used"):
        WitnessState(tmp_path / "state.db")


def test_a_request_is_parsed_as_it_was_made() -> None:
    one = AddCheckpoint(8, (bytes(32), b"\x01" * 32), LOG.sign(9, bytes(32)))
    assert AddCheckpoint.parse(one.text().encode()) == one
    with pytest.raises(FormatError):
        AddCheckpoint.parse(one.text().replace("old", "new").encode())
