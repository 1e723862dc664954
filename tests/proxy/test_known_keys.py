"""Evidence keys of other monitors: those that the identity CA vouches for, as they come and change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.formats.errors import VerificationError
from lictor.formats.keys import KeySigner
from lictor.proxy.known_keys import KnownKeys


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    made = TrustDomain.create(tmp_path / "trust", "test.internal")
    made.add_monitor("one")
    return made


def known(domain: TrustDomain) -> KnownKeys:
    return KnownKeys(domain.path, domain.identity_ca.read_bytes())


def kid(domain: TrustDomain, name: str) -> str:
    return KeySigner.from_file(domain.path / "monitors" / name / "evidence.key").kid


def test_resolves(domain: TrustDomain) -> None:
    key = known(domain).resolve(kid(domain, "one"), "spiffe://test.internal/monitor/one")
    assert evidence_jwk((domain.path / "monitors/one/evidence.pem").read_bytes())["kid"] == kid(domain, "one")
    assert key is not None


@pytest.mark.parametrize("issuer", ["spiffe://test.internal/monitor/two", "spiffe://test.internal/agent/one"])
def test_a_key_speaks_only_for_its_own_monitor(domain: TrustDomain, issuer: str) -> None:
    domain.add_monitor("two")
    with pytest.raises(VerificationError):
        known(domain).resolve(kid(domain, "one"), issuer)


def test_a_monitor_that_came_since(domain: TrustDomain) -> None:
    keys = known(domain)
    domain.add_monitor("new")
    keys.resolve(kid(domain, "new"), "spiffe://test.internal/monitor/new")


def test_a_key_that_was_changed_since(domain: TrustDomain) -> None:
    keys = known(domain)
    domain.add_monitor("other")
    shutil.rmtree(domain.path / "monitors/one")
    domain.add_monitor("one")
    keys.resolve(kid(domain, "one"), "spiffe://test.internal/monitor/one")


@pytest.mark.parametrize("what", ["of another domain", "garbage"])
def test_not_vouched_for(domain: TrustDomain, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    other = TrustDomain.create(tmp_path / "other", "test.internal")
    other.add_monitor("evil")
    target = domain.path / "monitors/evil"
    shutil.copytree(other.path / "monitors/evil", target)
    evil = kid(domain, "evil")
    if what == "garbage":
        (target / "evidence.pem").write_bytes(b"no certificate")
    with pytest.raises(VerificationError):
        known(domain).resolve(evil, "spiffe://test.internal/monitor/evil")
    assert "evil" in caplog.text
    known(domain).resolve(kid(domain, "one"), "spiffe://test.internal/monitor/one")
