"""Delegation chains of every shape, over five monitors with an agent behind each: both ends agree, the chain verifies.

The agents are plain HTTP servers that hand work on as the message tells them, through their own monitor. What they pass
on of what they got is all that tells their monitor which work a call belongs to: the evidence, the trace (by hand, or
by the SDK of OpenTelemetry, each agent with spans of its own), or nothing. Some speak HTTP/2.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from end_to_end.world import Monitor, Server, binding, target, until
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lictor.certs.domain import TrustDomain
from lictor.cli import main

NAMES = "abcde"
HTTP_2 = "abd"
MEET_S = 15
TELEMETRY = "opentelemetry"
HOW = {"execution-context": "asserted", "traceparent": "traced", TELEMETRY: "traced", "": "inferred"}
"""What agents pass on, and what the log then says of how the work was found that a call belongs to."""


@dataclass(frozen=True)
class Work:
    """Work for the agent `to`, which then hands on parts of it. With `meet` two of the kind are done at one time.

    With `later` the agent answers first and does nothing until it is told to.
    """

    to: str
    parts: tuple[Work, ...] = ()
    at_once: bool = False
    meet: bool = False
    later: bool = False


def work(to: str, *parts: Work, **more: bool) -> Work:
    return Work(to, parts, **more)


TRACE_CONTEXT = TraceContextTextMapPropagator()

passing = pytest.mark.parametrize("passed", HOW, ids=lambda name: name or "nothing")


def agent_id(name: str) -> str:
    return f"spiffe://test.internal/agent/shape-{name}"


def urn(name: str) -> str:
    return f"urn:test:agent:{name}"


class Agent(Server):
    """Hands on what the message says, through the monitor that it stands behind."""

    def __init__(self, name: str) -> None:
        super().__init__(None)
        self.name = name
        self._spans = TracerProvider().get_tracer(name)
        self._meeting = threading.Barrier(2)
        self.left: list[Callable[[], list[str]]] = []
        """What was put off, each to be done once."""

    def join(self, monitor: Monitor, urls: dict[str, str]) -> None:
        self._urls = urls
        context = monitor.target_context()
        if self.name in HTTP_2:
            context.set_alpn_protocols(["h2"])
            context.set_alpn_protocols = lambda offered: None  # httpx would offer HTTP/1.1 first
        # Not httpx.Client: of its threads the one that reads an HTTP/2 connection may starve the others.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._http = httpx.AsyncClient(
            proxy=httpx.Proxy(monitor.url, ssl_context=monitor.agent_context(f"shape-{self.name}")),
            verify=context,
            trust_env=False,
            timeout=30,
            http2=self.name in HTTP_2,
        )

    def take(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        told, passed = body["params"]["message"]["metadata"]["work"], body["params"]["metadata"]["passed"]
        headers = [(name, value) for name, value in handler.headers.items() if name.lower() == passed]
        if told["meet"]:
            self._meeting.wait(MEET_S)
        do = partial(self.do, told, dict(handler.headers.items()), headers, passed)
        if told["later"]:
            self.left.append(do)
        answers = [] if told["later"] else do()
        if told["meet"]:
            self._meeting.wait(MEET_S)
        data = json.dumps(answers).encode()
        handler.send_response(502 if answers else 200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def do(self, told: dict[str, Any], came: dict[str, str], headers: list[tuple[str, str]], passed: str) -> list[str]:
        with self.span(came):
            return self.hand_on(told, headers, passed)

    def span(self, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        """What is done within belongs to the trace that these headers name; without any, to a new one."""
        caller = TRACE_CONTEXT.extract({name.lower(): value for name, value in headers.items()})
        return self._spans.start_as_current_span(self.name, caller)

    def hand_on(self, told: dict[str, Any], headers: list[tuple[str, str]], passed: str) -> list[str]:
        """What went wrong, if anything."""
        context = get_current()

        def send(part: dict[str, Any]) -> str:
            message = {"messageId": str(uuid.uuid4()), "parts": [], "metadata": {"work": part}}
            params = {"message": message, "metadata": {"passed": passed}}
            body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
            carrier: dict[str, str] = {}
            if passed == TELEMETRY:
                with self._spans.start_as_current_span(f"to {part['to']}", context):
                    TRACE_CONTEXT.inject(carrier)
            answer = self.wait_for(
                self._http.post(self._urls[part["to"]], json=body, headers=[*headers, *carrier.items()])
            )
            assert answer.http_version == ("HTTP/2" if self.name in HTTP_2 else "HTTP/1.1")
            return "" if answer.status_code == 200 else f"{self.name} to {part['to']}: {answer.text}"

        if not told["at_once"]:
            return [*filter(None, map(send, told["parts"]))]
        with ThreadPoolExecutor() as pool:
            return [*filter(None, pool.map(send, told["parts"]))]

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self.wait_for(self._http.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        super().close()


class Shapes:
    """The monitors and their agents."""

    def __init__(self, monitors: dict[str, Monitor], agents: dict[str, Agent]) -> None:
        self.monitors, self.agents = monitors, agents
        self.seen: set[str] = set()

    def begin(self, passed: str, begun: Work) -> None:
        """The agent `begun.to` begins on its own, in a trace of its own."""
        trace = {"traceparent": f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"}
        agent = self.agents[begun.to]
        with agent.span(trace):
            assert agent.hand_on(asdict(begun), [] if passed == TELEMETRY else [*trace.items()], passed) == []

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Of delegations."""
        return [entry for entry in self.monitors[name].entries() if entry.get("action_type") == "delegation"]

    def sent(self, name: str) -> dict[str, dict[str, Any]]:
        """The delegations that the agent sent, by their nodes."""
        actions = [entry for entry in self.entries(name) if "outcome_of" not in entry]
        return {one["node"]: one for one in actions if one["action_parameters"].get("direction") != "inbound"}

    def settled(self) -> bool:
        """Whether every delegation has its outcome on disk."""
        return all(2 * sum("outcome_of" in one for one in found) == len(found) for found in map(self.entries, NAMES))


@pytest.fixture(scope="module")
def shapes(share_monitor: Callable[..., Monitor], domain: TrustDomain) -> Iterator[Shapes]:
    agents = {name: Agent(name) for name in NAMES}
    monitors = {}
    for name, agent in agents.items():
        domain.add_agent(f"shape-{name}")
        ingress = f'agent = "{agent_id(name)}"\nurn = "{urn(name)}"\nupstream = "http://127.0.0.1:{agent.port}"'
        monitors[name] = share_monitor(
            name, {"main": binding(delegation=[*map(urn, NAMES)])}, ingress=ingress, start=False
        )
    urls = {name: f"https://127.0.0.1:{monitor.ingress_port}/" for name, monitor in monitors.items()}
    targets = "".join(target(urn(name), "agent", f"{url}**", agent=agent_id(name)) for name, url in urls.items())
    for name, monitor in monitors.items():
        with monitor.config.open("a") as config:
            config.write(targets)
        agents[name].join(monitor, urls)
    with ThreadPoolExecutor() as pool:
        [*pool.map(Monitor.start, monitors.values())]
    yield Shapes(monitors, agents)
    for agent in agents.values():
        agent.close()


@pytest.fixture
def verified(
    shapes: Shapes, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[dict[str, str], dict[str, Any]]]:
    """Runs `lictor chain verify` over all ledgers: the new edges (their nodes, and who to whom) and all nodes."""

    def verify() -> tuple[dict[str, str], dict[str, Any]]:
        until(shapes.settled, what="all outcomes")
        ledgers = [str(monitor.path / "data" / "ledger.sqlite") for monitor in shapes.monitors.values()]
        command = ["lictor", "chain", "verify", *ledgers, "--trust", str(domain.identity_ca), "--json"]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        shown = json.loads(capsys.readouterr().out)
        assert ended.value.code in (0, None), (shown["chain"]["problems"], shown["logs"])
        edges = [edge for edge in shown["chain"]["edges"] if edge["node"] not in shapes.seen]
        shapes.seen.update(edge["node"] for edge in edges)
        assert {edge["state"] for edge in edges} == {"agreed"}
        nodes = {node["jti"]: node for flow in shown["chain"]["workflows"] for node in flow["nodes"]}
        assert all(edge["callee_node"] in nodes[edge["node"]]["children"] for edge in edges)
        return {edge["node"]: f"{edge['caller'][-1]}{edge['callee'][-1]}" for edge in edges}, nodes

    return verify


def ways(edges: dict[str, str], nodes: dict[str, Any], edge: str) -> list[str]:
    """Of each such edge the agents by way of which the work had come; those that it came from at once in one word."""
    return sorted(way(node, nodes) for node, found in edges.items() if found == edge)


def way(node: str, nodes: dict[str, Any]) -> str:
    stations: list[str] = []
    now = {node}
    while now:
        station = "".join(sorted({nodes[jti]["agent"][-1] for jti in now}))
        if station not in stations[:1]:
            stations.insert(0, station)
        now = {parent for jti in now for parent in nodes[jti]["parents"]}
    return " ".join(stations)


def hows(shapes: Shapes, name: str, edges: dict[str, str]) -> set[str]:
    """How the log says it was found which work the agent's calls belong to."""
    return {entry["lineage"] for node, entry in shapes.sent(name).items() if node in edges}


@passing
def test_a_line(shapes: Shapes, verified: Any, passed: str) -> None:
    shapes.begin(passed, work("a", work("b", work("c", work("d", work("e"))))))
    edges, nodes = verified()
    assert sorted(edges.values()) == ["ab", "bc", "cd", "de"]
    assert ways(edges, nodes, "de") == ["a b c d"]
    assert hows(shapes, "b", edges) == hows(shapes, "c", edges) == hows(shapes, "d", edges) == {HOW[passed]}


@passing
def test_a_fan(shapes: Shapes, verified: Any, passed: str) -> None:
    """One agent hands on to several at once, to one of them twice: both that it gets have lines in common."""
    twice = work("c", work("d"), meet=True)
    shapes.begin(passed, work("a", work("b", twice, twice, work("d"), at_once=True)))
    edges, nodes = verified()
    assert sorted(edges.values()) == ["ab", "bc", "bc", "bd", "cd", "cd"]
    assert ways(edges, nodes, "bc") == ["a b", "a b"]
    assert ways(edges, nodes, "cd") == ["a b c", "a b c"]
    places = [parent for node, edge in edges.items() if edge == "cd" for parent in nodes[node]["parents"]]
    apart = passed == "execution-context"
    assert [len(nodes[place]["parents"]) for place in places] == ([1, 1] if apart else [2, 2])
    assert len(set(places)) == (2 if apart else 1)
    assert hows(shapes, "b", edges) == {HOW[passed]}


@passing
def test_a_diamond(shapes: Shapes, verified: Any, passed: str) -> None:
    """Two hand on work of one origin, and one trace, to the same agent; only evidence tells then which is which."""
    last = work("d", work("a"), meet=True)
    shapes.begin(passed, work("a", work("b", last), work("c", last), at_once=True))
    edges, nodes = verified()
    assert sorted(edges.values()) == ["ab", "ac", "bd", "cd", "da", "da"]
    apart = passed == "execution-context"
    assert ways(edges, nodes, "da") == (["a b d", "a c d"] if apart else ["a bc d", "a bc d"])
    assert hows(shapes, "d", edges) == {HOW[passed]}


@passing
def test_two_callers_at_once(shapes: Shapes, verified: Any, passed: str) -> None:
    """Of different workflows: what belongs to neither for certain is put under one of them and names the other."""
    both = [work(caller, work("d", work("c"), meet=True)) for caller in "ab"]
    with ThreadPoolExecutor() as pool:
        [*pool.map(lambda one: shapes.begin(passed, one), both)]
    edges, nodes = verified()
    assert sorted(edges.values()) == ["ad", "bd", "dc", "dc"]
    found = ways(edges, nodes, "dc")
    assert found == ["a d", "b d"] if passed else found in (["a d", "a d"], ["b d", "b d"])
    assert hows(shapes, "d", edges) == {HOW[passed]}


@passing
def test_a_pair_that_calls_back(shapes: Shapes, verified: Any, passed: str) -> None:
    shapes.begin(passed, work("a", work("b", work("a", work("b"), work("b")))))
    edges, nodes = verified()
    assert sorted(edges.values()) == ["ab", "ab", "ab", "ba"]
    assert ways(edges, nodes, "ba") == ["a b"]
    assert ways(edges, nodes, "ab") == ["a", "a b a", "a b a"]


@passing
def test_an_agent_that_answers_first_and_works_later(shapes: Shapes, verified: Any, passed: str) -> None:
    """What names the work that it is belongs to it still; where nothing does, it is the agent's own work by then."""
    shapes.begin(passed, work("a", work("b", work("c"), later=True)))
    assert list(verified()[0].values()) == ["ab"]
    assert shapes.agents["b"].left.pop()() == []
    edges, nodes = verified()
    assert list(edges.values()) == ["bc"]
    assert ways(edges, nodes, "bc") == (["a b"] if passed else ["b"])
    assert hows(shapes, "b", edges) == {HOW[passed] if passed else "root"}
