"""`log verify` with witnesses: a log under a quorum is intact, one that is not is a prefix, a second history is bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.cosignature import Cosigner
from lictor.evidence.entry import ActionDraft
from lictor.evidence.export import export_lines
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import Recorder
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.evidence.store import CheckpointRow
from lictor.formats.cosignature import CheckpointPolicy
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note
from lictor.verifier.log import verify_lines
from lictor.verifier.report import LogReport

ORIGIN = "witnessed.test/monitor/one"
COSIGNERS = [
    Cosigner(f"w{i}.example", KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32))) for i in range(1, 4)
]
POLICY = CheckpointPolicy(tuple(cosigner.witness for cosigner in COSIGNERS), 2)


def cosigned(note: str, *cosigners: int) -> str:
    return note + "".join(COSIGNERS[i].sign(parse_note(note).text, 7) for i in cosigners)


class Log:
    """A ledger with six entries, and what to do to it."""

    def __init__(self, folder: Path) -> None:
        trust = TrustDomain.create(folder / "trust", "witnessed.test")
        trust.add_monitor("one")
        self.ca = trust.identity_ca.read_bytes()
        self.path = folder / "ledger.db"
        self.files = trust.path / "monitors" / "one"
        self.signer = KeySigner.from_file(self.files / "evidence.key")

    def grow(self, count: int, change: Callable[[Ledger], None] = lambda ledger: None) -> None:
        async def work() -> None:
            store = SqliteStore(self.path)
            ledger = Ledger.open(store, ORIGIN, self.signer)
            ledger.put_document("key", self.signer.kid, evidence_jwk((self.files / "evidence.pem").read_bytes()))
            recorder = Recorder(ledger, self.signer, f"spiffe://{ORIGIN}", lambda _: (), stored=store)
            for number in range(count):
                draft = ActionDraft(
                    "spiffe://witnessed.test/agent/a", "http_request", f"https://x.test/{number}", {}, "deny", "no", ()
                )
                await recorder.record_action(draft)
            change(ledger)
            await recorder.close()
            await ledger.close()

        asyncio.run(work())

    def keep(self, note: str, cosignatures: int, size: int) -> None:
        self.grow(0, lambda ledger: ledger.put_checkpoint(CheckpointRow(size, note, cosignatures)))

    def head(self) -> str:
        reader = SqliteReader(self.path)
        note = reader.last_checkpoint()
        reader.close()
        assert note is not None
        return note

    def lines(self) -> list[bytes]:
        reader = SqliteReader(self.path)
        found = list(export_lines(reader))
        reader.close()
        return found

    def verify(self, policy: CheckpointPolicy | None = POLICY, lines: list[bytes] | None = None) -> LogReport:
        return verify_lines(self.lines() if lines is None else lines, self.ca, policy)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path)
    made.grow(6)
    return made


def test_a_quorum_over_the_whole_log(log: Log) -> None:
    log.keep(cosigned(log.head(), 0, 2), 2, 6)
    report = log.verify()
    assert (report.verdict, report.witnessed, report.witnesses) == ("intact", 6, ("w1.example", "w3.example"))
    assert log.verify(None).verdict == "intact"


@pytest.mark.parametrize("cosigners", [(), (1,)])
def test_too_few_witnesses_prove_nothing(log: Log, cosigners: tuple[int, ...]) -> None:
    if cosigners:
        log.keep(cosigned(log.head(), *cosigners), len(cosigners), 6)
    report = log.verify()
    assert (report.verdict, report.witnessed, report.exit_code) == ("prefix_only", 0, 3)
    assert "with 2 of the cosignatures asked for: expected 6 entries, found 0 entries" in str(report.problem)
    assert log.verify(None).verdict == "intact"


def test_entries_after_the_witnessed_checkpoint_are_not_proven(log: Log) -> None:
    log.keep(cosigned(log.head(), 0, 1), 2, 6)
    log.grow(3)
    log.keep(cosigned(log.head(), 1), 1, 9)
    report = log.verify()
    assert (report.verdict, report.witnessed) == ("prefix_only", 6)
    assert log.verify(CheckpointPolicy(POLICY.witnesses, 1)).verdict == "intact"


def test_a_history_that_the_witnesses_did_not_see_is_bad(log: Log) -> None:
    """With the key one can sign another root, but not make the entries fit what was cosigned."""
    other = CheckpointSigner(ORIGIN, log.signer).sign(4, bytes(32))
    log.keep(cosigned(other, 0, 1), 2, 4)
    for policy in (POLICY, None):
        report = log.verify(policy)
        assert report.verdict == "bad"
        assert "the first 4 entries are not those of the checkpoint" in str(report.problem)


def test_a_wrong_cosignature_of_a_known_witness_is_bad(log: Log) -> None:
    wrong = log.head() + COSIGNERS[0].sign("another text\n", 7)
    log.keep(wrong, 1, 6)
    report = log.verify()
    assert report.verdict == "bad"
    assert "cosignature of w1.example" in str(report.problem)


def test_a_file_shorter_than_what_witnesses_saw_was_cut(log: Log, tmp_path: Path) -> None:
    short = log.lines()
    log.grow(2)
    log.keep(cosigned(log.head(), 0, 1), 2, 8)
    (line,) = [line for line in log.lines() if line.startswith(b'{"cosigned":')]
    report = log.verify(lines=[short[0], short[1], line, *short[2:]])
    assert (report.verdict, str(report.problem)[:45]) == (
        "prefix_only",
        "the file does not hold what was signed: expec",
    )


def test_two_checkpoints_of_one_size(log: Log) -> None:
    log.keep(cosigned(log.head(), 0, 1), 2, 6)
    lines = log.lines()
    at = next(i for i, line in enumerate(lines) if line.startswith(b'{"cosigned":'))
    other = CheckpointSigner(ORIGIN, log.signer).sign(6, bytes(32))
    report = log.verify(lines=[*lines[:at], json.dumps({"cosigned": other}).encode() + b"\n", *lines[at:]])
    assert report.verdict == "bad"
    assert "two checkpoints of one size" in str(report.problem)
