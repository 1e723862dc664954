"""`lictor verifier`: the Verifier, and whoever asks it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ..certs.domain import MONITOR_DAYS, TrustDomain
from ..formats.errors import UsageError
from ..formats.plain import log_to_stderr
from ..formats.settings import spiffe_id
from ..proxy import loop
from ..verifier.service import asking
from ..verifier.service.config import load
from ..verifier.service.ear import PROFILES, Profile, Status, Submodule
from ..verifier.service.http import Service
from ..verifier.service.register import Register
from .agent import trust_option
from .bet import Moment
from .log_options import FILE
from .log_view import plain
from .output import console, json_option, print_json
from .verifier_call import Call, calling
from .verifier_disclose import disclose

EXITS: dict[Status, int] = {"affirming": 0, "warning": 1, "contraindicated": 1, "none": 3}

_config = click.option(
    "-c", "--config", type=FILE, default=Path("verifier.toml"), show_default=True, help="The Verifier."
)


@click.group("verifier")
def command() -> None:
    """The Verifier appraises the evidence that monitors push, and answers whoever relies on agents."""


command.add_command(disclose)


@command.command("add")
@click.argument("name")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="A name or address that it listens on.")
@click.option("--days", type=float, default=MONITOR_DAYS, show_default=True, help="How long its certificates are good.")
@trust_option
@json_option
def add(name: str, hosts: tuple[str, ...], days: float, trust: Path, as_json: bool) -> None:
    """Make the Verifier NAME: its identity, and the key that signs its results."""
    files = TrustDomain.open(trust).add_verifier(name, hosts, days)
    if as_json:
        print_json({"ok": True, "verifier": str(files.spiffe_id), "directory": str(files.directory)})
        return
    host = hosts[0] if hosts else "127.0.0.1"
    text = (
        f"{files.spiffe_id}\n\n"
        "write into verifier.toml, then run  lictor verifier up:\n\n"
        f'name = "{name}"\nlisten = "{host}:8460"\ntrust = "{trust}"\nregister = "data/register.sqlite"\n\n'
        "and into the lictor.toml of each monitor:\n\n"
        f'[verifier]\nurl = "https://{host}:8460"\nname = "{files.spiffe_id}"'
    )
    console.print(text, markup=False)


@command.command("up")
@_config
def up(config: Path) -> None:
    """Run the Verifier of ./verifier.toml until Ctrl-C or SIGTERM."""
    log_to_stderr("lictor verifier: %(message)s")
    settings = load(config)
    host, port = settings.listen

    async def serve() -> None:
        ready = f"lictor: {settings.spiffe_id} listens on {host}:{port}"
        await Service(settings).run(lambda: click.echo(ready))

    loop.run(serve())


@command.command("forgive")
@click.argument("monitor")
@_config
@json_option
def forgive(monitor: str, config: Path, as_json: bool) -> None:
    """Drop what the Verifier holds against MONITOR (its SPIFFE ID) after somebody has looked into it.

    Contradictions (two histories, forked windows) are held against a monitor until then, however old.
    """
    known = spiffe_id(monitor, "MONITOR")
    with closing(Register(load(config).register)) as register:
        texts = register.forgive(known)
    if as_json:
        print_json({"ok": True, "forgiven": texts})
        return
    for text in texts:
        console.print(f"forgiven: {plain(text)}", markup=False)
    if not texts:
        console.print("there is nothing against it")


@command.command("ask")
@click.argument("agents", nargs=-1, required=True, metavar="AGENT…")
@calling
@click.option("--nonce", default="auto", show_default=True, metavar="TEXT", help="8 to 88 characters; `none` for none.")
@click.option("--profile", type=click.Choice(tuple(PROFILES)), default="ietf", show_default=True)
@click.option("--fresh", is_flag=True, help="Have the Verifier ask the monitors first.")
@click.option("--from", "start", metavar="TIME", type=Moment(), help="Ask about a window of the past: its begin.")
@click.option("--to", "end", metavar="TIME", type=Moment(), help="The window's end, not included; else now.")
@json_option
@click.pass_context
def ask(
    ctx: click.Context,
    agents: tuple[str, ...],
    call: Call,
    nonce: str,
    profile: Profile,
    fresh: bool,
    start: float | None,
    end: float | None,
    as_json: bool,
) -> None:
    """Ask the Verifier about each AGENT (a SPIFFE ID, or a name in the trust domain) and verify what it says.

    Exit 0 if all are affirming, 1 if one is warning or contraindicated (or the answer does not hold), 3 if nothing is
    known of one, or the Verifier does not answer. TIME is seconds since 1970 or ISO 8601 (UTC if it names no zone); the
    Verifier has the monitors report on that window.
    """
    if start is None and end is not None:
        raise UsageError("--to needs --from: a window has a begin")
    window = (start, time.time() if end is None else end) if start is not None else None
    domain = TrustDomain.open(call.trust)
    ids = tuple(agent if agent.startswith("spiffe://") else str(domain.agent_id(agent)) for agent in agents)
    sent = {"auto": asking.new_nonce(), "none": None}.get(nonce, nonce)
    try:
        answer = asking.ask(call.url, *call.by_tls(), ids, time.time, sent, profile, fresh, window)
    except asking.Unanswered as e:
        click.echo(f"lictor: {e}", err=True)
        ctx.exit(EXITS["none"])
    result = answer.result
    if as_json:
        said = {agent: _to_json(one) for agent, one in result.submodules.items()}
        head = {"ok": result.status == "affirming", "status": result.status, "verifier": result.issuer}
        print_json({**head, "agents": said, "nonce": sent, "ear": answer.token})
    else:
        _show(result.submodules)
    ctx.exit(EXITS[result.status])


def _to_json(one: Submodule) -> dict[str, Any]:
    return {"status": one.status, "policies": list(one.policies), **one.behavior}


def _show(submodules: Mapping[str, Submodule]) -> None:
    for agent, one in submodules.items():
        evidence = f"{one.behavior.get('bets', 0)} BETs over {one.behavior.get('entries', 0)} entries"
        console.print(f"{agent}: {one.status}, {evidence}", markup=False)
        for reason in one.behavior.get("reasons", []):
            console.print(f"  {plain(reason.get('text', ''))}", markup=False)
