"""The files of the demo: a trust domain, the certificates of the world outside, two monitors with their bindings."""

from __future__ import annotations

import ipaddress
import os
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
CARD_PATH = ".well-known/agent-card.json"
CUSTOMER = "urn:demo:customer:42"
"""The name in the client certificate with which monitor a shows itself to the data sources."""


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the programs outside listen, and agent B's public address (the ingress listener of monitor b)."""

    tool: str
    approved_data: str
    other_data: str
    agent_b: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the monitors' listeners and of agent B itself."""

    egress_a: int
    egress_b: int
    ingress_b: int
    agent_b: int


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
        for name in ("a", "b"):
            self.monitor(name).mkdir()


def make_trust_domain(world: World) -> TrustDomain:
    """CAs, the operator's key, two agents and two monitors."""
    domain = TrustDomain.create(world.trust, TRUST_DOMAIN)
    for name in ("a", "b"):
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
    world.configuration("a").write_text(f"""\
# Monitor a stands in front of agent a.
[monitor]
name = "a"

[listen]
egress = "127.0.0.1:{ports.egress_a}"

[identity]
trust = "../trust"

[bindings]
directory = "bindings"

[ledger]
path = "ledger.db"

{_tool(urls.tool)}
{_data(APPROVED_DATA, urls.approved_data)}
{_data(OTHER_DATA, urls.other_data)}
[[target]]
urn = "{AGENT_B}"
kind = "agent"
protocol = "a2a"
agent = "spiffe://{TRUST_DOMAIN}/agent/b"
match = ["{urls.agent_b}**"]
""")
    behaviors = [
        _allow("tools", "Converts money, nothing else", "tool_call", [TOOL, f"{TOOL}#tools/convert"]),
        _allow("data", "Reads the sales records only", "data_source_access", [APPROVED_DATA]),
        _allow("delegation", "Hands work to agent b only", "delegation", [AGENT_B]),
        _allow("web", "Reads the card of agent b", "http_request", [urls.agent_b + CARD_PATH]),
    ]
    _write_binding(world, "a", "agent/a", behaviors)


def write_monitor_b(world: World, ports: Ports, urls: Urls) -> None:
    """Monitor b: an ingress listener in front of agent b, and an egress listener behind it.

    What may come in is the business of a binding of its own: there the subject is who calls, which is monitor a.
    """
    world.configuration("b").write_text(f"""\
# Monitor b stands on both sides of agent b.
[monitor]
name = "b"

[listen]
egress = "127.0.0.1:{ports.egress_b}"
ingress = "127.0.0.1:{ports.ingress_b}"

[ingress]
agent = "spiffe://{TRUST_DOMAIN}/agent/b"
urn = "{AGENT_B}"
upstream = "http://127.0.0.1:{ports.agent_b}"

[identity]
trust = "../trust"

[bindings]
directory = "bindings"

[ledger]
path = "ledger.db"

{_tool(urls.tool)}""")
    behaviors = [_allow("tools", "Counts words, nothing else", "tool_call", [TOOL, f"{TOOL}#tools/count_words"])]
    _write_binding(world, "b", "agent/b", behaviors)
    behaviors = [
        _allow("delegation", "Hands work to agent b", "delegation", [AGENT_B]),
        _allow("card", "Reads the card of agent b", "http_request", [f"{AGENT_B}#/{CARD_PATH}"]),
    ]
    _write_binding(world, "b", "monitor/a", behaviors)


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
    name = subject.replace("/", "-")
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
