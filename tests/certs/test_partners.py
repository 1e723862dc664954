"""Partners' bundles: taken when they change, each about its own trust domain only, and never an older one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from lictor.certs.authority import Issuer, create_root, pem, sign_crl
from lictor.certs.bundle import Bundle, make_bundle
from lictor.certs.domain import TrustDomain
from lictor.certs.partners import Federated, Partners, federated
from lictor.formats.errors import LictorError, UsageError, VerificationError
from lictor.formats.keys import KeySigner, write_private

OWN, ONE, TWO = "own.example", "one.example", "two.example"


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class World:
    """Three domains in a folder; the bundles of two lie beside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domains = {name: TrustDomain.create(folder / name, name) for name in (OWN, ONE, TWO)}
        self.clock = Clock()
        self.tables = [Federated(name, folder / f"{name}.json") for name in (ONE, TWO)]
        for name in (ONE, TWO):
            self.domains[name].add_monitor("m")
            self.export(name)

    def export(self, name: str, to: str | None = None) -> None:
        self.write(json.dumps(make_bundle(self.domains[name])), to or name)

    def write(self, text: str, name: str) -> None:
        beside = self.folder / "beside"
        beside.write_text(text)
        beside.rename(self.folder / f"{name}.json")

    def ca(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.domains[name].identity_ca.read_bytes())

    def partners(self, *, strict: bool = True) -> Partners:
        return Partners(self.ca(OWN), self.tables, self.clock, strict=strict)

    def kid(self, name: str) -> str:
        return KeySigner.from_file(self.domains[name].monitor("m").evidence_key).kid


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_about_itself(world: World) -> None:
    partners = world.partners()
    assert ONE in partners
    assert OWN not in partners
    assert partners.bundle(ONE).ca == world.ca(ONE)
    partners.resolve(world.kid(ONE), f"spiffe://{ONE}/monitor/m")
    with pytest.raises(VerificationError, match=r"no key .* of 'spiffe://two\.example/monitor/m' is known"):
        partners.resolve(world.kid(ONE), f"spiffe://{TWO}/monitor/m")
    with pytest.raises(VerificationError, match=r"three\.example is none that is federated with"):
        partners.bundle("three.example")


@pytest.mark.parametrize(
    "iss",
    [
        f"spiffe://{OWN}/monitor/m",
        "spiffe://ONE.example/monitor/m",
        "spiffe://one%2eexample/monitor/m",
        f"spiffe://x@{ONE}/monitor/m",
        f"spiffe://{ONE}:443/monitor/m",
        f"spiffe://{ONE}.{OWN}/monitor/m",
        f"spiffe:{ONE}/monitor/m",
        "",
    ],
)
def test_names_that_are_not_a_partners(world: World, iss: str) -> None:
    partners = world.partners()
    assert not partners.speaks_for(iss)
    with pytest.raises(VerificationError):
        partners.resolve(world.kid(ONE), iss)


def same_ca(world: World) -> None:
    """Another domain with the key of the first: two.example's name on one.example's CA key."""
    former = world.domains[TWO].path
    one = Issuer.load(world.domains[ONE].identity_ca, world.domains[ONE].path / "identity-ca.key")
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "two")]),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "two")]),
        one.key.public_key(),
        5,
        one.cert.not_valid_before_utc,
        one.cert.not_valid_after_utc,
    )
    for extension in one.cert.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            value = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{TWO}")])
        builder = builder.add_extension(value, extension.critical)
    cert = builder.sign(one.key, one.cert.signature_hash_algorithm)  # type: ignore[arg-type]
    shutil.rmtree(former / "monitors/m")
    (former / "identity-ca.pem").write_bytes(pem(cert))
    (former / "crl.pem").write_bytes(sign_crl(Issuer(cert, one.key), [], number=5, days=1))
    world.export(TWO)


def own_name(world: World) -> None:
    """A CA for one.example that has the name of our own CA."""
    replace_ca(world, f"identities of {OWN}")


def replace_ca(world: World, subject: str) -> None:
    path = world.domains[ONE].path
    root = create_root(subject, days=10, path_length=0, uri=f"spiffe://{ONE}")
    shutil.rmtree(path / "monitors/m")
    (path / "identity-ca.pem").write_bytes(pem(root.cert))
    (path / "identity-ca.key").unlink()
    write_private(path / "identity-ca.key", root.key)
    (path / "crl.pem").write_bytes(sign_crl(root, [], number=1, days=1))
    world.domains[ONE].add_monitor("m")
    world.export(ONE)


BAD: dict[str, tuple[Callable[[World], object], str]] = {
    "the bundle of another domain": (lambda world: world.export(TWO, ONE), r"is the bundle of two\.example, expected"),
    "our own bundle": (lambda world: world.export(OWN, ONE), r"is the bundle of own\.example, expected"),
    "the same CA for two domains": (same_ca, "have the same CA key"),
    "a CA with the name of ours": (own_name, "have the same name"),
    "no file": (lambda world: (world.folder / f"{ONE}.json").unlink(), "cannot be read"),
    "half a file": (lambda world: world.write('{"keys": [', ONE), "cannot be relied on"),
}


@pytest.mark.parametrize("what", BAD)
def test_at_the_start_a_bad_bundle_is_an_error(world: World, what: str) -> None:
    break_it, said = BAD[what]
    world.partners()
    break_it(world)
    with pytest.raises(LictorError, match=said):
        world.partners()


@pytest.mark.parametrize("what", BAD)
def test_later_a_bad_bundle_changes_nothing_and_is_said_once(
    world: World, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    partners = world.partners()
    before = partners.bundle(ONE), partners.bundle(TWO)
    BAD[what][0](world)
    for _ in range(3):
        partners.refresh()
    assert (partners.bundle(ONE), partners.bundle(TWO)) == before
    assert caplog.text.count("what there was stays in force") == 1


@pytest.mark.parametrize("what", BAD)
def test_a_process_that_starts_again_meanwhile_believes_nobody_of_it(world: World, what: str) -> None:
    """A worker, for example: the monitor goes on, and takes what is good as soon as it is there."""
    good = {table.bundle: table.bundle.read_bytes() for table in world.tables}
    BAD[what][0](world)
    partners = world.partners(strict=False)
    told: list[Bundle] = []
    partners.follow(told.append)
    (bad,) = [name for name in (ONE, TWO) if name not in {bundle.trust_domain for bundle in told}]
    assert not partners.state(bad)[1]
    with pytest.raises(VerificationError, match=r"there is no trust bundle of .* that can be relied on"):
        partners.bundle(bad)
    with pytest.raises(VerificationError, match="there is no trust bundle"):
        partners.resolve(world.kid(ONE), f"spiffe://{bad}/monitor/m")
    world.write(good[world.folder / f"{bad}.json"].decode(), bad)
    partners.refresh()
    assert partners.bundle(bad).trust_domain == told[-1].trust_domain == bad


def test_a_bad_bundle_of_one_does_not_keep_that_of_another_away(world: World) -> None:
    partners = world.partners()
    world.write("nothing", ONE)
    partners.refresh()
    world.domains[TWO].add_monitor("new")
    world.export(TWO)
    partners.refresh()
    assert len(partners.bundle(TWO).evidence.jwks()) == 2


def test_an_evidence_key_that_was_exchanged(world: World) -> None:
    partners, iss = world.partners(), f"spiffe://{ONE}/monitor/m"
    former = world.kid(ONE)
    world.domains[ONE].rotate_evidence("m")
    with pytest.raises(VerificationError, match="no key"):
        partners.resolve(world.kid(ONE), iss)
    world.export(ONE)
    partners.resolve(world.kid(ONE), iss)
    partners.resolve(former, iss)
    (world.domains[ONE].path / "monitors/m").rename(world.folder / "gone")
    world.export(ONE)
    with pytest.raises(VerificationError, match="no key"):
        partners.resolve(former, iss)


def test_who_follows_is_told(world: World) -> None:
    told: list[Bundle] = []
    partners = world.partners()
    partners.follow(told.append)
    assert [bundle.trust_domain for bundle in told] == [ONE, TWO]
    world.domains[ONE].revoke_monitor("m")
    world.export(ONE)
    partners.refresh()
    partners.refresh()
    assert [bundle.trust_domain for bundle in told] == [ONE, TWO, ONE]
    assert told[-1].revoked.serials


def test_an_older_list_is_not_taken_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    partners = world.partners()
    older = (world.folder / f"{ONE}.json").read_text()
    world.domains[ONE].revoke_monitor("m")
    world.export(ONE)
    partners.refresh()
    world.write(older, ONE)
    partners.refresh()
    assert partners.bundle(ONE).revoked.serials
    assert "is older than the bundle in force" in caplog.text


def test_a_new_ca_is_taken_with_a_list_of_its_own(world: World) -> None:
    partners = world.partners()
    replace_ca(world, "anew")
    partners.refresh()
    assert partners.bundle(ONE).ca == world.ca(ONE)


def test_out_of_date_nobody_is_believed_until_another_comes(world: World, caplog: pytest.LogCaptureFixture) -> None:
    partners = world.partners()
    state = partners.state(ONE)
    world.clock.now += timedelta(days=95)
    assert partners.state(ONE) != state
    for ask in (lambda: partners.bundle(ONE), lambda: partners.resolve(world.kid(ONE), f"spiffe://{ONE}/monitor/m")):
        with pytest.raises(VerificationError, match=r"ask one\.example for a new bundle"):
            ask()
    assert world.partners() is not None, "the monitor starts all the same, it is the partner who is late"
    assert "nobody of the trust domain one.example is believed" in caplog.text
    os.utime(world.folder / f"{ONE}.json", (1, 1))
    partners.refresh()
    assert "what there was stays in force" in caplog.text, "one that is out of date replaces none"
    one = Issuer.load(world.domains[ONE].identity_ca, world.domains[ONE].path / "identity-ca.key")
    world.domains[ONE].crl.write_bytes(sign_crl(one, [], number=9, days=200))
    world.export(ONE)
    partners.refresh()
    assert partners.bundle(ONE).revoked.number == 9


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([OWN], r"federation\[0\]\.trust_domain: own\.example is our own"),
        ([ONE, TWO, ONE], r"federation\[2\]\.trust_domain: one\.example has a table already"),
        (["ONE.example"], "is not a trust domain"),
        (["one%2eexample"], "is not a trust domain"),
        (["bücher.example"], "is not a trust domain"),
        (["spiffe://one.example"], "is not a trust domain"),
        (["one.example/"], "is not a trust domain"),
        (["one.example:443"], "is not a trust domain"),
        ([" one.example"], "is not a trust domain"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, tables: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        federated(tmp_path, [{"trust_domain": name, "bundle": "x.json"} for name in tables], OWN)


def test_tables(tmp_path: Path) -> None:
    tables: list[dict[str, Any]] = [{"trust_domain": ONE, "bundle": "one.json"}]
    assert federated(tmp_path, tables, OWN) == (Federated(ONE, tmp_path / "one.json"),)
