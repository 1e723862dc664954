"""`lictor demo`: the whole story on this machine's loopback interface, with real programs, certificates and files."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from .. import examples
from ..formats.errors import UsageError
from .demo_evidence import tell_evidence
from .demo_processes import Program, Programs, ended_by_signals, free_ports
from .demo_story import Story
from .demo_world import (
    AGENT_B,
    AGENT_C,
    CUSTOMER,
    NAMES,
    Ports,
    Urls,
    World,
    clean_environment,
    make_outside,
    make_trust_domain,
    write_monitor_a,
    write_monitor_b,
    write_monitor_c,
)
from .output import json_option, print_json

_START_S = 20.0
_WORK_S = 60.0
_EXAMPLES = Path(examples.__file__).parent


@click.command()
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Where to put the files (default: a new folder)."
)
@json_option
def command(folder: Path | None, as_json: bool) -> int:
    """A chain of three agents, three monitors, a tool, two data sources, refusals, evidence, its verification.

    Keeps its files.
    """
    _check_packages()
    world = World(_new_folder(folder))
    story = Story(Console(highlight=False, soft_wrap=True, quiet=as_json))
    story.console.print(
        "[bold]lictor demo[/]: three agents behind three monitors, all on this machine's loopback interface.\n"
        "Agent A hands work to agent B, and B hands it on to C; whatever is not allowed is refused.\n"
        f"[dim]Files go to {escape(str(world.root))}[/]"
    )
    world.make_folders()
    with ended_by_signals(), Programs(world.logs) as programs:
        _run_agents(story, world, programs)
    tell_evidence(story, world)
    if as_json:
        print_json({"ok": story.good, "folder": str(world.root), "checks": story.to_json()})
    _tell_end(story, world)
    return 0 if story.good else 1


def _check_packages() -> None:
    missing = [name for name in ("a2a", "httpx", "mcp", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"the demo needs {', '.join(missing)}: run pip install 'lictor[demo]'")


def _new_folder(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="lictor-demo-"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder: name another one with --dir")
    return folder.absolute()


@dataclass(frozen=True, slots=True)
class _Launcher:
    """Starts the programs of the demo."""

    world: World
    programs: Programs
    environment: dict[str, str]

    def example(self, name: str, script: str, *arguments: str) -> Program:
        """A program outside: it runs by itself."""
        return self.programs.start(name, [sys.executable, str(_EXAMPLES / script), *arguments], self.environment)

    def agent(self, name: str, script: str, *arguments: str) -> Program:
        """A program behind a monitor: the same kind of command after `lictor exec --agent NAME --`."""
        command = [sys.executable, str(_EXAMPLES / script), *arguments]
        return self._lictor(f"agent-{name}", "exec", "-c", self._configuration(name), "--agent", name, "--", *command)

    def monitor(self, name: str) -> Program:
        return self._lictor(f"monitor-{name}", "up", "-c", self._configuration(name))

    def _configuration(self, name: str) -> str:
        return str(self.world.configuration(name))

    def _lictor(self, name: str, *arguments: str) -> Program:
        return self.programs.start(name, [sys.executable, "-m", "lictor", *arguments], self.environment)


def _run_agents(story: Story, world: World, programs: Programs) -> None:
    launcher = _Launcher(world, programs, clean_environment())
    with story.chapter("A trust domain, and a world outside that knows nothing of it"):
        domain = make_trust_domain(world)
        make_outside(world)
        story.tell(f"identities: {', '.join(str(agent.spiffe_id) for agent in domain.agents())}")
    with story.chapter("An MCP server (official SDK), and two data sources that demand a client certificate"):
        urls, ports = _start_outside(world, launcher)
        story.tell(f"tool {urls.tool}, approved data {urls.approved_data}, other data {urls.other_data}")
    with story.chapter("Three monitors, with bindings that the operator signed", "monitors start"):
        for write, name in ((write_monitor_a, "a"), (write_monitor_b, "b"), (write_monitor_c, "c")):
            write(world, ports[name], urls)
        monitors = {name: launcher.monitor(name) for name in NAMES}
        for monitor in monitors.values():
            monitor.first_line(_START_S)
        listeners = [f"{name} on {ports[name].ingress} (in) and {ports[name].egress} (out)" for name in ("b", "c")]
        story.tell(f"monitor a on port {ports['a'].egress} (out), {', '.join(listeners)}")
    with story.chapter("Agents B and C (official A2A SDK): B hands work on to C, C has a tool", "agents start"):
        sub_agents = (
            _start_sub_agent(launcher, "b", urls.agent_b, ports["b"], "--agent", urls.agent_c),
            _start_sub_agent(launcher, "c", urls.agent_c, ports["c"], "--tool", urls.tool),
        )
        for sub_agent in sub_agents:
            sub_agent.first_line(_START_S)
        story.tell(f"{AGENT_B} is {urls.agent_b} to others, {AGENT_C} is {urls.agent_c}")
    with story.chapter("Agent A works: an ordinary program that finds HTTPS_PROXY in its environment", "agent A works"):
        _follow_agent_a(story, launcher, urls)
    with story.chapter("What arrived outside, by the programs' own count"):
        _check_counts(story, world)
    with story.chapter("The monitors stop and sign their last evidence", "monitors stop"):
        for sub_agent in sub_agents:
            sub_agent.stop()
        for name, monitor in monitors.items():
            story.check(f"exit code of monitor {name}", expected=0, found=monitor.stop())


def _start_sub_agent(launcher: _Launcher, name: str, url: str, ports: Ports, *arguments: str) -> Program:
    return launcher.agent(name, "sub_agent.py", "--url", url, "--port", str(ports.agent), *arguments)


def _start_outside(world: World, launcher: _Launcher) -> tuple[Urls, dict[str, Ports]]:
    tls = ("--cert", str(world.outside / "server.pem"), "--key", str(world.outside / "server.key"))
    ca = ("--client-ca", str(world.outside / "ca.pem"))
    started = [
        launcher.example("tool", "mcp_tool_server.py", *tls, "--calls", str(world.calls("tool"))),
        launcher.example("sales", "data_api.py", *tls, *ca, "--name", "sales", "--calls", str(world.calls("sales"))),
        launcher.example(
            "payroll", "data_api.py", *tls, *ca, "--name", "payroll", "--calls", str(world.calls("payroll"))
        ),
    ]
    tool, sales, payroll = (json.loads(program.first_line(_START_S))["listening"] for program in started)
    free = free_ports(9)
    ports = {name: Ports(*free[n : n + 3]) for name, n in zip(NAMES, range(0, 9, 3), strict=True)}
    agents = (f"https://localhost:{ports[name].ingress}/" for name in ("b", "c"))
    return Urls(tool, sales, payroll, *agents), ports


def _follow_agent_a(story: Story, launcher: _Launcher, urls: Urls) -> None:
    agent_a = launcher.agent(
        "a",
        "agent.py",
        *("--tool", urls.tool),
        *("--data", f"{urls.approved_data}orders"),
        *("--other-data", f"{urls.other_data}salaries"),
        *("--agent", urls.agent_b),
        *("--next-agent", urls.agent_c),
    )
    steps = {}
    for line in agent_a.lines(_WORK_S):
        step = json.loads(line)
        steps[step["step"]] = step
        _check_step(story, step)
    story.check("steps done", expected=6, found=len(steps))
    story.check("agent A's exit code", expected=0, found=agent_a.stop())


def _check_step(story: Story, step: dict[str, Any]) -> None:
    """Hold one step of agent A against what the bindings say must come of it."""
    done = bool(step["ok"])
    found: Any = step["answer"] if done else _told(step)
    match step["step"]:
        case "use_tool":
            story.check("uses the tool convert", expected="220.55", found=found["result"] if done else found)
        case "read_data":
            what = "reads approved data, whose source saw the client certificate of"
            story.check(what, expected=CUSTOMER, found=found["client"] if done else found)
        case "read_unapproved_data":
            _check_refusal(story, "tries an unapproved data source and is told", "not_in_allowlist", done, found)
        case "use_unapproved_tool":
            _check_refusal(story, "tries the tool delete_everything and is told", "not_in_allowlist", done, found)
        case "delegate":
            story.check("hands work to agent B, which asks agent C, and answers", expected="7 words", found=found)
        case "delegate_past_it":
            what = "hands work straight to agent C, whose monitor takes it from monitor b only, and is told"
            _check_refusal(story, what, "issuer_not_accepted", done, found)


def _told(step: dict[str, Any]) -> str:
    """What the agent's client library made of an error; of structured data only why and which entry of the log."""
    text = str(step["reason"]).partition("\n")[0]
    data = step.get("data") or {}
    return f"{text} ({data['reason']}, entry {data['entry']})" if {"reason", "entry"} <= data.keys() else text


def _check_refusal(story: Story, what: str, reason: str, done: bool, found: Any) -> None:
    refused = not done and reason in found
    story.check(what, expected=f"a refusal with the reason {reason}", found=found, ok=refused)


def _check_counts(story: Story, world: World) -> None:
    counts = {name: _read_json(world.calls(name)) for name in ("tool", "sales", "payroll")}
    story.check("calls of convert", expected=1, found=counts["tool"]["convert"])
    story.check("calls of count_words (agent C's)", expected=1, found=counts["tool"]["count_words"])
    story.check("calls of delete_everything", expected=0, found=counts["tool"]["delete_everything"])
    story.check("requests to the approved data source", expected=1, found=counts["sales"]["requests"])
    story.check("connections to the unapproved data source", expected=0, found=counts["payroll"]["connections"])


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _tell_end(story: Story, world: World) -> None:
    failed = [check.what for check in story.checks if not check.ok]
    held = len(story.checks) - len(failed)
    verdict = f"[red]These did not hold: {escape('; '.join(failed))}.[/]" if failed else "[green]Everything held.[/]"
    page = shlex.quote(str(world.root / "chain.html"))
    commands = (
        f"lictor chain show {shlex.join(map(str, world.files.values()))} --format html --out {page}",
        f"lictor log show --decision deny -c {shlex.quote(str(world.configuration('a')))}",
        "lictor init my-agents",
    )
    story.console.print(
        f"\n{held} of {len(story.checks)} checks as expected. {verdict}\n"
        f"[bold]Everything is in {escape(str(world.root))}[/]: configuration, certificates, output, evidence.\n"
        "Three commands to try next:"
    )
    for command in commands:
        story.tell(command)
