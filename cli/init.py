"""`lictor init DIR`: a working set to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..bindings import signing
from ..certs.domain import TrustDomain
from ..formats.errors import UsageError
from ..formats.keys import KeySigner
from .output import json_option, print_json

CONFIG = """\
# lictor.toml: one monitor. Every key: docs/configuration.md

[monitor]
name = "local"

[listen]
egress = "{egress}"

[identity]
trust = "trust"

[bindings]
directory = "bindings"

[ledger]
path = "data/ledger.sqlite"

# What an agent may call a tool, a data source, a model or another agent. For example:
#
# [[target]]
# urn = "urn:example:tool:search"
# kind = "tool"
# protocol = "mcp"
# match = ["https://mcp.example.com/mcp"]
"""

BINDING: dict[str, Any] = {
    "policy_id": "urn:lictor:policy:default",
    "version": "1.0.0",
    "evaluation_mode": "continuous",
    "expected_behaviors": [
        {
            "behavior_id": "web",
            "description": "The agent calls only these addresses",
            "observable_actions": ["http_request"],
            "compliance_criteria": {"type": "allowlist", "values": ["https://example.com/**"]},
        }
    ],
}


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--trust-domain", default="lictor.internal", show_default=True, help="Name of the new trust domain.")
@click.option("--agent", default="default", show_default=True, help="Name of the first agent.")
@click.option("--egress", default="127.0.0.1:8443", show_default=True, help="Where agents reach the monitor.")
@json_option
def command(directory: Path, trust_domain: str, agent: str, egress: str, as_json: bool) -> None:
    """Make DIRECTORY with a configuration, a trust domain, a first agent and a first signed binding.

    The binding lets the agent call https://example.com/ and nothing else.
    """
    if (directory / "lictor.toml").exists() or (directory / "trust").exists():
        raise UsageError(f"{directory} holds a lictor set already: choose another folder, or remove this one first")
    directory.mkdir(parents=True, exist_ok=True)
    domain = TrustDomain.create(directory / "trust", trust_domain)
    domain.add_agent(agent)
    domain.add_monitor("local")
    write_binding(directory / "bindings" / "default.json", BINDING, domain)
    (directory / "lictor.toml").write_text(CONFIG.format(egress=egress), "utf-8")
    if as_json:
        print_json({"directory": str(directory), "trust_domain": trust_domain, "agent": str(domain.agent_id(agent))})
        return
    click.echo(
        f"Made {directory}: lictor.toml, trust/ (keys: keep them), bindings/default.json (signed).\n\n"
        f"    cd {directory}\n"
        f"    lictor up\n\n"
        f"and in a second terminal, in the same folder:\n\n"
        f"    lictor exec --agent {agent} -- curl https://example.com/\n"
        f"    lictor exec --agent {agent} -- curl https://example.org/    (refused)\n"
        f"    lictor log show\n"
    )


def write_binding(path: Path, document: dict[str, Any], domain: TrustDomain) -> None:
    """Write a binding as people edit it, and its signature by the operator."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    signature = signing.sign(document, KeySigner.from_file(domain.operator_key))
    signing.signature_path(path).write_text(signature + "\n", "utf-8")
