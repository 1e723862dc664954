"""`lictor binding explain`: why a request would be allowed or denied."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..bindings.catalog import Catalog
from ..bindings.classification import classify, find_target, needs_body
from ..bindings.explaining import Explanation, explain
from ..bindings.facts import RequestFacts, Unclassifiable
from ..bindings.handed import Handed
from ..bindings.model import Action, ActionType, Binding, Decision
from ..bindings.policy import Policy
from ..bindings.registry import load_directory, read
from ..bindings.subjects import for_agents_of
from ..certs.domain import TrustDomain
from ..evidence.sqlite_store import SqliteReader
from ..formats import strict_json
from ..formats.errors import FormatError, UsageError
from ..formats.names import Url, parse_url
from ..formats.spiffe import SpiffeId
from ..proxy.config import Config, load
from ..proxy.policies import read_signers
from ..proxy.state import Book
from .log_view import plain
from .output import console, errors, json_option, print_json

_FILE = click.Path(path_type=Path)
_MARKS = {"pass": ("pass", "green"), "fail": ("fail", "red"), "other_target": ("  – ", "dim")}
_EFFECTS = {
    "deny": "",
    "flag": " (it lets pass and reports)",
    "hold": " (it asks for a person's decision)",
    "quarantine": " (it puts the agent in quarantine)",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked about, as given."""

    url: str | None
    method: str | None
    tool: str | None
    body: Path | None
    type: str | None
    target: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why there is nothing to judge: the monitor refuses by itself."""

    reason: str
    text: str


@click.command(name="explain")
@click.argument("url", metavar="[URL]", required=False)
@click.option("--agent", metavar="NAME|ID", required=True, help="An agent's name or SPIFFE ID.")
@click.option("--method", help="The HTTP method; without it GET, or POST where there is a body.")
@click.option("--tool", metavar="NAME", help="The call of this tool of the MCP server at URL.")
@click.option("--body", type=_FILE, help="The request's body; with --tool, the tool's arguments (a JSON object).")
@click.option("--type", "kind", type=click.Choice([t.value for t in ActionType]), help="An action type, without URL.")
@click.option("--target", metavar="URN|URL", help="The action's target, with --type.")
@click.option("-c", "--config", type=_FILE, default=Path("lictor.toml"), show_default=True, help="Configuration.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    url: str | None,
    agent: str,
    method: str | None,
    tool: str | None,
    body: Path | None,
    kind: str | None,
    target: str | None,
    config: Path,
    as_json: bool,
) -> None:
    """Say why an agent's request to URL, or an action, would be allowed (exit 0) or denied (exit 1) now.

    Judges by the signed bindings of the configuration; behaviors with a memory by what the ledger holds.
    """
    asked = Request(url, method, tool, body, kind, target)
    settings = load(config)
    agent_id, refused = _agent(settings, agent)
    given = settings.bindings
    loaded = load_directory(given.directory, read_signers(given.signers), given.allow_unsigned)
    bindings = for_agents_of(given.trust_domain, loaded)
    policy = Policy(bindings, settings.catalog())
    found = refused or _actions(settings, policy, agent_id, asked)
    connect = None if isinstance(found, Refused) else _connect(policy, agent_id, asked)
    explained: list[Explanation] = []
    memories = _Memories(settings.ledger.path)
    if not isinstance(found, Refused):
        with errors.status(Text("reading the ledger")):
            explained = [
                explain(policy, action, time.time(), memories.asking(action, policy.catalog)) for action in found
            ]
    allowed = all(one.decision.allowed for one in explained) and bool(explained)
    allowed = allowed and not (connect is not None and connect["decision"] == "deny")
    answer = {
        "ok": allowed,
        "agent": agent_id,
        "refused": asdict(found) if isinstance(found, Refused) else None,
        "connect": connect,
        "remembered_entries": memories.entries,
        "actions": [_as_json(one) for one in explained],
    }
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    ctx.exit(0 if allowed else 1)


def _agent(settings: Config, agent: str) -> tuple[str, Refused | None]:
    """Its SPIFFE ID, and why it would not be served at all. Raises UsageError."""
    if "://" in agent:
        try:
            return str(SpiffeId.parse(agent)), None
        except FormatError as e:
            raise UsageError(f"--agent: {e}") from None
    known = {info.name: info for info in TrustDomain.open(settings.identity.trust).agents()}
    if agent not in known:
        near = difflib.get_close_matches(agent, known, n=1)
        raise UsageError(f"there is no agent {agent!r}" + (f", did you mean {near[0]}?" if near else ""))
    info = known[agent]
    if info.usable(datetime.now(UTC)):
        return str(info.spiffe_id), None
    why = "is revoked" if info.revoked else f"is good from {info.not_before} to {info.not_after} only"
    return str(info.spiffe_id), Refused("no_identity", f"the certificate of {agent} {why}")


def _actions(settings: Config, policy: Policy, agent_id: str, asked: Request) -> list[Action] | Refused:
    """The actions that are asked about. Raises UsageError."""
    if (asked.url is None) == (asked.type is None) or (asked.type is None) != (asked.target is None):
        raise UsageError("give either a URL, or --type and --target")
    if asked.type is not None and asked.target is not None:
        if asked.method or asked.tool or asked.body:
            raise UsageError("--method, --tool and --body describe a request: give a URL")
        return [Action(agent_id, ActionType(asked.type), asked.target)]
    try:
        url = parse_url(asked.url or "")
        return _classified(settings, policy, agent_id, url, asked)
    except FormatError as e:
        return Refused("doubtful_name", str(e))
    except Unclassifiable as e:
        return Refused(e.reason, str(e))


def _classified(settings: Config, policy: Policy, agent_id: str, url: Url, asked: Request) -> list[Action] | Refused:
    body = _body(asked)
    method = (asked.method or ("POST" if body is not None else "GET")).upper()
    headers = (("content-type", "application/json"),) if body is not None else ()
    facts = RequestFacts(method, url.scheme, url.host, url.port, url.path, url.query, headers, body or b"")
    target = find_target(policy.catalog, facts)
    if asked.tool is not None and (target is None or target.protocol != "mcp"):
        raise UsageError(f"--tool is for MCP targets of the catalog: {url.text} is not one")
    reads = policy.reads(agent_id, target, (url.scheme, url.host, url.port, url.path))
    largest = settings.limits.judged_body_bytes
    if needs_body(target, method, reads) and len(body or b"") > largest:
        return Refused("body_too_large", f"the body of {len(body or b'')} bytes exceeds {largest}, and must be read")
    found = classify(policy.catalog, facts, reads)
    return [Action(agent_id, one.type, one.target, one.parameters, one.content) for one in found]


def _body(asked: Request) -> bytes | None:
    given = read(asked.body) if asked.body is not None else None
    if asked.tool is None:
        return given
    try:
        arguments = strict_json.loads_object(given) if given is not None else {}
    except FormatError as e:
        raise UsageError(f"{asked.body} does not hold the arguments of a tool: {e}") from None
    params = {"name": asked.tool, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


def _connect(policy: Policy, agent_id: str, asked: Request) -> dict[str, str] | None:
    """What CONNECT to the authority would be answered; None where there is none."""
    try:
        url = parse_url(asked.url or asked.target or "")
    except FormatError:
        return None
    if url.scheme != "https":
        return None
    decision = policy.judge_authority(agent_id, url.host, url.port)
    authority = f"{url.host}:{url.port}"
    if decision is None:
        return {"authority": authority, "decision": "allow", "reason": "the host alone does not decide"}
    return {"authority": authority, "decision": "deny", "reason": decision.reason}


class _Memories:
    """The memories of bindings, made from the ledger if there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: int | None = None
        """How many entries the ledger had when it was asked; None: it was not asked."""

    def asking(self, action: Action, catalog: Catalog) -> Callable[[Binding], Decision | None]:
        """What asks them about the action, which begins a workflow of its own."""

        def ask(binding: Binding) -> Decision | None:
            book, now = Book((binding,)), time.time()
            self.entries = 0
            if self._path.is_file():
                with closing(SqliteReader(self._path)) as reader:
                    head = reader.head()
                    self.entries = head.size if head is not None else 0
                    book.read(reader, self.entries, now)
            return book.judge(action.agent_id, action.type.value, action.target, "", now, _handed_on(action, catalog))

        return ask


def _handed_on(action: Action, catalog: Catalog) -> Handed | None:
    """A delegation, as the first of its workflow."""
    if action.type is not ActionType.DELEGATION:
        return None
    return Handed(False, tuple(t.agent_id for t in catalog.targets if t.urn == action.target and t.agent_id), 1)


def _as_json(one: Explanation) -> dict[str, Any]:
    return {
        "action_type": one.action.type.value,
        "action_target": one.action.target,
        "decision": one.decision.verdict.value,
        "reason": one.decision.reason,
        "because": one.because,
        "hint": one.decision.hint,
        "behaviors": [asdict(said) for said in one.said],
    }


def _print(answer: dict[str, Any]) -> None:
    held = any(action["decision"] == "hold" for action in answer["actions"])
    verdict = ("allowed", "bold green") if answer["ok"] else ("held", "bold yellow") if held else ("denied", "bold red")
    console.print(Text.assemble(verdict, f"  for {answer['agent']}"))
    refused, connect = answer["refused"], answer["connect"]
    if refused is not None:
        console.print(Text(plain(f"the monitor refuses: {refused['reason']}: {refused['text']}")))
    if connect is not None:
        what = "opens the tunnel" if connect["decision"] == "allow" else "is refused"
        console.print(Text(f"CONNECT {connect['authority']} {what}: {connect['reason']}"))
    for action in answer["actions"]:
        console.print(Text(plain(f"{action['action_type']} {action['action_target']}")))
        console.print(Text(plain(f"  {action['decision']}, {action['reason']}: {action['because']}")))
        for said in action["behaviors"]:
            named = f"  {said['behavior_id']} of {said['policy_id']} {said['version']} ({said['criteria']}): "
            line = plain(f"{named}{said['because']}{_EFFECTS[said['effect']]}")
            console.print(Text.assemble("  ", _MARKS[said["result"]], line))
    if answer["remembered_entries"] is not None:
        console.print(Text(f"what has a memory remembers the {answer['remembered_entries']} entries of the ledger"))
