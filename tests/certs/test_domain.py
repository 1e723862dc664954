"""The trust domain directory: what is made, who may read it, and what is refused."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from lictor.certs.authority import Issuer, read_certificate
from lictor.certs.domain import TrustDomain
from lictor.certs.revocation import load_crl
from lictor.formats.errors import UsageError, VerificationError
from lictor.formats.keys import KeySigner, from_jwk
from lictor.formats.strict_json import loads_object


@pytest.fixture
def trust(tmp_path: Path) -> TrustDomain:
    return TrustDomain.create(tmp_path / "trust", "acme.example")


def test_what_create_makes(trust: TrustDomain) -> None:
    names = {path.name for path in trust.path.iterdir()}
    assert names == {
        "domain.toml",
        "identity-ca.pem",
        "identity-ca.key",
        "interception-root.pem",
        "interception-root.key",
        "crl.pem",
        "operator.key",
        "operator.jwk",
        "agents",
        "monitors",
    }
    assert TrustDomain.open(trust.path) == trust
    assert trust.agents() == []
    signer = KeySigner.from_file(trust.operator_key)
    assert from_jwk(loads_object(trust.operator_jwk.read_bytes())) == signer.public_key()
    assert list(load_crl(trust.crl.read_bytes(), read_certificate(trust.identity_ca), "crl")) == []


def test_keys_are_the_owners_only(trust: TrustDomain) -> None:
    trust.add_agent("alice")
    trust.add_monitor("north")
    private = {
        "identity-ca.key",
        "interception-root.key",
        "operator.key",
        "key.pem",
        "evidence.key",
        "interception.pem",
    }
    seen = set()
    for path in (trust.path, *trust.path.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.name in private:
            seen.add(path.name)
            assert mode == 0o600, path
        else:
            assert b"PRIVATE" not in path.read_bytes(), path
    assert seen == private


def test_the_two_roots_have_nothing_in_common(trust: TrustDomain) -> None:
    identity, interception = read_certificate(trust.identity_ca), read_certificate(trust.interception_root)
    assert identity.public_key() != interception.public_key()
    assert identity.subject != interception.subject


@pytest.mark.parametrize("name", ["", "Acme.example", "acme.example/x", "acme example", "acme:1", "spiffe://acme"])
def test_create_refuses_what_is_no_trust_domain(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a trust domain"):
        TrustDomain.create(tmp_path / "trust", name)
    assert not any(tmp_path.iterdir())


def test_create_overwrites_nothing(trust: TrustDomain) -> None:
    before = trust.identity_ca.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        TrustDomain.create(trust.path, "acme.example")
    assert trust.identity_ca.read_bytes() == before


def test_create_takes_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "trust").mkdir()
    TrustDomain.create(tmp_path / "trust", "acme.example")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no domain.toml there"),
        ("trust_domain = ", "cannot be read"),
        ("", "must hold trust_domain"),
        ("trust_domain = 1", "must hold trust_domain"),
        ('trust_domain = "a"\nother = 1', "nothing else"),
        ('trust_domain = "A/b"', "is not a trust domain"),
    ],
)
def test_open_refuses(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "domain.toml").write_text(text)
    with pytest.raises(UsageError, match=reason):
        TrustDomain.open(tmp_path)


def test_an_agent(trust: TrustDomain) -> None:
    files = trust.add_agent("alice", days=2)
    assert str(files.spiffe_id) == "spiffe://acme.example/agent/alice"
    assert Issuer.load(files.cert, files.key)
    [info] = trust.agents()
    assert (info.name, info.spiffe_id, info.revoked) == ("alice", files.spiffe_id, False)
    assert timedelta(days=1.9) < info.not_after - datetime.now(UTC) <= timedelta(days=2)
    assert trust.agent("alice") == files


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../x", "a b", "ä", "a%2f", "x" * 65, "a\n"])
def test_names_that_are_no_single_segment(trust: TrustDomain, name: str) -> None:
    for call in (trust.add_agent, trust.agent, trust.revoke_agent, trust.add_monitor, trust.monitor):
        with pytest.raises(UsageError, match="is not a name"):
            call(name)


@pytest.mark.parametrize("days", [0, -1, 4000, float("nan")])
def test_days_out_of_range(trust: TrustDomain, days: float) -> None:
    with pytest.raises(UsageError, match="not a number of days"):
        trust.add_agent("alice", days=days)
    with pytest.raises(UsageError, match="not a number of days"):
        trust.add_monitor("north", days=days)
    assert trust.agents() == []
    assert list((trust.path / "monitors").iterdir()) == []


def test_a_good_certificate_is_not_replaced(trust: TrustDomain) -> None:
    before = trust.add_agent("alice").cert.read_bytes()
    with pytest.raises(UsageError, match="lictor agent revoke alice"):
        trust.add_agent("alice")
    assert trust.agent("alice").cert.read_bytes() == before


def test_revoked_then_added_again(trust: TrustDomain) -> None:
    trust.add_agent("alice")
    old = trust.revoke_agent("alice")
    assert old.revoked
    assert trust.revoke_agent("alice") == old
    trust.add_agent("alice")
    [new] = trust.agents()
    assert not new.revoked
    assert new.serial != old.serial
    crl = load_crl(trust.crl.read_bytes(), read_certificate(trust.identity_ca), "crl")
    assert [entry.serial_number for entry in crl] == [old.serial]


def test_an_unknown_agent_or_monitor_names_the_known(trust: TrustDomain) -> None:
    trust.add_agent("alice")
    trust.add_monitor("north")
    for call in (trust.agent, trust.revoke_agent):
        with pytest.raises(UsageError, match=r"there is no agent bob .*there: alice.*lictor agent add bob"):
            call("bob")
    with pytest.raises(UsageError, match=r"there is no monitor south .*there: north"):
        trust.monitor("south")


def test_each_signing_counts_the_list_up_and_dates_it_anew(trust: TrustDomain) -> None:
    def number() -> int:
        crl = x509.load_pem_x509_crl(trust.crl.read_bytes())
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    first = number()
    trust.add_agent("alice")
    trust.revoke_agent("alice")
    trust.renew_crl()
    assert number() == first + 3


def test_revocations_at_the_same_time_lose_none(trust: TrustDomain) -> None:
    names = [f"agent-{i}" for i in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(trust.add_agent, names))
        list(pool.map(trust.revoke_agent, names))
    assert [info.revoked for info in trust.agents()] == [True] * len(names)


def test_a_list_that_was_exchanged_is_not_signed_over(trust: TrustDomain, tmp_path: Path) -> None:
    trust.add_agent("alice")
    other = TrustDomain.create(tmp_path / "other", "acme.example")
    trust.crl.write_bytes(other.crl.read_bytes())
    for call in (trust.agents, trust.renew_crl, lambda: trust.revoke_agent("alice")):
        with pytest.raises(VerificationError, match="not signed by the identity CA"):
            call()


def test_a_ca_key_of_another_ca(trust: TrustDomain, tmp_path: Path) -> None:
    other = TrustDomain.create(tmp_path / "other", "acme.example")
    (trust.path / "identity-ca.key").write_bytes((other.path / "identity-ca.key").read_bytes())
    with pytest.raises(UsageError, match="does not belong to the certificate"):
        trust.add_agent("alice")


def test_a_ca_key_open_to_others(trust: TrustDomain) -> None:
    (trust.path / "identity-ca.key").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        trust.add_agent("alice")
