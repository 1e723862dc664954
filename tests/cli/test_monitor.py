"""`lictor monitor` and `lictor agent rotate` as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lictor.certs.authority import read_certificate
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.certs.revocation import RevocationList
from lictor.cli import cli


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    made = TrustDomain.create(tmp_path / "trust", "acme.example")
    made.add_agent("alice")
    made.add_monitor("north")
    return made


def call(domain: TrustDomain, *args: str) -> Result:
    done = CliRunner().invoke(cli, [*args, "--trust", str(domain.path)])
    assert done.exception is None, done.output
    return done


def test_the_evidence_key_is_rotated_and_the_former_retired(domain: TrustDomain) -> None:
    files = domain.monitor("north")
    text = call(domain, "monitor", "rotate-evidence", "north").output
    kid = evidence_jwk(files.evidence_cert.read_bytes())["kid"]
    assert f"spiffe://acme.example/monitor/north signs with {kid}" in text
    assert "lictor monitor retire-evidence north" in text
    assert files.former_evidence_key.exists()
    assert "the former key is deleted" in call(domain, "monitor", "retire-evidence", "north").output
    assert not files.former_evidence_key.exists()
    assert "there is no former key" in call(domain, "monitor", "retire-evidence", "north").output


def test_a_lost_key_is_deleted_at_once(domain: TrustDomain) -> None:
    made = json.loads(call(domain, "monitor", "rotate-evidence", "north", "--no-overlap", "--json").output)
    assert made["overlap"] is False
    assert not domain.monitor("north").former_evidence_key.exists()
    assert made["kid"] == evidence_jwk(domain.monitor("north").evidence_cert.read_bytes())["kid"]


def test_a_key_that_became_known_is_revoked(domain: TrustDomain) -> None:
    files = domain.monitor("north")
    before = read_certificate(files.evidence_cert).serial_number
    made = json.loads(call(domain, "monitor", "rotate-evidence", "north", "--revoke", "--json").output)
    assert (made["overlap"], made["revoked"]) == (False, True)
    assert not files.former_evidence_key.exists()
    revoked = RevocationList(domain.path / "crl.pem", domain.identity_ca.read_bytes())
    now = read_certificate(files.evidence_cert).serial_number
    assert [revoked.is_revoked(one) for one in (before, now, read_certificate(files.cert).serial_number)] == [
        True,
        False,
        False,
    ]
    assert "is revoked" in call(domain, "monitor", "rotate-evidence", "north", "--revoke").output


@pytest.mark.parametrize(("option", "text"), [((), "stays good until it expires"), (("--revoke",), "is revoked")])
def test_an_agent_is_rotated(domain: TrustDomain, option: tuple[str, ...], text: str) -> None:
    (before,) = domain.agents()
    output = call(domain, "agent", "rotate", "alice", "--days", "5", *option).output
    (after,) = domain.agents()
    assert after.serial != before.serial
    assert f"serial {after.serial:x}" in output
    assert text in output.splitlines()[-1]
    made = json.loads(call(domain, "agent", "rotate", "alice", "--json").output)
    assert int(made["serial"], 16) != after.serial
