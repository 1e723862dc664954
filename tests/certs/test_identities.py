"""Whose certificates are believed: each CA's for its own trust domain, whatever else it signs."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lictor.certs.authority import CLIENT_AUTH, SERVER_AUTH, Issuer, create_root, issue, new_key, pem
from lictor.certs.bundle import make_bundle
from lictor.certs.contexts import client_context, listener_context, trust_partners
from lictor.certs.domain import TrustDomain
from lictor.certs.identities import Identities
from lictor.certs.monitors import host_name
from lictor.certs.partners import Federated, Partners
from lictor.certs.revocation import RevocationList
from lictor.certs.servers import ExpectedServer
from lictor.formats.errors import VerificationError
from lictor.formats.keys import write_private

OWN, PARTNER = "own.example", "partner.example"


@dataclass
class World:
    folder: Path
    domains: dict[str, TrustDomain]
    partners: Partners
    identities: Identities

    def issuer(self, name: str) -> Issuer:
        path = self.domains[name].path
        return Issuer.load(path / "identity-ca.pem", path / "identity-ca.key")

    def files(self, issuer: Issuer, uri: str, *chain: x509.Certificate) -> tuple[Path, Path]:
        key = new_key()
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), host_name("m.example")]
        usages = [CLIENT_AUTH, SERVER_AUTH]
        cert = issue(issuer, key.public_key(), subject="x", usages=usages, names=names, days=1)
        number = len(list(self.folder.glob("made-*.pem")))
        made = self.folder / f"made-{number}.pem", self.folder / f"made-{number}.key"
        made[0].write_bytes(b"".join(map(pem, (cert, *chain))))
        write_private(made[1], key)
        return made

    def der(self, issuer: Issuer, uri: str) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.files(issuer, uri)[0].read_text())

    def export(self) -> None:
        (self.folder / "bundle.json").write_text(json.dumps(make_bundle(self.domains[PARTNER])))


@pytest.fixture
def world(tmp_path: Path) -> World:
    domains = {name: TrustDomain.create(tmp_path / name, name) for name in (OWN, PARTNER)}
    for domain in domains.values():
        domain.add_monitor("m", ("m.example",))
    made = World(tmp_path, domains, None, None)  # type: ignore[arg-type]
    made.export()
    revoked = RevocationList(domains[OWN].crl, domains[OWN].identity_ca.read_bytes())
    made.partners = Partners(revoked.ca, [Federated(PARTNER, tmp_path / "bundle.json")])
    made.identities = Identities(OWN, revoked, made.partners)
    return made


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("name", [OWN, PARTNER])
def test_each_ca_for_its_own(world: World, name: str) -> None:
    uri = f"spiffe://{name}/monitor/x"
    der = world.der(world.issuer(name), uri)
    for found in (world.identities.client(der, now()), world.identities.server(der, now())):
        assert (found.spiffe_id, found.trust_domain) == (uri, name)


CLAIMED = [
    (PARTNER, f"spiffe://{OWN}/monitor/m", "not signed by the identity CA of own"),
    (PARTNER, f"spiffe://{OWN}/agent/a", "not signed by the identity CA of own"),
    (OWN, f"spiffe://{PARTNER}/monitor/m", "not signed by the identity CA of partner"),
    (PARTNER, "spiffe://third.example/monitor/m", "of the trust domain third"),
    (PARTNER, f"spiffe://{OWN}.{PARTNER}/monitor/m", r"of the trust domain own\.example\.partner"),
    (PARTNER, f"spiffe://x.{PARTNER}/monitor/m", "of the trust domain x"),
    (PARTNER, f"spiffe://{PARTNER}./monitor/m", "of the trust domain"),
    (PARTNER, "spiffe://OWN.example/monitor/m", "not an identity"),
    (PARTNER, "spiffe://Partner.example/monitor/m", "not an identity"),
    (PARTNER, "SPIFFE://partner.example/monitor/m", "not an identity"),
    (PARTNER, "spiffe://own%2eexample/monitor/m", "not an identity"),
    (PARTNER, "spiffe://partner.example/../own.example/monitor/m", "not an identity"),
    (PARTNER, "spiffe://partner.example@own.example/monitor/m", "not an identity"),
    (PARTNER, "spiffe://own.example:1@partner.example/monitor/m", "not an identity"),
    (PARTNER, "spiffe://partner.example#own.example/monitor/m", "not an identity"),
    (PARTNER, "spiffe://xn--prtner-cua.example/monitor/m", "of the trust domain xn--"),
    (PARTNER, f"spiffe://{PARTNER}", "not an identity"),
]


@pytest.mark.parametrize(("ca", "uri", "said"), CLAIMED)
def test_a_ca_that_speaks_of_another_domain(world: World, ca: str, uri: str, said: str) -> None:
    der = world.der(world.issuer(ca), uri)
    for ask in (world.identities.client, world.identities.server):
        with pytest.raises(VerificationError, match=said):
            ask(der, now())


def test_where_partners_are_nobody(world: World) -> None:
    der = world.der(world.issuer(PARTNER), f"spiffe://{PARTNER}/monitor/m")
    with pytest.raises(VerificationError, match=r"of the trust domain partner\.example, expected own"):
        world.identities.client(der, now(), own=True)
    world.identities.client(world.der(world.issuer(OWN), f"spiffe://{OWN}/agent/a"), now(), own=True)


def test_what_is_signed_below_a_ca_of_the_partner(world: World) -> None:
    """An intermediate, whatever it calls itself, is nobody's CA."""
    between = create_root("between", days=1, path_length=0, uri=f"spiffe://{PARTNER}")
    with pytest.raises(VerificationError, match="not signed by the identity CA of partner"):
        world.identities.client(world.der(between, f"spiffe://{PARTNER}/monitor/m"), now())


def test_a_list_of_one_domain_says_nothing_of_another(world: World) -> None:
    """The same serial number, revoked by the partner: ours is good."""
    domain = world.domains[PARTNER]
    theirs = domain.monitor("m")
    domain.revoke_monitor("m")
    world.export()
    world.partners.refresh()
    cert = x509.load_pem_x509_certificate(theirs.cert.read_bytes())
    with pytest.raises(VerificationError, match="is revoked"):
        world.identities.client(cert.public_bytes(Encoding.DER), now())
    own = world.issuer(OWN)
    builder = x509.CertificateBuilder(
        own.cert.subject,
        cert.subject,
        new_key().public_key(),
        cert.serial_number,
        cert.not_valid_before_utc,
        cert.not_valid_after_utc,
    ).add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{OWN}/agent/a")]), False)
    for extension in cert.extensions:
        if isinstance(extension.value, x509.KeyUsage | x509.ExtendedKeyUsage | x509.BasicConstraints):
            builder = builder.add_extension(extension.value, extension.critical)
    twin = builder.sign(own.key, cert.signature_hash_algorithm)  # type: ignore[arg-type]
    world.identities.client(twin.public_bytes(Encoding.DER), now())


def test_who_was_good_is_looked_at_again(world: World) -> None:
    der = ssl.PEM_cert_to_DER_cert(world.domains[PARTNER].monitor("m").cert.read_text())
    found = world.identities.client(der, now())
    world.identities.check(found, now())
    with pytest.raises(VerificationError, match="ask partner"):
        world.identities.check(found, now() + timedelta(days=95))
    world.domains[PARTNER].revoke_monitor("m")
    world.export()
    world.identities.refresh(OWN)
    world.identities.check(found, now())
    world.identities.refresh(PARTNER)
    with pytest.raises(VerificationError, match="is revoked"):
        world.identities.check(found, now())


@pytest.mark.parametrize("let_in", [True, False])
@pytest.mark.parametrize(("ca", "name"), [(OWN, OWN), (PARTNER, PARTNER)])
def test_a_listener_shakes_hands_with_partners_where_it_was_told_to(
    world: World, handshake: Any, let_in: bool, ca: str, name: str
) -> None:
    own = world.domains[OWN]
    files = own.monitor("m")
    server = listener_context(files.cert, files.key, own.identity_ca)
    if let_in:
        trust_partners(server, world.partners)
    client = client_context(own.identity_ca, *world.files(world.issuer(ca), f"spiffe://{name}/monitor/x"))
    if let_in or ca == OWN:
        _, session = handshake(server, client, "m.example")
        der = session.getpeercert(binary_form=True)
        assert world.identities.client(der, now()).trust_domain == name
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, client, "m.example")


def test_a_bundle_with_another_ca_counts_from_the_next_handshake_on(world: World, handshake: Any) -> None:
    own, path = world.domains[OWN], world.domains[PARTNER].path
    files = own.monitor("m")
    server = listener_context(files.cert, files.key, own.identity_ca)
    trust_partners(server, world.partners)
    former = world.issuer(PARTNER)
    other = TrustDomain.create(world.folder / "anew", PARTNER)
    anew = Issuer.load(other.identity_ca, other.path / "identity-ca.key")
    client = client_context(own.identity_ca, *world.files(anew, f"spiffe://{PARTNER}/monitor/x"))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "m.example")
    found = world.identities.client(world.der(former, f"spiffe://{PARTNER}/monitor/x"), now())
    path.rename(world.folder / "former")
    other.path.rename(path)
    world.export()
    handshake(server, client, "m.example")
    world.identities.client(world.der(anew, f"spiffe://{PARTNER}/monitor/x"), now())
    with pytest.raises(VerificationError, match="was exchanged"):
        world.identities.check(found, now())
    # OpenSSL does not forget the former one; whoever looks at identities does.
    handshake(server, client_context(own.identity_ca, *world.files(former, "spiffe://x.example/y")), "m.example")
    with pytest.raises(VerificationError, match="not signed by the identity CA of partner"):
        world.identities.client(world.der(former, f"spiffe://{PARTNER}/monitor/x"), now())


@pytest.mark.parametrize(
    ("ca", "uri", "said"),
    [
        (PARTNER, f"spiffe://{PARTNER}/monitor/m", ""),
        (PARTNER, f"spiffe://{PARTNER}/monitor/x", "expected spiffe"),
        (OWN, f"spiffe://{PARTNER}/monitor/m", "not signed by the identity CA of partner"),
        (OWN, f"spiffe://{OWN}/monitor/m", "expected spiffe"),
    ],
)
def test_a_server_that_is_a_partners(world: World, handshake: Callable[..., Any], ca: str, uri: str, said: str) -> None:
    own = world.domains[OWN]
    expected = ExpectedServer(
        f"spiffe://{PARTNER}/monitor/m",
        OWN,
        own.identity_ca,
        own.crl,
        (Federated(PARTNER, world.folder / "bundle.json"),),
    )
    context = client_context(own.identity_ca, own.monitor("m").cert, own.monitor("m").key)
    expected.watch(context)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*world.files(world.issuer(ca), uri))
    if said:
        with pytest.raises(ssl.SSLCertVerificationError, match=said):
            handshake(server, context, "m.example")
    else:
        handshake(server, context, "m.example")
