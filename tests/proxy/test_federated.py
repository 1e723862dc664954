"""Partners in a worker: who a server before an agent must be, and when it is looked at again."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from lictor.certs.bundle import make_bundle
from lictor.certs.domain import TrustDomain
from lictor.formats.errors import UsageError, VerificationError
from lictor.formats.keys import KeySigner
from lictor.proxy.config import Config, load
from lictor.proxy.federated import Federation, check_bundles
from lictor.proxy.known_keys import KnownKeys
from lictor.proxy.worker import _listeners

OWN, PARTNER = "own.example", "partner.example"
TEXT = """
[monitor]
name = "m"
[listen]
egress = "127.0.0.1:8443"
[identity]
trust = "own"
[bindings]
directory = "bindings"
[ledger]
path = "ledger.sqlite"
"""
TABLE = f'[[federation]]\ntrust_domain = "{PARTNER}"\nbundle = "partner.json"\n'


def target(agent: str, more: str = "") -> str:
    head = '[[target]]\nurn = "urn:test:agent"\nkind = "agent"\nmatch = ["https://b.example/**"]\n'
    return f'{head}agent = "{agent}"\n{more}'


@pytest.fixture
def partner(tmp_path: Path) -> TrustDomain:
    TrustDomain.create(tmp_path / "own", OWN).add_monitor("m")
    made = TrustDomain.create(tmp_path / "partner", PARTNER)
    for name in ("m", "n"):
        made.add_monitor(name)
    export(made)
    return made


def export(partner: TrustDomain) -> None:
    beside = partner.path.parent / "beside"
    beside.write_text(json.dumps(make_bundle(partner)))
    beside.rename(partner.path.parent / "partner.json")


def config(partner: TrustDomain, more: str = "") -> Config:
    path = partner.path.parent / "lictor.toml"
    path.write_text(TEXT + TABLE + more)
    return load(path)


def der(domain: TrustDomain, name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(domain.monitor(name).cert.read_text())


@pytest.mark.parametrize("monitor", ["", "m"])
def test_the_server_before_an_agent(partner: TrustDomain, tmp_path: Path, monitor: str) -> None:
    named = f'evidence = "https://b.example"\nmonitor = "spiffe://{PARTNER}/monitor/{monitor}"\n' if monitor else ""
    loaded = config(partner, target(f"spiffe://{PARTNER}/agent/b", named))
    federation = Federation(loaded, tmp_path)
    ca, accept = federation.server(loaded.targets[0])
    assert ca is not None
    assert accept is not None
    assert ca.read_bytes() == partner.identity_ca.read_bytes(), "no other CA is asked at all"
    accept(der(partner, "m"))
    own = TrustDomain.open(tmp_path / "own")
    for other in [der(own, "m"), *([der(partner, "n")] if monitor else [])]:
        with pytest.raises(VerificationError, match=r"the server is .*, expected"):
            accept(other)
    partner.revoke_monitor("m")
    export(partner)
    with pytest.raises(VerificationError, match="is revoked"):
        accept(der(partner, "m"))


def test_a_ca_that_is_named_is_the_one(partner: TrustDomain, tmp_path: Path) -> None:
    loaded = config(partner, target("spiffe://third.example/agent/b", 'ca = "own/identity-ca.pem"\n'))
    assert Federation(loaded, tmp_path).server(loaded.targets[0]) == (tmp_path / "own/identity-ca.pem", None)


def test_an_agent_of_a_domain_that_is_not_known(partner: TrustDomain) -> None:
    with pytest.raises(UsageError, match=r"target\[0\]\.agent is of the trust domain third\.example, whose CA is not"):
        config(partner, target("spiffe://third.example/agent/b"))


def test_when_servers_are_looked_at_again(partner: TrustDomain, tmp_path: Path) -> None:
    federation = Federation(config(partner), tmp_path)
    assert [federation.look() for _ in range(3)] == [False] * 3
    TrustDomain.open(tmp_path / "own").renew_crl()
    assert [federation.look() for _ in range(2)] == [True, False]
    export(partner)
    federation.partners.refresh()  # as every request of a partner does
    assert [federation.look() for _ in range(2)] == [True, False]
    (tmp_path / "partner.json").write_text("nothing")
    assert not federation.look()


def test_a_bundle_that_cannot_be_taken_stops_the_start(partner: TrustDomain, tmp_path: Path) -> None:
    loaded = config(partner)
    check_bundles(loaded)
    (tmp_path / "partner.json").write_text("{}")
    with pytest.raises(UsageError, match=r"federation: the trust bundle .*partner\.json cannot be relied on"):
        check_bundles(loaded)


def test_partners_call_where_evidence_is_handed_over_and_not_where_orders_are_given(partner: TrustDomain) -> None:
    loaded = config(partner)
    assert loaded.listener("evidence").partners == loaded.federation
    assert loaded.listener("api").partners == loaded.listener("orders").partners == ()


@pytest.mark.parametrize("of", [OWN, PARTNER])
def test_of_partners_the_verifier_alone_reads_the_log_and_gives_orders(partner: TrustDomain, of: str) -> None:
    name = f"spiffe://{of}/verifier/v"
    loaded = config(partner, f'[verifier]\nurl = "https://127.0.0.1:1"\nname = "{name}"\n')
    for listener in map(loaded.listener, ("api", "orders")):
        assert (listener.partners == loaded.federation) == (of == PARTNER)
        assert listener.named == (name,)
    outside = [name] if of == PARTNER else []
    assert list(loaded.evidence.audience) == [f"spiffe://{OWN}/verifier", *outside]


def test_evidence_keys_of_partners(partner: TrustDomain, tmp_path: Path) -> None:
    federation, own = Federation(config(partner), tmp_path), TrustDomain.open(tmp_path / "own")
    keys = KnownKeys(own.path, own.identity_ca.read_bytes(), federation.partners)
    theirs, ours = (KeySigner.from_file(domain.monitor("m").evidence_key).kid for domain in (partner, own))
    keys.resolve(theirs, f"spiffe://{PARTNER}/monitor/m")
    keys.resolve(ours, f"spiffe://{OWN}/monitor/m")
    for kid, iss in ((theirs, f"spiffe://{OWN}/monitor/m"), (ours, f"spiffe://{PARTNER}/monitor/m")):
        with pytest.raises(VerificationError):
            keys.resolve(kid, iss)


def test_only_the_listener_for_work_trusts_partners_cas(partner: TrustDomain, tmp_path: Path) -> None:
    text = TEXT.replace("[identity]", 'ingress = "127.0.0.1:8444"\n[identity]')
    ingress = f'[ingress]\nagent = "spiffe://{OWN}/agent/a"\nurn = "urn:test:a"\nupstream = "http://127.0.0.1:1"\n'
    (tmp_path / "lictor.toml").write_text(text + TABLE + ingress)
    loaded = load(tmp_path / "lictor.toml")
    trusted = {one.mode: one.ssl.get_ca_certs() for one in _listeners(loaded, Federation(loaded, tmp_path)) if one.ssl}
    assert {mode: len(cas) for mode, cas in trusted.items()} == {"regular": 1, "reverse:http://127.0.0.1:1": 2}
