"""What the control process checks before it starts anything. The running one: tests/end_to_end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from lictor.certs import monitors
from lictor.certs.domain import TrustDomain
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.errors import UsageError
from lictor.proxy.control import freshen, log_salt


def test_salt_is_made_once(tmp_path: Path) -> None:
    """Otherwise digests of one log could not be compared."""
    store = SqliteStore(tmp_path / "ledger.sqlite")
    salt = log_salt(store)
    assert len(salt) == 32
    store.close()
    store = SqliteStore(tmp_path / "ledger.sqlite")
    assert log_salt(store) == salt
    store.close()
    other = SqliteStore(tmp_path / "other.sqlite")
    assert log_salt(other) != salt
    other.close()


class TestFreshen:
    @pytest.fixture
    def domain(self, tmp_path: Path) -> TrustDomain:
        made = TrustDomain.create(tmp_path / "trust", "test.internal")
        made.add_monitor("m")
        return made

    def serial(self, domain: TrustDomain) -> int:
        pem = domain.monitor("m").interception.read_bytes()
        return x509.load_pem_x509_certificate(pem).serial_number

    def test_nothing_is_due(self, domain: TrustDomain) -> None:
        before = self.serial(domain), domain.crl.read_bytes()
        assert not freshen(domain, "m")
        assert (self.serial(domain), domain.crl.read_bytes()) == before

    def test_interception(self, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> None:
        before = self.serial(domain)
        monkeypatch.setattr(monitors, "INTERCEPTION_DAYS", timedelta(days=1000) / timedelta(days=1))
        assert freshen(domain, "m"), "the workers must take up the new one"
        assert self.serial(domain) != before

    def test_unknown_monitor(self, domain: TrustDomain) -> None:
        with pytest.raises(UsageError, match="no monitor x"):
            freshen(domain, "x")
