"""`lictor tools`: which tools MCP servers list, and which of them are approved as they are."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ..bindings.protocols.mcp_answers import tool_digest
from ..bindings.registry import read
from ..bindings.signing import sign, signature_path
from ..bindings.target import Target
from ..certs.files import write_atomically
from ..evidence.sqlite_store import SqliteReader
from ..formats import strict_json
from ..formats.errors import FormatError, UsageError
from ..formats.keys import KeySigner
from ..proxy.config import Config, load
from ..proxy.policies import read_signers
from ..proxy.tools import listed_in, pins_document, read_pins
from .output import console, json_option, print_json

_FILE = click.Path(path_type=Path)
_STATES = {"approved": "green", "changed": "red", "not approved": "yellow", "not listed": "dim", "no pins": "dim"}


@click.group()
def command() -> None:
    """Tools of MCP servers: what was listed, what is approved. Of a tool that has changed agents see nothing."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool of one target. `listed` and `approved`: digests, None if it is not."""

    urn: str
    name: str
    listed: str | None
    approved: str | None
    state: str


def _config_option(command: Any) -> Any:
    default = Path("lictor.toml")
    return click.option("-c", "--config", type=_FILE, default=default, show_default=True, help="Configuration.")(
        command
    )


@command.command(name="list")
@_config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, config: Path, as_json: bool) -> None:
    """The tools that each MCP server listed last through the monitor. Exit 1 if one is not as it was approved."""
    settings = load(config)
    listed = _listed(settings)
    found = [
        tool for target in settings.targets if target.protocol == "mcp" for tool in _tools(settings, target, listed)
    ]
    good = not any(tool.state in ("changed", "not approved") for tool in found)
    if as_json:
        names = ("urn", "name", "listed", "approved", "state")
        print_json({"ok": good, "tools": [{name: getattr(tool, name) for name in names} for tool in found]})
    else:
        for tool in found:
            digest = tool.listed or tool.approved or ""
            console.print(f"[{_STATES[tool.state]}]{tool.state:12}[/] {escape(tool.urn)} {escape(tool.name)} {digest}")
        if not found:
            console.print("no MCP server has listed tools through this monitor yet")
    ctx.exit(0 if good else 1)


@command.command()
@click.argument("urn")
@click.argument("names", nargs=-1)
@click.option("--from", "source", type=_FILE, help="The result of a tools/list (JSON), not what the monitor saw last.")
@click.option("--key", type=_FILE, default=Path("trust/operator.key"), show_default=True, help="The operator's key.")
@_config_option
@json_option
def approve(urn: str, names: tuple[str, ...], source: Path | None, key: Path, config: Path, as_json: bool) -> None:
    """Approve the tools of the target URN as they are now: all, in place of what was approved, or those named.

    Look at them first: what counts is what a model is told, in a tool's description and in its schema.
    """
    settings = load(config)
    target = next((t for t in settings.targets if t.urn == urn), None)
    if target is None or target.pins is None:
        raise UsageError(f'{config} has no target {urn} with pins: give it pins = "tools.json", the file to write')
    signer = KeySigner.from_file(key)
    found = _listed(settings).get(urn, {}) if source is None else _digests(source)
    missing = [name for name in names if name not in found]
    if not found or missing:
        what = f"the tool {missing[0]!r}" if missing else "tools"
        raise UsageError(f"{source or 'the monitor'} has no list of {urn} with {what}: let an agent list them first")
    approved = {**_approved(settings, target), **{name: found[name] for name in names}} if names else found
    document = pins_document(urn, approved)
    try:
        target.pins.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(signature_path(target.pins), (sign(document, signer) + "\n").encode("ascii"))
        write_atomically(target.pins, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as e:
        raise UsageError(f"{target.pins} cannot be written: {e.strerror}") from None
    if as_json:
        print_json({"ok": True, "urn": urn, "tools": approved, "file": str(target.pins), "kid": signer.kid})
    else:
        console.print(f"approved {len(names or found)} tools of {escape(urn)}: {escape(str(target.pins))}")


def _listed(settings: Config) -> dict[str, dict[str, str]]:
    if not settings.ledger.path.exists():
        return {}
    with closing(SqliteReader(settings.ledger.path)) as reader:
        return listed_in(reader)


def _approved(settings: Config, target: Target) -> dict[str, str]:
    if target.pins is None:
        return {}
    signers = read_signers(settings.bindings.signers)
    return read_pins(target.pins, target.urn, signers, settings.bindings.allow_unsigned)


def _tools(settings: Config, target: Target, listed: dict[str, dict[str, str]]) -> list[Tool]:
    seen, approved = listed.get(target.urn, {}), _approved(settings, target)
    return [
        Tool(target.urn, name, seen.get(name), approved.get(name), _state(target, seen.get(name), approved.get(name)))
        for name in sorted({*seen, *approved})
    ]


def _state(target: Target, listed: str | None, approved: str | None) -> str:
    if target.pins is None:
        return "no pins"
    if listed is None:
        return "not listed"
    if approved is None:
        return "not approved"
    return "approved" if listed == approved else "changed"


def _digests(path: Path) -> dict[str, str]:
    try:
        value = strict_json.loads(read(path))
    except FormatError as e:
        raise UsageError(f"{path} is not JSON: {e}") from None
    for member in ("result", "tools"):
        value = value.get(member, value) if isinstance(value, dict) else value
    if not isinstance(value, list) or not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in value):
        raise UsageError(f"{path} is not the result of a tools/list: expected an object with tools that have names")
    return {tool["name"]: tool_digest(tool) for tool in value}
