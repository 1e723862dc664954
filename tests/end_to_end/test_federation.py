"""Two organisations, each with a trust domain: work crosses, evidence goes with it, each CA vouches for its own only.

Agent a of own.example hands work to agent b of partner.example, and that one to agent c of own.example.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target, until

from lictor.certs.authority import CLIENT_AUTH, SERVER_AUTH, Issuer, issue, new_key, pem
from lictor.certs.bundle import make_bundle
from lictor.certs.domain import TrustDomain
from lictor.certs.monitors import host_name
from lictor.cli import main
from lictor.formats.keys import write_private

OWN, PARTNER = "own.example", "partner.example"
WHERE = {"a": OWN, "b": PARTNER, "c": OWN}
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}
SERVERS = {
    "good: the partner's": (f"spiffe://{PARTNER}/agent/b", PARTNER, f"spiffe://{PARTNER}/monitor/b"),
    "good: our own": (f"spiffe://{OWN}/agent/c", OWN, f"spiffe://{OWN}/monitor/c"),
    "partner's CA, our domain, expected the partner's": (
        f"spiffe://{PARTNER}/agent/b",
        PARTNER,
        f"spiffe://{OWN}/monitor/c",
    ),
    "partner's CA, our domain, expected ours": (f"spiffe://{OWN}/agent/c", PARTNER, f"spiffe://{OWN}/monitor/c"),
    "partner's CA, a third domain": (f"spiffe://{PARTNER}/agent/b", PARTNER, "spiffe://third.example/monitor/b"),
    "our CA, the partner's domain": (f"spiffe://{PARTNER}/agent/b", OWN, f"spiffe://{PARTNER}/monitor/b"),
    "our CA, expected the partner's": (f"spiffe://{PARTNER}/agent/b", OWN, f"spiffe://{OWN}/monitor/c"),
    "our CA, the partner's domain, expected ours": (f"spiffe://{OWN}/agent/c", OWN, f"spiffe://{PARTNER}/monitor/b"),
}
"""Servers before agents: the agent that the catalog names, the CA that issued the certificate, the name in it."""


def urn(name: str) -> str:
    return f"urn:test:agent:{name}"


def agent_id(name: str) -> str:
    return f"spiffe://{WHERE[name]}/agent/{name}"


class Agent(Server):
    """Hands every message on to `to`, if there is one, and answers as that one does."""

    http: httpx.Client | None = None
    to = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if self.http is not None:
            passed = self.http.post(self.to, json=MESSAGE)
            if passed.status_code != 200:
                handler.send_response(502)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
        super().answer(handler)


def client(monitor: Monitor, name: str) -> httpx.Client:
    """An agent's, behind its monitor."""
    proxy = httpx.Proxy(monitor.url, ssl_context=monitor.agent_context(name))
    return httpx.Client(proxy=proxy, verify=monitor.target_context(), trust_env=False, timeout=30)


@dataclass
class Two:
    """The two domains, a monitor and an agent for each of a, b and c, and where the bundles lie."""

    folder: Path
    domains: dict[str, TrustDomain]
    monitors: dict[str, Monitor]
    agents: dict[str, Agent]
    fakes: dict[str, Server]

    def bundle(self, of: str) -> Path:
        return self.folder / f"{of}.json"

    def exchange(self, of: str) -> None:
        """What people do: the bundle of one domain comes to lie with the other."""
        made = json.dumps(make_bundle(self.domains[of]))
        beside = self.folder / "new.json"
        beside.write_text(made)
        beside.rename(self.bundle(of))

    def url(self, name: str) -> str:
        return f"https://127.0.0.1:{self.monitors[name].ingress_port}/"

    def call(self, name: str, to: str) -> httpx.Response:
        with client(self.monitors[name], name) as http:
            return http.post(self.url(to), json=MESSAGE)

    def minted(self, ca: str, uri: str, stem: str, server: bool = False) -> tuple[Path, Path]:
        """A certificate that the CA of the domain `ca` issues for whatever is asked of it."""
        path, key = self.domains[ca].path, new_key()
        issuer = Issuer.load(path / "identity-ca.pem", path / "identity-ca.key")
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), host_name("127.0.0.1")]
        usages = [SERVER_AUTH, CLIENT_AUTH] if server else [CLIENT_AUTH]
        cert = issue(issuer, key.public_key(), subject="minted", usages=usages, names=names, days=1)
        files = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        files[0].write_bytes(pem(cert))
        write_private(files[1], key)
        return files

    def as_monitor(self, name: str, to: str) -> ssl.SSLContext:
        """TLS to `to` with the certificate of the monitor of `name`."""
        files = self.domains[WHERE[name]].monitor(self.monitors[name].name)
        return self.monitors[to].caller_context(files.cert, files.key)


def served(monitor: Monitor, context: ssl.SSLContext, port: int) -> int | None:
    """The status with which a request at this port is answered, if it is."""
    try:
        with Wire(monitor, context, port) as wire:
            return wire.request("GET", "/.well-known/agent-card.json", host=f"127.0.0.1:{port}").status
    except (OSError, EOFError):
        return None


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, outside: Outside) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("federation")
    domains = {name: TrustDomain.create(folder / name / "trust", name) for name in (OWN, PARTNER)}
    monitors, agents = {}, {name: Agent(None) for name in WHERE}
    for name, of in WHERE.items():
        domains[of].add_agent(name)
        other = PARTNER if of == OWN else OWN
        inbound = binding("urn:test:policy:inbound", delegation=[urn(name)], http_request=[f"{urn(name)}#/*"])
        shown = {
            "behavior_id": "bhv-shown",
            "observable_actions": ["delegation"],
            "compliance_criteria": {
                "type": "delegation",
                "incoming": {"issuers": [f"spiffe://{other}/monitor/*"], "result": "pass", "max_depth": 2},
            },
        }
        inbound["expected_behaviors"].append(shown)
        bindings = {
            "own": {**binding(delegation=[urn("*")]), "subjects": [agent_id(name)]},
            "inbound": {**inbound, "subjects": [f"spiffe://{other}/monitor/*"]},
            "everybody": binding("urn:test:policy:everybody", http_request=[f"{urn(name)}#/*"]),
        }
        ingress = f'agent = "{agent_id(name)}"\nurn = "{urn(name)}"\nupstream = "http://127.0.0.1:{agents[name].port}"'
        more = f'[orders]\nfrom = ["spiffe://{other}/monitor/{name}"]\n' if name == "c" else ""
        orders = free_port() if name == "c" else 0
        monitors[name] = Monitor(
            folder / f"monitor-{name}", domains[of], name, bindings, ingress=ingress, more=more, orders=orders
        )
    made = Two(folder, domains, monitors, agents, {})
    targets = "".join(target(urn(n), "agent", f"{made.url(n)}**", agent=agent_id(n)) for n in WHERE)
    for number, (what, (agent, ca, uri)) in enumerate(SERVERS.items()):
        cert = made.minted(ca, uri, f"server-{number}", server=True)
        fake = made.fakes[what] = Server(outside, cert=cert)
        targets += target(urn(f"fake-{number}"), "agent", f"https://127.0.0.1:{fake.port}/**", agent=agent)
    for name, of in WHERE.items():
        made.exchange(of)
        other = PARTNER if of == OWN else OWN
        table = f'[[federation]]\ntrust_domain = "{other}"\nbundle = "{made.bundle(other)}"\n\n'
        with monitors[name].config.open("a") as config:
            config.write(table + targets)
    agents["b"].http, agents["b"].to = client(monitors["b"], "b"), made.url("c")
    with contextlib.ExitStack() as stack:
        for server in (*agents.values(), *made.fakes.values()):
            stack.callback(server.close)
        stack.callback(agents["b"].http.close)
        with ThreadPoolExecutor() as pool:
            [*pool.map(Monitor.start, monitors.values())]
        yield made
        codes = [monitor.stop() for monitor in monitors.values()]
        assert codes == [0, 0, 0], [monitor.output() for monitor in monitors.values()]


@pytest.fixture
def lictor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The command line: exit code, and what it printed as JSON."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["lictor", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def delegations(monitor: Monitor) -> list[dict[str, Any]]:
    return [entry for entry in monitor.entries() if entry.get("action_type") == "delegation"]


def settled(two: Two) -> bool:
    found = {name: delegations(monitor) for name, monitor in two.monitors.items()}
    return all(2 * sum("outcome_of" in one for one in entries) == len(entries) for entries in found.values())


def test_a_chain_crosses_and_is_verified_with_both_bundles_only(two: Two, lictor: Any) -> None:
    assert two.call("a", "b").status_code == 200
    until(lambda: settled(two), what="all outcomes")
    ledgers = [monitor.path / "data" / "ledger.sqlite" for monitor in two.monitors.values()]
    ca = two.domains[OWN].identity_ca
    code, shown = lictor("chain", "verify", *ledgers, "--trust", ca, "--bundle", two.bundle(PARTNER))
    assert code == 0, shown
    assert sorted((edge["caller"], edge["callee"]) for edge in shown["chain"]["edges"]) == [
        (agent_id("a"), agent_id("b")),
        (agent_id("b"), agent_id("c")),
    ]
    assert {edge["state"] for edge in shown["chain"]["edges"]} == {"agreed"}
    (workflow,) = shown["chain"]["workflows"]
    assert {node["issuer"] for node in workflow["nodes"]} == {f"spiffe://{WHERE[n]}/monitor/{n}" for n in WHERE}
    # The configuration of either side says as much, and so do two bundles alone.
    assert lictor("chain", "verify", *ledgers, "-c", two.monitors["b"].config)[0] == 0
    both = [part for of in (OWN, PARTNER) for part in ("--bundle", two.bundle(of))]
    assert lictor("chain", "verify", *ledgers, "-c", two.folder / "none.toml", *both)[0] == 0

    code, shown = lictor("chain", "verify", *ledgers, "--trust", ca)
    assert code == 1
    expected = f"no CA is known that vouches for the trust domain {PARTNER}, only for {OWN}: its trust bundle is needed"
    assert [problem["what"] for problem in shown["chain"]["problems"] if problem["kind"] == "bad"] == [
        f"{ledgers[1]}: {expected}"
    ]
    assert [log["verdict"] for log in shown["logs"]] == ["intact", "bad", "intact"]
    # Without the partner's file its bundle still vouches for what it sent; what it received nobody can say.
    code, shown = lictor("chain", "verify", ledgers[0], ledgers[2], "--trust", ca, "--bundle", two.bundle(PARTNER))
    assert code == 3
    assert {problem["kind"] for problem in shown["chain"]["problems"]} == {"missing"}

    ledger = ledgers[1]
    assert lictor("log", "verify", ledger, "--trust", ca)[0] == 1
    assert lictor("log", "verify", ledger, "--trust", ca, "--bundle", two.bundle(PARTNER))[0] == 0
    token = two.monitors["b"].tokens("bets")[0]
    assert lictor("bet", "verify", token, "--trust", ca)[0] == 1
    assert lictor("bet", "verify", token, "--trust", ca, "--bundle", two.bundle(PARTNER))[0] == 0


REFUSED = {
    "partner's CA, own monitor": (PARTNER, f"spiffe://{OWN}/monitor/a"),
    "own CA, partner's monitor": (OWN, f"spiffe://{PARTNER}/monitor/b"),
    "partner's CA, a third domain": (PARTNER, "spiffe://third.example/monitor/b"),
    "partner's CA, its own domain below ours": (PARTNER, f"spiffe://{OWN}.{PARTNER}/monitor/b"),
    "partner's CA, our domain in capitals": (PARTNER, "spiffe://OWN.example/monitor/a"),
    "partner's CA, our domain percent-encoded": (PARTNER, "spiffe://own%2eexample/monitor/a"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_caller_that_its_ca_may_not_speak_of_is_refused(two: Two, what: str) -> None:
    c = two.monitors["c"]
    since, seen, said = len(c.entries()), c.output().count("refused a connection"), two.agents["c"].seen
    forged = two.minted(*REFUSED[what], stem=f"caller-{list(REFUSED).index(what)}")
    assert served(c, c.caller_context(*forged), c.ingress_port) is None
    until(lambda: c.output().count("refused a connection") > seen, what="a refusal that is logged")
    assert c.entries_of(since) == []
    assert two.agents["c"].seen == said
    assert served(c, two.as_monitor("b", "c"), c.ingress_port) == 200, "the control: the partner's monitor is served"


def test_what_the_partner_may_do_is_for_bindings_that_name_it(two: Two) -> None:
    """Its agents are known here, and no binding names them; one without subjects is for agents of the own domain."""
    agent = two.domains[PARTNER].agent("b")
    c = two.monitors["c"]
    assert served(c, c.caller_context(agent.cert, agent.key), c.ingress_port) == 403
    assert served(c, two.as_monitor("a", "c"), c.ingress_port) == 200


@pytest.mark.parametrize("who", ["the partner's monitor", "one that poses as ours"])
@pytest.mark.parametrize("port", ["egress", "orders"])
def test_partners_call_at_the_ingress_listener_only(two: Two, who: str, port: str) -> None:
    c = two.monitors["c"]
    orders = int(c.config.read_text().partition('orders = "127.0.0.1:')[2].partition('"')[0])
    context = two.as_monitor("b", "c")
    if who == "one that poses as ours":
        context = c.caller_context(*two.minted(PARTNER, f"spiffe://{OWN}/agent/c", f"posing-{port}"))
    assert served(c, context, c.port if port == "egress" else orders) is None


def test_no_session_is_resumed(two: Two) -> None:
    c, context = two.monitors["c"], two.as_monitor("b", "c")
    for session in (None, True):
        with Wire(c, context, c.ingress_port) as wire:
            assert wire.request("GET", "/.well-known/agent-card.json", host="x.example").status == 200
            assert not wire.socket.session_reused
            assert session is None or wire.socket.session is None or not wire.socket.session.has_ticket


@pytest.mark.parametrize("what", SERVERS)
def test_the_server_before_an_agent_is_of_the_agents_domain(two: Two, what: str) -> None:
    """Servers with certificates that one CA or the other has issued for whatever it was asked for."""
    good, fake = what.startswith("good"), two.fakes[what]
    with client(two.monitors["a"], "a") as http:
        status = http.post(f"https://127.0.0.1:{fake.port}/", json=MESSAGE).status_code
    assert (status, len(fake.requests)) == ((200, 1) if good else (502, 0))


def test_an_evidence_key_is_good_once_the_partner_has_told(two: Two) -> None:
    c = two.monitors["c"]
    two.domains[PARTNER].rotate_evidence("b")
    until(lambda: two.call("a", "b").status_code == 502, what="the new key is in use")
    refused = [entry["reason"] for entry in delegations(c) if entry.get("decision") == "deny"]
    assert set(refused) == {"ect_invalid"}
    two.exchange(PARTNER)
    assert two.call("a", "b").status_code == 200


def test_what_is_no_bundle_leaves_the_former_in_force(two: Two) -> None:
    c, said = two.monitors["c"], two.monitors["c"].output().count("stays in force")
    former = two.bundle(PARTNER).read_bytes()
    two.bundle(PARTNER).write_bytes(former[: len(former) // 2])
    until(lambda: c.output().count("stays in force") > said, what="an error that is logged")
    assert served(c, two.as_monitor("b", "c"), c.ingress_port) == 200
    assert c.output().count("stays in force") == said + 1
    two.bundle(PARTNER).write_bytes(former)


def test_a_revoked_monitor_is_refused_at_its_next_request(two: Two) -> None:
    """Also on a connection that is open. A list that is older is not taken again. Comes last: it stays revoked."""
    a, c, former = two.monitors["a"], two.monitors["c"], two.bundle(PARTNER).read_bytes()
    http, card = client(a, "a"), "/.well-known/agent-card.json"
    with http, Wire(c, two.as_monitor("b", "c"), c.ingress_port) as wire:
        assert wire.request("GET", card, host="x.example").status == 200
        assert http.post(two.url("b"), json=MESSAGE).status_code == 200
        two.domains[PARTNER].revoke_monitor("b")
        assert wire.request("GET", card, host="x.example").status == 200, "nobody here knows of it yet"
        two.exchange(PARTNER)
        with pytest.raises((OSError, EOFError)):
            wire.request("GET", card, host="x.example")
        until(lambda: "is revoked" in http.post(two.url("b"), json=MESSAGE).text, what="its server is left too")
    assert served(c, two.as_monitor("b", "c"), c.ingress_port) is None
    said = c.output().count("older than the bundle in force")
    two.bundle(PARTNER).write_bytes(former)
    until(lambda: c.output().count("older than the bundle in force") > said, what="an error that is logged")
    assert served(c, two.as_monitor("b", "c"), c.ingress_port) is None
