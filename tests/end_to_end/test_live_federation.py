"""A chain across two trust domains verified live, from the monitors of both; and what partners get at an API."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from end_to_end.witnesses import lictor
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target

from lictor.certs.authority import CLIENT_AUTH, SERVER_AUTH, Issuer, issue, new_key, pem
from lictor.certs.bundle import make_bundle
from lictor.certs.domain import TrustDomain
from lictor.certs.monitors import host_name
from lictor.formats.keys import write_private

OWN, PARTNER = "own.example", "partner.example"
URN = "urn:test:agent:b"
AUDITOR = f"spiffe://{OWN}/agent/auditor"
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}
LOG = ("/checkpoint", "/tile/0/000.p/1", "/jwks.json", "/monitor", "/export")
Files = tuple[Path, Path]


@dataclass
class Two:
    """Agent a of own.example hands work to b of partner.example; both monitors let own's auditor have their logs."""

    folder: Path
    own: TrustDomain
    partner: TrustDomain
    a: Monitor
    b: Monitor
    ports: dict[str, int]

    def url(self, name: str) -> str:
        return f"https://127.0.0.1:{self.ports[name]}"

    @property
    def urls(self) -> tuple[str, str]:
        return self.url("a"), self.url("b")

    def bundle(self, of: TrustDomain) -> Path:
        return self.folder / f"{of.name}.json"

    def exchange(self, of: TrustDomain) -> None:
        beside = self.folder / "new.json"
        beside.write_text(json.dumps(make_bundle(of)))
        beside.rename(self.bundle(of))

    def minted(self, ca: TrustDomain, uri: str, stem: str, server: bool = False) -> Files:
        """A certificate that a CA issues for whatever is asked of it."""
        key, issuer = new_key(), Issuer.load(ca.identity_ca, ca.path / "identity-ca.key")
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), host_name("127.0.0.1")]
        usages = [SERVER_AUTH, CLIENT_AUTH] if server else [CLIENT_AUTH]
        cert = issue(issuer, key.public_key(), subject="minted", usages=usages, names=names, days=1)
        files = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        files[0].write_bytes(pem(cert))
        write_private(files[1], key)
        return files

    def get(self, name: str, files: Files, path: str) -> int | None:
        """The status with which the API of a monitor answers, if it does."""
        server = self.own if name == "a" else self.partner
        context = ssl.create_default_context(cafile=str(server.identity_ca))
        context.load_cert_chain(*files)
        connection = http.client.HTTPSConnection("127.0.0.1", self.ports[name], context=context, timeout=15)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def agent(self, of: TrustDomain, name: str) -> Files:
        files = of.agent(name)
        return files.cert, files.key

    def verify(self, *arguments: object, command: tuple[str, str] = ("chain", "verify")) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of a command that asks as own's auditor."""
        done = lictor(*command, *arguments, "--as", "auditor", "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def with_both(self) -> tuple[object, ...]:
        return "--trust", self.own.identity_ca, "--bundle", self.bundle(self.partner)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("live")
    own, partner = (TrustDomain.create(folder / name / "trust", name) for name in (OWN, PARTNER))
    for domain in (own, partner):
        for name in ("auditor", "nobody", "leaving"):
            domain.add_agent(name)
    own.add_agent("a")
    ports = {name: free_port() for name in "ab"}
    with contextlib.closing(Server(None)) as agent, contextlib.ExitStack() as stack:
        serves = f'[api]\nauditors = ["{AUDITOR}", "spiffe://{OWN}/agent/leaving"]\n'
        inbound = {**binding(delegation=[URN]), "subjects": [f"spiffe://{OWN}/monitor/*"]}
        ingress = f'agent = "spiffe://{PARTNER}/agent/b"\nurn = "{URN}"\nupstream = "http://127.0.0.1:{agent.port}"'
        b = Monitor(folder / "b", partner, "b", {"inbound": inbound}, more=serves, ingress=ingress)
        way = target(URN, "agent", f"https://127.0.0.1:{b.ingress_port}/**", agent=f"spiffe://{PARTNER}/agent/b")
        a = Monitor(folder / "a", own, "a", {"main": binding(delegation=[URN])}, way, more=serves)
        made = Two(folder, own, partner, a, b, ports)
        for name, monitor, other in (("a", a, partner), ("b", b, own)):
            made.exchange(other)
            text = monitor.config.read_text().replace("[listen]\n", f'[listen]\napi = "127.0.0.1:{ports[name]}"\n')
            table = f'\n[[federation]]\ntrust_domain = "{other.name}"\nbundle = "{made.bundle(other)}"\n'
            monitor.config.write_text(text + table)
            stack.callback(monitor.stop)
            monitor.start()
        proxy = httpx.Proxy(a.url, ssl_context=a.agent_context("a"))
        with httpx.Client(proxy=proxy, verify=a.target_context(), trust_env=False, timeout=30) as http_:
            assert http_.post(f"https://127.0.0.1:{b.ingress_port}/", json=MESSAGE).status_code == 200
        a.outcome()
        b.outcome()
        yield made
        assert [a.stop(), b.stop()] == [0, 0], a.output() + b.output()


def test_the_chain_of_both_is_intact(two: Two) -> None:
    code, said = two.verify(*two.urls, *two.with_both())
    assert (code, said["chain"]["verdict"]) == (0, "intact"), said
    assert [(log["file"], log["verdict"]) for log in said["logs"]] == [(url, "intact") for url in two.urls]
    (edge,) = said["chain"]["edges"]
    assert (edge["state"], edge["caller"]) == ("agreed", f"spiffe://{OWN}/agent/a")
    # The bundles of the configuration do as well, and one's own bundle is no harm.
    assert two.verify(*two.urls, "-c", two.a.config)[0] == 0
    assert two.verify(*two.urls, *two.with_both(), "--bundle", two.bundle(two.own))[0] == 0
    assert len(two.verify(*two.urls, *two.with_both(), command=("chain", "show"))[1]["workflows"]) == 1
    for command in (("log", "verify"), ("monitor", "verify")):
        assert two.verify(two.url("b"), *two.with_both(), command=command)[0] == 0


def test_without_the_bundle_the_partners_monitor_is_nobody(two: Two) -> None:
    code, said = two.verify(*two.urls, "--trust", two.own.identity_ca)
    assert (code, [log["verdict"] for log in said["logs"]]) == (3, ["intact", "missing"]), said
    problem = said["logs"][1]["problem"]["what"]
    assert "--bundle" in problem, problem


@pytest.mark.parametrize("path", LOG)
@pytest.mark.parametrize("name", ["a", "b"])
def test_the_auditor_that_is_named_has_the_log(two: Two, name: str, path: str) -> None:
    assert two.get(name, two.agent(two.own, "auditor"), path) == 200


@pytest.mark.parametrize("path", ["/healthz", "/nothing", *LOG])
def test_partners_get_what_auditors_names_and_no_more(two: Two, path: str) -> None:
    assert two.get("b", two.agent(two.own, "nobody"), path) == 403
    assert two.get("b", two.agent(two.partner, "nobody"), path) == {"/export": 403, "/nothing": 404}.get(path, 200)
    # At the API of a, no auditor is of the partner's trust domain.
    for who in ("auditor", "nobody"):
        assert two.get("a", two.agent(two.partner, who), path) is None


def test_how_a_monitor_fares_is_for_its_own_domain(two: Two) -> None:
    assert two.get("b", two.agent(two.own, "auditor"), "/healthz") == 403
    assert two.get("b", two.agent(two.partner, "auditor"), "/healthz") == 200


CALLERS = {
    "the auditor's name, from the other CA": (PARTNER, AUDITOR),
    "our CA, the partner's agent": (OWN, f"spiffe://{PARTNER}/agent/auditor"),
    "our CA, a third domain": (OWN, "spiffe://third.example/agent/auditor"),
    "our CA, a name below": (OWN, f"{AUDITOR}/x"),
    "our CA, a monitor": (OWN, f"spiffe://{OWN}/monitor/a"),
}


@pytest.mark.parametrize("what", CALLERS)
def test_each_ca_vouches_for_its_own_auditors(two: Two, what: str) -> None:
    ca, uri = CALLERS[what]
    forged = two.minted(two.own if ca == OWN else two.partner, uri, f"caller-{list(CALLERS).index(what)}")
    assert {two.get("b", forged, path) for path in (*LOG, "/healthz")} <= {403, None}


SERVERS = {
    "partner's CA, our monitor": (PARTNER, f"spiffe://{OWN}/monitor/a"),
    "our CA, the partner's monitor": (OWN, f"spiffe://{PARTNER}/monitor/b"),
    "partner's CA, a third domain": (PARTNER, "spiffe://third.example/monitor/b"),
    "partner's CA, no monitor": (PARTNER, f"spiffe://{PARTNER}/agent/b"),
}


@pytest.mark.parametrize("what", SERVERS)
def test_each_ca_vouches_for_its_own_servers(two: Two, outside: Outside, what: str) -> None:
    ca, uri = SERVERS[what]
    number = list(SERVERS).index(what)
    cert = two.minted(two.own if ca == OWN else two.partner, uri, f"server-{number}", server=True)
    with contextlib.closing(Server(outside, cert=cert)) as fake:
        code, said = two.verify(f"https://127.0.0.1:{fake.port}", *two.with_both())
    assert (code, said["logs"][0]["verdict"], fake.requests) == (3, "missing", [])


def test_a_revoked_auditor_is_refused_once_the_partner_knows(two: Two) -> None:
    files = two.agent(two.own, "leaving")
    two.own.revoke_agent("leaving")
    assert two.get("b", files, "/export") == 200, "nobody there knows of it yet"
    two.exchange(two.own)
    assert two.get("b", files, "/export") == 403
