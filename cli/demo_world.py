"""The files of the demo: a trust domain, the certificates of the world outside, three monitors with their bindings."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from ..certs import authority
from ..certs.domain import TrustDomain
from ..formats.keys import write_private
from .init import write_binding

TRUST_DOMAIN = "demo.example"
TOOL = "urn:demo:tool:office"
APPROVED_DATA = "urn:demo:data:sales"
OTHER_DATA = "urn:demo:data:payroll"
AGENT_B = "urn:demo:agent:b"
AGENT_C = "urn:demo:agent:c"
NAMES = ("a", "b", "c")
EVIDENCE_ASKED = {"issuers": [f"spiffe://{TRUST_DOMAIN}/monitor/b"], "result": "pass", "max_age_s": 300, "max_depth": 2}
"""What a caller of agent C must show."""
CARD_PATH = ".well-known/agent-card.json"
CUSTOMER = "urn:demo:customer:42"
"""The name in the client certificate with which monitor a shows itself to the data sources."""


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the programs outside listen, and the public addresses of the agents: their monitors' ingress listeners."""

    tool: str
    approved_data: str
    other_data: str
    agent_b: str
    agent_c: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of one monitor's listeners, and of the agent behind its ingress listener."""

    egress: int
    ingress: int
    agent: int


@dataclass(frozen=True, slots=True)
class World:
    """The folders of one demo."""

    root: Path

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def identity_ca(self) -> Path:
        return self.trust / "identity-ca.pem"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def logs(self) -> Path:
        return self.root / "output"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def files(self) -> dict[str, Path]:
        """What each monitor's log is exported to."""
        return {name: self.evidence / f"{name}.jsonl" for name in NAMES}

    def calls(self, name: str) -> Path:
        """The file in which a program outside counts what arrived."""
        return self.outside / f"{name}-calls.json"

    def monitor(self, name: str) -> Path:
        return self.root / f"monitor-{name}"

    def configuration(self, name: str) -> Path:
        return self.monitor(name) / "lictor.toml"

    def make_folders(self) -> None:
        for folder in (self.outside, self.logs, self.evidence):
            folder.mkdir(parents=True)
        for name in NAMES:
            self.monitor(name).mkdir()


def make_trust_domain(world: World) -> TrustDomain:
    """CAs, the operator's key, three agents and three monitors."""
    domain = TrustDomain.create(world.trust, TRUST_DOMAIN)
    for name in NAMES:
        domain.add_agent(name)
        domain.add_monitor(name)
    return domain


def make_outside(world: World) -> None:
    """A CA outside of the trust domain, and what it signed: the servers, and monitor a as their customer."""
    root = authority.create_root("Demo: the world outside", days=1, path_length=0)
    (world.outside / "ca.pem").write_bytes(authority.pem(root.cert))
    localhost: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    _issue(world, root, "server", localhost, authority.SERVER_AUTH)
    _issue(world, root, "customer", [x509.UniformResourceIdentifier(CUSTOMER)], authority.CLIENT_AUTH)


def _issue(
    world: World,
    root: authority.Issuer,
    name: str,
    names: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
) -> None:
    key = authority.new_key()
    cert = authority.issue(root, key.public_key(), subject=f"Demo {name}", usages=[usage], names=names, days=1)
    (world.outside / f"{name}.pem").write_bytes(authority.pem(cert))
    write_private(world.outside / f"{name}.key", key)


def write_monitor_a(world: World, ports: Ports, urls: Urls) -> None:
    """Monitor a, in front of agent a: the catalog of all that is known, and the binding of what is approved."""
    targets = (
        _tool(urls.tool),
        _data(APPROVED_DATA, urls.approved_data),
        _data(OTHER_DATA, urls.other_data),
        _agent(AGENT_B, "b", urls.agent_b),
        _agent(AGENT_C, "c", urls.agent_c),
    )
    _write_configuration(world, "a", "Monitor a stands in front of agent a.", ports, "", targets)
    behaviors = [
        _allow("tools", "Converts money, nothing else", "tool_call", [TOOL, f"{TOOL}#tools/convert"]),
        _allow("data", "Reads the sales records only", "data_source_access", [APPROVED_DATA]),
        _allow("delegation", "Hands work to agents b and c", "delegation", [AGENT_B, AGENT_C]),
        _allow("web", "Reads their cards", "http_request", [urls.agent_b + CARD_PATH, urls.agent_c + CARD_PATH]),
    ]
    _write_binding(world, "a", "agent/a", behaviors)


def write_monitor_b(world: World, ports: Ports, urls: Urls) -> None:
    """Monitor b, on both sides of agent b, which may hand work on to agent c and do nothing else."""
    _write_around(world, "b", AGENT_B, ports, _agent(AGENT_C, "c", urls.agent_c))
    behaviors = [
        _allow("delegation", "Hands work to agent c only", "delegation", [AGENT_C]),
        _allow("web", "Reads the card of agent c", "http_request", [urls.agent_c + CARD_PATH]),
    ]
    _write_binding(world, "b", "agent/b", behaviors)
    _write_binding(world, "b", "monitor/a", _inbound("b", AGENT_B))


def write_monitor_c(world: World, ports: Ports, urls: Urls) -> None:
    """Monitor c, on both sides of agent c. It takes work from monitor b only, whose evidence must be a pass."""
    _write_around(world, "c", AGENT_C, ports, _tool(urls.tool))
    behaviors = [_allow("tools", "Counts words, nothing else", "tool_call", [TOOL, f"{TOOL}#tools/count_words"])]
    _write_binding(world, "c", "agent/c", behaviors)
    shown = {
        "behavior_id": "evidence",
        "description": "Comes from monitor b, with evidence that nothing was violated, and was handed on twice at most",
        "observable_actions": ["delegation"],
        "compliance_criteria": {"type": "delegation", "incoming": EVIDENCE_ASKED},
    }
    _write_binding(world, "c", "monitor/*", [*_inbound("c", AGENT_C), shown])


def _inbound(name: str, urn: str) -> list[dict[str, Any]]:
    """What may come in is the business of a binding of its own: there the subject is who calls, which is a monitor."""
    return [
        _allow("delegation", f"Hands work to agent {name}", "delegation", [urn]),
        _allow("card", f"Reads the card of agent {name}", "http_request", [f"{urn}#/{CARD_PATH}"]),
    ]


def _write_around(world: World, name: str, urn: str, ports: Ports, target: str) -> None:
    """A monitor with an ingress listener in front of its agent, and an egress listener behind it."""
    ingress = f"""
[ingress]
agent = "spiffe://{TRUST_DOMAIN}/agent/{name}"
urn = "{urn}"
upstream = "http://127.0.0.1:{ports.agent}"
"""
    about = f"Monitor {name} stands on both sides of agent {name}."
    _write_configuration(world, name, about, ports, f'ingress = "127.0.0.1:{ports.ingress}"\n{ingress}', (target,))


def _write_configuration(
    world: World, name: str, about: str, ports: Ports, ingress: str, targets: Iterable[str]
) -> None:
    world.configuration(name).write_text(
        f"""\
# {about}
[monitor]
name = "{name}"

[listen]
egress = "127.0.0.1:{ports.egress}"
{ingress}
[identity]
trust = "../trust"

[bindings]
directory = "bindings"

[ledger]
path = "ledger.db"

"""
        + "\n".join(targets)
    )


def _agent(urn: str, name: str, url: str) -> str:
    return f"""\
[[target]]
urn = "{urn}"
kind = "agent"
protocol = "a2a"
agent = "spiffe://{TRUST_DOMAIN}/agent/{name}"
match = ["{url}**"]
"""


def _tool(url: str) -> str:
    return f"""\
[[target]]
urn = "{TOOL}"
kind = "tool"
protocol = "mcp"
match = ["{url}"]
ca = "../outside/ca.pem"
"""


def _data(urn: str, url: str) -> str:
    return f"""\
[[target]]
urn = "{urn}"
kind = "data_source"
match = ["{url}**"]
ca = "../outside/ca.pem"
client_cert = "../outside/customer.pem"
client_key = "../outside/customer.key"
"""


def _allow(behavior_id: str, description: str, action: str, values: list[str]) -> dict[str, Any]:
    return {
        "behavior_id": behavior_id,
        "description": description,
        "observable_actions": [action],
        "compliance_criteria": {"type": "allowlist", "values": values},
    }


def _write_binding(world: World, monitor: str, subject: str, behaviors: list[dict[str, Any]]) -> None:
    """Write what `subject` (the path of its SPIFFE ID) may do, signed, for a monitor to enforce."""
    name = subject.replace("/*", "s").replace("/", "-")
    document = {
        "policy_id": f"urn:demo:policy:{name}",
        "version": "1.0.0",
        "subjects": [f"spiffe://{TRUST_DOMAIN}/{subject}"],
        "expected_behaviors": behaviors,
        "evaluation_mode": "continuous",
    }
    write_binding(world.monitor(monitor) / "bindings" / f"{name}.json", document, TrustDomain.open(world.trust))


def clean_environment() -> dict[str, str]:
    """This process's environment without the proxies and CAs that programs would follow."""
    names = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    return {k: v for k, v in os.environ.items() if k not in names and not k.upper().endswith("_PROXY")}
