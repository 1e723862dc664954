"""The revocation list: what it says, when it is read again, and when it cannot be believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lictor.certs.authority import Issuer, create_root, revoked_entry, sign_crl
from lictor.certs.domain import TrustDomain
from lictor.certs.revocation import RevocationList
from lictor.formats.errors import VerificationError


def crl(issuer: Issuer, *serials: int, days: float = 1, now: datetime | None = None) -> bytes:
    return sign_crl(issuer, [revoked_entry(serial) for serial in serials], number=1, days=days, now=now)


@pytest.fixture
def path(tmp_path: Path, identity_issuer: Issuer) -> Path:
    made = tmp_path / "crl.pem"
    made.write_bytes(crl(identity_issuer, 7))
    return made


def test_what_is_revoked(path: Path, domain: TrustDomain) -> None:
    revoked = RevocationList(path, domain.identity_ca.read_bytes())
    assert revoked.is_revoked(7)
    assert not revoked.is_revoked(8)


def test_a_new_list_is_seen_at_refresh(path: Path, domain: TrustDomain, identity_issuer: Issuer) -> None:
    revoked = RevocationList(path, domain.identity_ca.read_bytes())
    assert not revoked.refresh()
    path.write_bytes(crl(identity_issuer, 7, 8))
    assert not revoked.is_revoked(8)
    assert revoked.refresh()
    assert revoked.is_revoked(8)


def test_an_agent_revoked_by_the_command_is_revoked_here(tmp_path: Path) -> None:
    own = TrustDomain.create(tmp_path / "trust", "acme.example")
    own.add_agent("bob")
    revoked = RevocationList(own.crl, own.identity_ca.read_bytes())
    serial = own.agents()[0].serial
    assert not revoked.is_revoked(serial)
    own.revoke_agent("bob")
    assert revoked.refresh()
    assert revoked.is_revoked(serial)


def test_no_list(tmp_path: Path, domain: TrustDomain) -> None:
    with pytest.raises(VerificationError, match=r"none\.pem cannot be read"):
        RevocationList(tmp_path / "none.pem", domain.identity_ca.read_bytes())


def test_a_list_of_another_ca(tmp_path: Path, domain: TrustDomain) -> None:
    other = create_root("identities of acme.example", days=1, path_length=0)
    (tmp_path / "crl.pem").write_bytes(crl(other))
    with pytest.raises(VerificationError, match="not signed by the identity CA"):
        RevocationList(tmp_path / "crl.pem", domain.identity_ca.read_bytes())


def test_an_expired_list(path: Path, domain: TrustDomain) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    with pytest.raises(VerificationError, match="signs a new one"):
        RevocationList(path, domain.identity_ca.read_bytes(), clock=lambda: later)


def test_a_list_of_the_future(path: Path, domain: TrustDomain) -> None:
    earlier = datetime.now(UTC) - timedelta(days=1)
    with pytest.raises(VerificationError, match="is valid from"):
        RevocationList(path, domain.identity_ca.read_bytes(), clock=lambda: earlier)


def test_a_list_that_expires_while_running(path: Path, domain: TrustDomain) -> None:
    time = datetime.now(UTC)
    revoked = RevocationList(path, domain.identity_ca.read_bytes(), clock=lambda: time)
    assert not revoked.is_revoked(8)
    assert revoked.now().serials == {7}
    time += timedelta(days=2)
    for ask in (lambda: revoked.is_revoked(8), revoked.now):
        with pytest.raises(VerificationError, match="is valid from"):
            ask()


@pytest.mark.parametrize("turn", ["gone", "garbage", "other CA", "a serial changed"])
def test_a_list_that_turns_bad_while_running_until_a_good_one_stands_there(
    path: Path, domain: TrustDomain, identity_issuer: Issuer, turn: str
) -> None:
    revoked = RevocationList(path, domain.identity_ca.read_bytes())
    good = path.read_bytes()
    match turn:
        case "gone":
            path.unlink()
        case "garbage":
            path.write_bytes(b"garbage")
        case "other CA":
            path.write_bytes(crl(create_root("identities of acme.example", days=1, path_length=0)))
        case "a serial changed":
            path.write_bytes(_with_serial_9_for_7(good))
    assert revoked.refresh()
    for ask in (lambda: revoked.is_revoked(8), revoked.now):
        with pytest.raises(VerificationError):
            ask()
    path.write_bytes(crl(identity_issuer, 8))
    assert revoked.now().serials == {8}
    assert revoked.is_revoked(8)


def _with_serial_9_for_7(data: bytes) -> bytes:
    der = x509.load_pem_x509_crl(data).public_bytes(serialization.Encoding.DER)
    changed = der.replace(b"\x02\x01\x07", b"\x02\x01\x09")
    assert changed != der
    return x509.load_der_x509_crl(changed).public_bytes(serialization.Encoding.PEM)
