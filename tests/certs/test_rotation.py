"""Exchanging keys: what is new, what stays good, what is gone, and key files that others can read."""

from __future__ import annotations

import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lictor.certs.authority import read_certificate
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.certs.identity import peer_identity
from lictor.certs.revocation import RevocationList
from lictor.evidence.checkpoint import CheckpointSigner, Verifier, verify_checkpoint
from lictor.formats.errors import UsageError, VerificationError
from lictor.formats.keys import KeySigner, read_private


@pytest.fixture
def own(tmp_path: Path) -> TrustDomain:
    made = TrustDomain.create(tmp_path / "trust", "acme.example")
    made.add_agent("alice")
    made.add_monitor("north")
    return made


def cert_of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("revoke", [False, True])
def test_an_agent_gets_a_new_key_and_the_old_one_stays_unless_revoked(own: TrustDomain, revoke: bool) -> None:
    files = own.agent("alice")
    before, key = cert_of(files.cert), files.key.read_bytes()
    info = own.rotate_agent("alice", 3, revoke=revoke)
    after = cert_of(files.cert)
    assert info.serial == after.serial_number != before.serial_number
    assert files.key.read_bytes() != key
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert read_private(files.key).public_key() == after.public_key()
    revoked = RevocationList(own.crl, own.identity_ca.read_bytes())
    assert (revoked.is_revoked(before.serial_number), revoked.is_revoked(after.serial_number)) == (revoke, False)
    names = {
        str(peer_identity(one.public_bytes(Encoding.DER), "acme.example", datetime.now(UTC))) for one in (before, after)
    }
    assert names == {"spiffe://acme.example/agent/alice"}


@pytest.mark.parametrize("work", [lambda d: d.rotate_agent("bob"), lambda d: d.rotate_evidence("south")])
def test_only_what_is_there_is_rotated(own: TrustDomain, work: Callable[[TrustDomain], object]) -> None:
    with pytest.raises(UsageError, match=r"there is no (agent bob|monitor south)"):
        work(own)


def test_an_evidence_key_is_exchanged_with_overlap(own: TrustDomain) -> None:
    files = own.monitor("north")
    before = KeySigner.from_file(files.evidence_key)
    own.rotate_evidence("north")
    after = KeySigner.from_file(files.evidence_key)
    assert KeySigner.from_file(files.former_evidence_key).kid == before.kid != after.kid
    assert evidence_jwk(files.evidence_cert.read_bytes())["kid"] == after.kid
    assert stat.S_IMODE(files.evidence_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.former_evidence_key.stat().st_mode) == 0o600
    assert own.retire_evidence("north")
    assert not own.retire_evidence("north")
    kids = {evidence_jwk(path.read_bytes())["kid"] for path in files.directory.glob("evidence*.pem")}
    assert kids == {before.kid, after.kid}


def test_without_overlap_no_former_key_is_left(own: TrustDomain) -> None:
    files = own.monitor("north")
    own.rotate_evidence("north")
    own.rotate_evidence("north", overlap=False)
    assert sorted(path.name for path in files.directory.glob("evidence*.key")) == ["evidence.key"]
    assert len(list(files.directory.glob("evidence*.pem"))) == 3


def test_a_checkpoint_of_both_keys_is_good_for_whoever_knows_one(own: TrustDomain) -> None:
    files = own.monitor("north")
    before = KeySigner.from_file(files.evidence_key)
    own.rotate_evidence("north")
    after = KeySigner.from_file(files.evidence_key)
    note = CheckpointSigner("acme.example/log", after, before).sign(7, bytes(32))
    for signer in (before, after):
        assert verify_checkpoint(note, "acme.example/log", [Verifier.of("acme.example/log", signer.public_key())])
    with pytest.raises(VerificationError, match="is wrong"):
        verify_checkpoint(
            note.replace("\n7\n", "\n8\n"),
            "acme.example/log",
            [Verifier.of("acme.example/log", before.public_key())],
        )


KEYS = ["identity-ca.key", "interception-root.key", "operator.key", "agents/alice/key.pem", "monitors/north/key.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
@pytest.mark.parametrize("name", [*KEYS, "monitors/north/evidence.key"])
def test_every_key_file_is_private_and_refused_when_it_is_not(own: TrustDomain, name: str, mode: int) -> None:
    path = own.path / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"is open to others .mode {mode:04o}.: run chmod 600"):
        read_private(path)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("identity-ca.key", lambda d: d.add_agent("bob")),
        ("identity-ca.key", lambda d: d.rotate_evidence("north")),
        ("interception-root.key", lambda d: d.renew_interception("north")),
    ],
)
def test_an_open_ca_key_is_not_used(own: TrustDomain, name: str, use: Callable[[TrustDomain], object]) -> None:
    (own.path / name).chmod(0o644)
    with pytest.raises(UsageError, match="is open to others"):
        use(own)


def test_a_key_that_became_known_is_revoked_before_it_is_exchanged(
    own: TrustDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off in between, the command can be given again, and means the same key."""
    files = own.monitor("north")
    before = read_certificate(files.evidence_cert).serial_number
    with monkeypatch.context() as patch:
        patch.setattr(TrustDomain, "_sign_crl", Mock(side_effect=OSError("full")))
        with pytest.raises(OSError, match="full"):
            own.rotate_evidence("north", overlap=False, revoke=True)
    assert read_certificate(files.evidence_cert).serial_number == before
    own.rotate_evidence("north", overlap=False, revoke=True)
    revoked = RevocationList(own.crl, own.identity_ca.read_bytes())
    now = read_certificate(files.evidence_cert).serial_number
    assert (revoked.is_revoked(before), revoked.is_revoked(now)) == (True, False)
