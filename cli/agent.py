"""`lictor agent`: the identities of a trust domain."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ..certs.domain import AGENT_DAYS, AgentInfo, TrustDomain
from .agent_hold import hold, holds, unhold
from .log_view import plain
from .ordering import config_option
from .output import console, json_option, print_json
from .quarantine import quarantine, quarantined, release


def trust_option[F: Callable[..., Any]](command: F) -> F:
    return click.option(
        "--trust",
        type=click.Path(path_type=Path),
        default=Path("trust"),
        show_default=True,
        help="The trust domain's directory.",
    )(command)


@click.group("agent")
def command() -> None:
    """Identities: who may use the monitors of a trust domain."""


command.add_command(quarantine)
command.add_command(release)
command.add_command(hold)
command.add_command(holds)
command.add_command(unhold)


@command.command("add")
@click.argument("name")
@click.option("--days", type=float, default=AGENT_DAYS, show_default=True, help="How long the certificate is good for.")
@trust_option
@json_option
def add(name: str, days: float, trust: Path, as_json: bool) -> None:
    """Make the agent NAME: a key and a certificate with its SPIFFE ID.

    Replaces a certificate that expired or was revoked; refuses to replace a good one.
    """
    domain = TrustDomain.open(trust)
    files = domain.add_agent(name, days)
    info = _find(domain, name)
    if as_json:
        print_json({**_to_json(info), "cert": str(files.cert), "key": str(files.key)})
        return
    console.print(f"{info.spiffe_id}, good until {info.not_after:%Y-%m-%d %H:%M}Z", markup=False)
    console.print(f"run it:  lictor exec --agent {name} -- CMD", markup=False)


@command.command("list")
@trust_option
@config_option
@json_option
def list_(trust: Path, config: Path, as_json: bool) -> None:
    """Show every agent: its identity, how long its certificate is good for, whether it is revoked.

    While the monitor runs, also whether it has the agent in quarantine.
    """
    agents, isolated = TrustDomain.open(trust).agents(), quarantined(config)
    if as_json:
        more = {} if isolated is None else {str(info.spiffe_id): None for info in agents} | isolated
        print_json([_to_json(info) | ({"quarantine": more[str(info.spiffe_id)]} if more else {}) for info in agents])
        return
    table = Table("agent", "identity", "good until (UTC)", "state", box=None)
    for info in agents:
        said = (isolated or {}).get(str(info.spiffe_id))
        state = _state(info) + (f", in quarantine: {plain(said['why'])}" if said is not None else "")
        table.add_row(info.name, str(info.spiffe_id), f"{info.not_after:%Y-%m-%d %H:%M}", Text(state))
    console.print(table if agents else "no agents yet: lictor agent add NAME")


@command.command("revoke")
@click.argument("name")
@trust_option
@json_option
def revoke(name: str, trust: Path, as_json: bool) -> None:
    """Revoke the certificate of the agent NAME. Running monitors refuse it from their next look at the list on."""
    info = TrustDomain.open(trust).revoke_agent(name)
    if as_json:
        print_json(_to_json(info))
        return
    console.print(f"revoked {info.spiffe_id}, serial {info.serial:x}", markup=False)


@command.command("rotate")
@click.argument("name")
@click.option("--days", type=float, default=AGENT_DAYS, show_default=True, help="How long the certificate is good for.")
@click.option("--revoke", is_flag=True, help="Revoke the certificate before at once, instead of letting it expire.")
@trust_option
@json_option
def rotate(name: str, days: float, revoke: bool, trust: Path, as_json: bool) -> None:
    """Give the agent NAME a new key and certificate.

    The one before stays good until it expires, so that what runs can go on; `lictor exec` takes the new one when it is
    started.
    """
    info = TrustDomain.open(trust).rotate_agent(name, days, revoke=revoke)
    if as_json:
        print_json(_to_json(info))
        return
    console.print(
        f"{info.spiffe_id}, serial {info.serial:x}, good until {info.not_after:%Y-%m-%d %H:%M}Z", markup=False
    )
    console.print("the one before is revoked" if revoke else "the one before stays good until it expires")


def _find(domain: TrustDomain, name: str) -> AgentInfo:
    return next(info for info in domain.agents() if info.name == name)


def _state(info: AgentInfo) -> str:
    if info.revoked:
        return "revoked"
    now = datetime.now(UTC)
    if info.usable(now):
        return "good"
    return "expired" if now > info.not_after else "not yet valid"


def _to_json(info: AgentInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "spiffe_id": str(info.spiffe_id),
        "serial": f"{info.serial:x}",
        "not_before": info.not_before.isoformat(),
        "not_after": info.not_after.isoformat(),
        "state": _state(info),
    }
