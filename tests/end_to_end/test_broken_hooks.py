"""An exception in every hook of every addon, one after the other: nothing leaves, and the next request is served.

The hooks are found, not listed: a new one is tried as soon as it is there, and one of the exchanges here must run it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import pkgutil
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from end_to_end.talkers import Talker, frame, upgrade
from end_to_end.wire import Wire, head
from end_to_end.world import Monitor, Outside, Server, binding, target, until
from mitmproxy import hooks as mitmproxy_hooks
from mitmproxy.proxy import commands
from remembering import LENIENT

import lictor.addons
import lictor.engine
from lictor.bindings.criteria import CRITERIA

AGENT, SELF, CHAT = "spiffe://test.internal/agent/b", "urn:test:agent:b", "urn:test:tool:chat"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}
AFTER_SENDING = {"responseheaders", "response_data", "response"}
"""Hooks that run once a request has left: then the answer does not arrive."""
TIDYING = {"error", "http_connect_error", "client_disconnected", "server_disconnected", "websocket_end", "tunnel_ended"}
"""Hooks that run when all is over."""

NO_ENTRY = {"client_connected", "http_connect_error"}
"""Hooks before anybody is known, and one in which what was denied is on record."""
WRITES_THE_ENTRY = {"enforce.Enforce.error", "ingress.Ingress.error", "tunnel.Tunnels.tunnel_opening"}
"""What would make an entry of what ended before it was judged."""


def find_hooks() -> list[str]:
    """`module.Class.hook` of every addon: what a class of `addons` has the name of a hook for."""
    for package in (lictor.engine, lictor.addons):
        for one in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{one.name}")
    fired = {name for name, hook in mitmproxy_hooks.all_hooks.items() if issubclass(hook, commands.StartHook)}
    found = []
    for one in pkgutil.iter_modules(lictor.addons.__path__):
        module = importlib.import_module(f"lictor.addons.{one.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            for hook, function in vars(cls).items():
                if cls.__module__ == module.__name__ and hook in fired and function.__code__.co_argcount == 2:
                    found.append(f"{one.name}.{name}.{hook}")
    return found


HOOKS = find_hooks()

BREAKABLE = """
import importlib, runpy
from pathlib import Path
switch = Path({switch!r})
async def fail():
    raise RuntimeError("broken on purpose: " + switch.read_text())
def breakable(name, hook):
    def run(self, *arguments):
        broken, _, when = switch.read_text().partition(" ")
        if broken != name:
            return hook(self, *arguments)
        if when == "later":
            return fail()
        raise RuntimeError("broken on purpose: " + switch.read_text())
    return run
for name in {hooks!r}:
    module, cls, hook = name.split(".")
    cls = getattr(importlib.import_module("lictor.addons." + module), cls)
    setattr(cls, hook, breakable(name, getattr(cls, hook)))
runpy.run_module("lictor.proxy.worker", run_name="__main__")
"""

BREAKABLE_CRITERIA = """
from pathlib import Path
from lictor.bindings.criteria import compile_criteria
from lictor.bindings.marking import Marks
def breakable(kind, criteria, switch):
    compiled = compile_criteria(criteria)
    judging = type(compiled.begin() if hasattr(compiled, "begin") else compiled)
    if getattr(compiled, "listed", None):
        judging = Marks
    name = "of" if judging is Marks else "judge"
    judge = getattr(judging, name)
    def run(self, action):
        if switch.read_text() == kind:
            raise RuntimeError("broken on purpose: " + kind)
        return judge(self, action)
    setattr(judging, name, run)
for kind, criteria in {criteria!r}.items():
    breakable(kind, criteria, Path({switch!r}))
"""
"""For worker and control process: a criterion is judged by the one or by the other."""

STAND_IN = """
import asyncio, lictor.cli
real = asyncio.create_subprocess_exec
def run(python, m, module, *arguments, **keywords):
    return real(python, {program!r}, *arguments, **keywords)
asyncio.create_subprocess_exec = run
lictor.cli.main()
"""


@dataclass
class World:
    """A monitor before an agent, one before the agent that it delegates to, and all that they talk to.

    In their workers any hook can be broken, by writing its name to `switch`.
    """

    monitor: Monitor
    callee: Monitor
    server: Server
    local: Server
    pinned: Server
    talker: Talker
    switch: Path
    ca: Path

    def arrived(self) -> list[int]:
        """What reached anybody."""
        servers = (self.server, self.local, self.pinned)
        return [*(len(server.requests) for server in servers), len(self.talker.got)]

    def output(self) -> str:
        return self.monitor.output() + self.callee.output()

    def actions(self) -> int:
        """How many actions are on record."""
        return sum("outcome_of" not in entry for one in (self.monitor, self.callee) for entry in one.entries())

    def call(self) -> int:
        """An agent's tool call."""
        with Wire(self.monitor) as wire:
            return wire.tunnel(f"localhost:{self.server.port}").post_json("/mcp", PING).status

    def listen(self) -> int:
        """A tool call that is answered with a stream of events."""
        with Wire(self.monitor) as wire:
            answer = wire.tunnel(f"localhost:{self.server.port}").post_json("/mcp", {**PING, "id": "stream"})
        return answer.status if b"result" in answer.body else 0

    def delegate(self) -> int:
        """A delegation, out of one monitor and into the other."""
        with Wire(self.monitor) as wire:
            return wire.tunnel(f"127.0.0.1:{self.callee.ingress_port}").post_json("/", MESSAGE).status

    def refused(self) -> int:
        """A tunnel to where nothing is allowed."""
        with Wire(self.monitor) as wire:
            return 0 if wire.connect("nowhere.test:443").status == 403 else 500

    def abort(self) -> int:
        """A request of which the body never comes."""
        with Wire(self.monitor) as wire:
            wire.tunnel(f"localhost:{self.server.port}").send(_begun("/mcp", f"localhost:{self.server.port}"))
        return 0

    def abort_delegation(self) -> int:
        """The same to the agent that the other monitor fronts."""
        who = self.monitor.domain.path / "monitors" / self.monitor.name
        context = self.callee.caller_context(who / "cert.pem", who / "key.pem")
        with Wire(self.callee, context, self.callee.ingress_port) as wire:
            wire.send(_begun("/", "b.test"))
        return 0

    def talk(self) -> int:
        """A WebSocket and one message."""
        with Wire(self.monitor) as wire:
            status = upgrade(wire, f"localhost:{self.talker.port}", "/x").status
            wire.send(frame(1, b"hello"))
            wire.read_some()
        return 200 if status == 101 else status

    def pass_through(self) -> int:
        """A tunnel that nobody looks into."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with Wire(self.monitor) as wire:
            answer = wire.connect(f"localhost:{self.pinned.port}")
            assert answer.status == 200, answer
            return wire.tls(context=context).request("GET", "/x").status

    def way_of(self, hook: str) -> Callable[[], int]:
        """An exchange that runs the hook."""
        module, _, name = hook.split(".")
        if name == "error":
            return self.abort_delegation if module == "ingress" else self.abort
        if name == "http_connect_error":
            return self.refused
        if name == "response_data":
            return self.listen
        return {"ingress": self.delegate, "websocket": self.talk, "tunnel": self.pass_through}.get(module, self.call)


def _begun(path: str, host: str) -> bytes:
    return head("POST", path, f"Host: {host}", "Content-Type: application/json", "Content-Length: 9") + b"{"


class Mcp(Server):
    """Answers pings, one of them by a stream of events."""

    def answer(self, handler: Any) -> None:
        asked = json.loads(self.requests[-1][3])["id"]
        stream, body = asked == "stream", json.dumps({"jsonrpc": "2.0", "id": asked, "result": {}}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream" if stream else "application/json")
        handler.send_header("Connection", "close") if stream else handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(b"data: " + body + b"\n\n" if stream else body)
        handler.close_connection = stream


def lenient() -> dict[str, Any]:
    """A binding with criteria of every type that there is; all let everything here pass."""
    behaviors = [
        {
            "behavior_id": f"bhv-{kind}",
            "observable_actions": ["delegation"] if kind == "delegation" else ["tool_call"],
            "targets": [SELF, "urn:test:mcp"],
            "compliance_criteria": {**criteria, **({"values": ["urn:test:mcp"]} if kind == "allowlist" else {})},
        }
        for kind, criteria in LENIENT.items()
    ]
    return {**binding("urn:test:policy:lenient"), "expected_behaviors": behaviors}


@pytest.fixture(scope="module")
def world(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(Mcp(outside)))
        local, pinned = (stack.enter_context(contextlib.closing(Server(of))) for of in (None, outside))
        talker = stack.enter_context(contextlib.closing(Talker(outside)))
        limits = "[limits]\nshutdown_s = 0.2\n"
        callee = share_monitor(
            "callee",
            {"main": binding(delegation=[SELF])},
            ingress=f'agent = "{AGENT}"\nurn = "{SELF}"\nupstream = "http://127.0.0.1:{local.port}"',
            more=limits,
            start=False,
        )
        allowed = {"tool_call": ["urn:test:mcp", CHAT], "delegation": [SELF], "tunnel": ["urn:test:pinned"]}
        monitor = share_monitor(
            "breakable",
            {"main": binding(**allowed, websocket_message=[CHAT]), "lenient": lenient()},
            target("urn:test:mcp", "tool", f"https://localhost:{server.port}/mcp", protocol="mcp")
            + target(SELF, "agent", f"https://127.0.0.1:{callee.ingress_port}/**", agent=AGENT)
            + target(CHAT, "tool", f"https://localhost:{talker.port}/**")
            + target("urn:test:pinned", "tool", f"https://localhost:{pinned.port}/**")
            + "passthrough = true\n",
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n{limits}',
            start=False,
        )
        program, start, switch = (monitor.path / n for n in ("worker.py", "start.py", "switch"))
        criteria = BREAKABLE_CRITERIA.format(switch=str(switch), criteria=LENIENT)
        program.write_text(criteria + BREAKABLE.format(switch=str(switch), hooks=HOOKS))
        start.write_text(criteria + STAND_IN.format(program=str(program)))
        switch.write_text("")
        for one in (callee, monitor):
            one.program = [str(start)]
            one.start()
        yield World(monitor, callee, server, local, pinned, talker, switch, outside.ca)


def test_nothing_is_broken_yet(world: World) -> None:
    ways = (world.call, world.listen, world.delegate, world.talk, world.pass_through)
    assert [way() for way in ways] == [200] * 5
    assert world.arrived() == [2, 1, 1, 1]


@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("hook", HOOKS)
def test_broken_hook(world: World, hook: str, when: str) -> None:
    """An exception, at once or in what is waited for: what had not left yet never does, and the next is served."""
    arrived, known, way, name = world.arrived(), world.actions(), world.way_of(hook), hook.rpartition(".")[2]
    world.switch.write_text(f"{hook} {when}")
    status = 0
    with contextlib.suppress(OSError, EOFError, AssertionError):
        status = way()
    until(lambda: f"broken on purpose: {hook} {when}" in world.output(), what=f"{way.__name__} runs {hook}")
    world.switch.write_text("")
    if name not in TIDYING:
        assert status in (0, 502, 503)
    if name not in TIDYING | AFTER_SENDING:
        assert world.arrived() == arrived
    if name not in NO_ENTRY and hook not in WRITES_THE_ENTRY:
        until(lambda: world.actions() > known, what="an entry of what was refused")
    assert way() in (0, 200)


@pytest.mark.parametrize("kind", sorted(CRITERIA))
def test_broken_criterion(world: World, kind: str) -> None:
    """Of every type that there is; for a new one, say in `remembering.LENIENT` what of it lets everything pass."""
    way = world.delegate if kind == "delegation" else world.call
    arrived, known = world.arrived(), world.actions()
    world.switch.write_text(kind)
    assert way() in (403, 502, 503)
    world.switch.write_text("")
    assert world.arrived() == arrived
    until(lambda: world.actions() > known, what="an entry of what was refused")
    assert f"broken on purpose: {kind}" in world.output()
    assert way() == 200
