"""Orders while agents work for each other: a delegation is revoked, at either end; what an agent does is held."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from end_to_end.test_open_exchanges import Endless
from end_to_end.wire import Answer, Wire, head
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target, until

from lictor.certs.domain import TrustDomain
from lictor.cli import cli

IDS = {name: f"spiffe://test.internal/agent/orders-{name}" for name in "abc"}
URNS = {name: f"urn:test:agent:{name}" for name in "abc"}
BOSS, GONE, HOLDER = (f"spiffe://test.internal/agent/orders-{name}" for name in ("boss", "gone", "holder"))
AUDIENCE = "https://orchestrator.example.org"
DOCUMENT = Path(__file__).parents[2] / "docs" / "orders.md"
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}
Headers = list[tuple[str, str]]


class Agent(Server):
    """Works on what it got until it is told to answer."""

    def __init__(self) -> None:
        super().__init__(None)
        self.done = threading.Event()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.done.wait(30)
        with contextlib.suppress(OSError):
            super().answer(handler)

    def got(self, count: int) -> list[Headers]:
        """The evidence lines of the first `count` requests that it got."""
        until(lambda: len(self.requests) >= count)
        names = "execution-context"
        return [
            [(n, v) for n, v in headers.items() if n.lower() == names] for _, _, headers, _ in self.requests[:count]
        ]


@dataclass
class Place:
    """Agent a hands work to b, and b to c; each has a monitor of its own, and b reads from a server."""

    monitors: dict[str, Monitor]
    agents: dict[str, Agent]
    server: Endless
    domain: TrustDomain
    orders_port: int
    told: Path
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    def lictor(self, at: str, *arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli, [*arguments, "-c", str(self.monitors[at].config), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else None

    @contextlib.contextmanager
    def wire(self, of: str, port: int) -> Iterator[Wire]:
        """A connection of the agent through its monitor."""
        monitor = self.monitors[of]
        with Wire(monitor, monitor.agent_context(f"orders-{of}")) as wire:
            yield wire.tunnel(f"localhost:{port}")

    def delegate(self, caller: str, callee: str, lines: Headers) -> Answer:
        port = self.monitors[callee].ingress_port
        with self.wire(caller, port) as wire:
            return wire.post_json("/", MESSAGE, *(f"{name}: {value}" for name, value in lines))

    def begin(self, caller: str, callee: str, *lines: tuple[str, str]) -> Future[Answer]:
        return self.pool.submit(self.delegate, caller, callee, list(lines))

    def get(self, path: str, *lines: tuple[str, str]) -> Answer:
        """What b gets of the server."""
        with self.wire("b", self.server.port) as wire:
            return wire.request("GET", path, *(f"{name}: {value}" for name, value in lines))

    def to_nowhere(self) -> Answer:
        """What b is told of a host that it may not reach."""
        monitor = self.monitors["b"]
        with Wire(monitor, monitor.agent_context("orders-b")) as wire:
            return wire.connect("nowhere.example:443")

    def stream(self, stack: contextlib.ExitStack, lines: Headers) -> Wire:
        """A stream that b has opened."""
        wire = stack.enter_context(self.wire("b", self.server.port))
        named = [f"{name}: {value}" for name, value in lines]
        wire.send(head("GET", "/x/events", f"Host: localhost:{self.server.port}", *named))
        assert wire.read_head()[0] == 200
        wire.read_some()
        return wire

    def open(self, at: str, direction: str, count: int) -> list[dict[str, Any]]:
        """What is listed as open, once it is so many."""

        def listed() -> list[dict[str, Any]]:
            found = self.lictor(at, "delegation", "list")["open"]
            return [one for one in found if one["direction"] == direction]

        until(lambda: len(listed()) == count)
        return listed()

    def order(self, name: str, caller: str = "orders-boss", **arguments: Any) -> tuple[int, Any]:
        """An order to b's monitor from afar, or a question if it has no arguments."""
        data = json.dumps(arguments).encode() if arguments else None
        url = f"https://127.0.0.1:{self.orders_port}/orders/{name}"
        context: ssl.SSLContext = self.monitors["b"].agent_context(caller)
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data), context=context, timeout=15) as answer:
                return answer.status, json.loads(answer.read())["result"]
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def finish(self) -> None:
        """All agents answer what they got."""
        for agent in self.agents.values():
            agent.done.set()

    def again(self) -> None:
        """Nothing is open, and agents take their time from now on."""
        self.finish()
        for name in "abc":
            until(lambda name=name: self.lictor(name, "delegation", "list")["open"] == [])
        for agent in self.agents.values():
            agent.requests.clear()
            agent.done.clear()
        self.server.go_on.clear()


@contextlib.contextmanager
def receiver(folder: Path, outside: Outside, evidence: Path, port: int) -> Iterator[None]:
    """The one of docs/orders.md; what it prints goes to the file `told`."""
    for name, file in (("server.pem", outside.cert), ("server.key", outside.key), ("evidence.pem", evidence)):
        shutil.copy(file, folder / name)
    [program] = re.findall(r"```python\n(import http.server.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert AUDIENCE in program
    with (folder / "told").open("w") as out:
        command = [sys.executable, "-c", program, str(port)]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def shared(
    share_monitor: Callable[..., Monitor],
    outside: Outside,
    domain: TrustDomain,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    agents, monitors, orders = {one: Agent() for one in "bc"}, {}, free_port()
    for name in ("a", "b", "c", "boss", "gone", "holder"):
        domain.add_agent(f"orders-{name}")
    some = f'{{ "{HOLDER}" = ["hold"] }}'
    hook = free_port()
    webhook = f'[[webhook]]\nurl = "https://localhost:{hook}/"\naudience = "{AUDIENCE}"\nca = "{outside.ca}"\n'
    with contextlib.closing(Endless(outside)) as server:
        document = binding(delegation=[*URNS.values()], data_source_access=["urn:test:x"])
        for one in "abc":
            more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
            ingress = f'agent = "{IDS[one]}"\nurn = "{URNS[one]}"\nupstream = "http://127.0.0.1:{{}}"'
            monitors[one] = share_monitor(
                f"orders-{one}",
                {"main": document},
                target("urn:test:x", "data_source", f"https://localhost:{server.port}/**"),
                ingress.format(agents[one].port) if one in agents else "",
                more + (f'[orders]\nfrom = ["{BOSS}", "{GONE}"]\nallow = {some}\n{webhook}' if one == "b" else ""),
                orders=orders if one == "b" else 0,
                start=False,
            )
        for caller, callee in ("ab", "bc"):
            with monitors[caller].config.open("a") as config:
                url = f"https://localhost:{monitors[callee].ingress_port}/"
                config.write(target(URNS[callee], "agent", f"{url}**", agent=IDS[callee]))
        with ThreadPoolExecutor() as pool:
            [*pool.map(Monitor.start, monitors.values())]
        folder = tmp_path_factory.mktemp("receiver")
        made = Place(monitors, agents, server, domain, orders, folder / "told")
        evidence = domain.monitor(monitors["b"].name).evidence_cert
        with receiver(folder, outside, evidence, hook):
            yield made
        made.finish()
        server.go_on.set()
        for agent in agents.values():
            agent.close()


@pytest.fixture
def place(shared: Place) -> Place:
    shared.again()
    return shared


def reason(answer: Answer) -> str:
    assert answer.status == 403, answer
    body = answer.json()
    found: str = body["error"]["data"]["reason"] if "error" in body else body["reason"]
    return found


def test_the_order_says_what_waits_until_a_person_decides(place: Place) -> None:
    """Of one agent, what is asked for, for as long as is asked for; what is open goes on."""
    b = place.monitors["b"]
    with contextlib.ExitStack() as stack:
        stream = place.stream(stack, [])
        since = len(b.entries())
        held = place.lictor("b", "agent", "hold", "orders-b", "--why", "odd", "--action-type", "data_source_access")
        asked = place.pool.submit(place.get, "/held")
        [one] = until(lambda: place.lictor("b", "approve")["waiting"])
        assert (one["reason"], one["behaviors"]) == ("hold_demanded", [])
        with place.wire("b", place.server.port):
            pass  # a CONNECT is no action
        assert place.lictor("b", "approve", str(one["seq"]), "--always", code=1) is None
        place.lictor("b", "approve", str(one["seq"]))
        assert asked.result(15).status == 200
        denied = place.pool.submit(place.get, "/held")
        [one] = until(lambda: place.lictor("b", "approve")["waiting"])
        place.lictor("b", "approve", str(one["seq"]), "--deny")
        assert reason(denied.result(15)) == "hold_denied"
        place.server.go_on.set()
        until(lambda: b"data: 1" in stream.read_some())
    assert place.lictor("b", "agent", "holds")[0]["hold"] == held["hold"]
    b.stop()
    b.start()
    asked = place.pool.submit(place.get, "/held")
    [one] = until(lambda: place.lictor("b", "approve")["waiting"])
    place.lictor("b", "agent", "unhold", "orders-b")
    assert place.get("/x").status == 200
    place.lictor("b", "approve", str(one["seq"]))
    assert asked.result(15).status == 200, "what waits already still waits"
    demanded, ended = (b.wait_for(lambda e, t=t: e["action_type"] == t) for t in ("hold_demanded", "hold_ended"))
    said = demanded["action_parameters"]
    assert (said["agent"], said["why"], said["action_types"]) == (IDS["b"], "odd", ["data_source_access"])
    assert ended["action_parameters"]["hold"] == demanded["seq"]
    place.lictor("b", "bet", "issue", "--agent", IDS["b"])
    assert place.lictor("b", "log", "verify")["verdict"] == "intact"
    assert len(b.entries()) > since


def test_a_hold_ends_when_its_time_is_up(place: Place) -> None:
    """Ordered from afar, by one who may order holds and nothing else."""
    status, held = place.order("hold", "orders-holder", agent=IDS["b"], seconds=0.5, workflow="w")
    assert (status, held["by"]) == (200, HOLDER)
    assert place.get("/x").status == 200, "another workflow"
    ended = place.monitors["b"].wait_for(lambda e: e["action_parameters"].get("hold") == held["hold"])
    assert (ended["action_parameters"]["by"], ended["action_parameters"]["why"]) == ("monitor", "its time is up")
    assert place.order("holds", "orders-holder") == (200, [])
    url = f"https://127.0.0.1:{place.orders_port}"
    afar = ["--monitor", url, "--trust", str(place.domain.path), "--as"]
    done = place.lictor("b", "agent", "hold", "orders-c", *afar, "orders-holder", "--for", "1m")
    assert (done["agent"], done["by"]) == (IDS["c"], HOLDER)
    assert [one["hold"] for one in place.lictor("b", "agent", "holds", *afar, "orders-boss")] == [done["hold"]]
    place.lictor("b", "agent", "quarantine", "orders-c", *afar, "orders-holder", code=1)
    place.lictor("b", "agent", "unhold", "orders-c", *afar, "orders-boss")


def test_a_receiver_is_told(place: Place) -> None:
    """By the program that the documentation shows, also of what it was not there to hear at first."""
    assert reason(place.to_nowhere()) == "default_deny"
    held = place.lictor("b", "agent", "hold", "orders-c")
    assert place.lictor("b", "agent", "hold", "orders-c", "--why", "again") == held
    place.lictor("b", "agent", "unhold", "orders-c")

    def told() -> list[list[str]]:
        return [line.split() for line in place.told.read_text().splitlines()]

    wanted = [(IDS["b"], "violation"), (IDS["c"], "hold-demanded"), (IDS["c"], "hold-ended")]
    until(lambda: [(agent, event.rpartition(":")[2]) for _, agent, event in told()][-3:] == wanted)
    assert len({jti for jti, _, _ in told()}) == len(told())
    assert held["agent"] == IDS["c"]


NODE = "11111111-1111-4111-8111-111111111111"
REFUSED = {
    "an agent that is not listed": ("orders-a", "revoke_delegation", {"node": NODE}, 403, "may give no orders"),
    "not the order that it may give": (
        "orders-holder",
        "quarantine",
        {"agent": IDS["b"]},
        403,
        "may not give the order",
    ),
    "not what its order is about": ("orders-holder", "delegations", {}, 403, "may not give the order"),
    "a node that is not known": (
        "orders-boss",
        "revoke_delegation",
        {"node": NODE},
        400,
        "no delegation with the node",
    ),
    "no node": ("orders-boss", "revoke_delegation", {"node": ""}, 400, "expected the id of a node"),
    "a list of nodes": ("orders-boss", "revoke_delegation", {"node": [NODE] * 9}, 400, "expected the id of a node"),
    "in another's name": ("orders-boss", "hold", {"agent": IDS["b"], "by": "user:root"}, 400, "the order hold takes"),
    "no agent": ("orders-boss", "hold", {"agent": "b"}, 400, "expected the SPIFFE ID of an agent"),
    "a giant list": ("orders-boss", "hold", {"agent": IDS["b"], "targets": ["urn:x"] * 33}, 400, "1 to 32 texts"),
    "more than an order may hold": ("orders-boss", "hold", {"agent": IDS["b"], "why": "x" * 70_000}, 413, ""),
    "a time without end": (
        "orders-boss",
        "hold",
        {"agent": IDS["b"], "seconds": 1e300},
        400,
        "expected a number above",
    ),
    "no such hold": ("orders-boss", "unhold", {"agent": IDS["b"], "hold": 1}, 400, "no hold 1 of"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_order(shared: Place, what: str) -> None:
    caller, name, arguments, status, text = REFUSED[what]
    found, said = shared.order(name, caller, **arguments)
    assert (found, text in str(said)) == (status, True), said
    assert shared.lictor("b", "agent", "holds") == []


def test_own_work_is_no_delegation(place: Place) -> None:
    assert place.get("/x").status == 200
    root = place.monitors["b"].entries()[-1]["node"]
    status, said = place.order("revoke_delegation", node=root)
    assert (status, "own work and no delegation" in said) == (400, True), said


def test_a_revoked_certificate_gives_no_orders(shared: Place) -> None:
    assert shared.order("holds", "orders-gone")[0] == 200
    shared.domain.revoke_agent("orders-gone")
    status, said = shared.order("hold", "orders-gone", agent=IDS["b"])
    assert (status, "revoked" in said) == (403, True)


@pytest.mark.parametrize("at", ["a", "b"])
def test_down_a_chain_of_three(place: Place, at: str) -> None:
    """The monitor that is told ends what it let out; the next one sees a caller that has gone, and ends that too."""
    first = place.begin("a", "b")
    [lines] = place.agents["b"].got(1)
    second = place.begin("b", "c", *lines)
    place.agents["c"].got(1)
    [went], [came] = place.open("a", "out", 1), place.open("b", "in", 1)
    assert came["came"] == [went["node"]]
    place.lictor(at, "delegation", "revoke", went["node"])
    with contextlib.suppress(OSError, EOFError):
        assert first.result(15).status != 200
    place.open("a", "out", 0)
    place.open("b", "in", 0)
    told, reasons = place.monitors["a"], {}
    reasons["a"] = told.wait_for(lambda e: e.get("outcome_of") == went["entry"])["outcome"]["error"]
    reasons["b"] = place.monitors["b"].wait_for(lambda e: e.get("outcome_of") == came["entry"])["outcome"]["error"]
    assert reasons[at] == "delegation_revoked"
    assert reasons["b" if at == "a" else "a"] != "delegation_revoked"
    if at == "b":
        with contextlib.suppress(OSError, EOFError):
            assert second.result(15).status != 200
        place.open("c", "in", 0)
        assert reason(place.get("/x", *lines)) == "delegation_revoked"
    else:
        place.open("b", "out", 1)  # what b has begun by itself is for b's monitor to end
        assert place.get("/x", *lines).status == 200


def test_of_two_delegations_one_is_revoked(place: Place) -> None:
    """Everything that is, or may be, work of it ends; what is work of the other goes on. So it stays over a restart."""
    b = place.monitors["b"]
    calls = [place.begin("a", "b")]
    place.agents["b"].got(1)
    calls.append(place.begin("a", "b"))
    first, second = place.agents["b"].got(2)
    listed = place.open("b", "in", 2)
    assert [(one["agent"], one["other"]) for one in listed] == [(IDS["b"], IDS["a"])] * 2
    since = len(b.entries())
    with contextlib.ExitStack() as stack:
        of_first, of_second, of_either = (place.stream(stack, lines) for lines in (first, second, []))
        done = place.lictor("b", "delegation", "revoke", listed[0]["node"], "--why", "enough")
        assert b"data: 1" not in of_first.read_rest()
        assert b"data: 1" not in of_either.read_rest()
        assert calls[0].result(15).status != 200
        assert reason(place.get("/x", *first)) == "delegation_revoked"
        assert place.get("/x", *second).status == 200
        assert place.get("/x").status == 200, "it is taken for work of the other one"
        assert reason(place.delegate("b", "c", first)) == "delegation_revoked"
        place.server.go_on.set()
        until(lambda: b"data: 1" in of_second.read_some())
        assert not calls[1].done()
    entry = b.wait_for(lambda e: e["action_type"] == "delegation_revoked", since)
    said = entry["action_parameters"]
    assert (said["node"], said["why"], said["agent"]) == (listed[0]["node"], "enough", IDS["b"])
    assert said["by"].startswith("user:")
    assert said["ended"] == done["ended"]
    assert len(said["ended"]) == 3, "the delegation itself, and two streams"
    assert b.wait_for(lambda e: e.get("outcome_of") == listed[0]["entry"])["outcome"]["error"] == "delegation_revoked"
    ended = [e["outcome_of"] for e in b.entries()[since:] if e.get("outcome", {}).get("error") == "delegation_revoked"]
    assert sorted(ended) == said["ended"]
    place.finish()
    assert calls[1].result(15).status == 200
    place.open("b", "in", 0)
    assert reason(place.get("/x")) == "delegation_revoked", "with nothing else open it is taken to go on with it"
    b.stop()
    b.start()
    assert reason(place.get("/x", *first)) == "delegation_revoked"
    assert reason(place.get("/x")) == "delegation_revoked"
    assert place.lictor("b", "delegation", "list")["revoked"][-1]["node"] == listed[0]["node"]
    assert place.delegate("a", "b", []).status == 200
    assert place.lictor("b", "log", "verify")["verdict"] == "intact"


def test_one_that_a_restart_cut_off_is_revoked(place: Place) -> None:
    """Its agent goes on, and tells by the trace alone what its work is."""
    b, trace = place.monitors["b"], ("traceparent", "00-12345678901234567890123456789012-1234567890123456-01")
    cut_off = place.begin("a", "b", trace)
    place.agents["b"].got(1)
    [came] = place.open("b", "in", 1)
    assert place.get("/x", trace).status == 200
    b.kill()
    with contextlib.suppress(OSError, EOFError):
        assert cut_off.result(15).status != 200
    b.start()
    place.open("b", "in", 0)
    place.lictor("b", "delegation", "revoke", came["came"][0])
    for _ in range(2):
        answer = place.get("/x", trace)
        entry = b.entries()[answer.json()["entry"]]
        assert (reason(answer), entry["node"], entry["lineage"]) == ("delegation_revoked", came["node"], "traced")
        b.stop()
        b.start()
