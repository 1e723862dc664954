"""`examples/orchestrator.py` with a real Verifier and real monitors: work goes to whom is vouched for only."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from end_to_end.verifying import Place, Start, placed
from end_to_end.world import Monitor, Outside, binding, target, until
from starlette.applications import Starlette

from lictor import examples
from lictor.certs.domain import TrustDomain

URN = "urn:test:agent:good"
CARD = ".well-known/agent-card.json"
ORCHESTRATOR = Path(examples.__file__).parent / "orchestrator.py"


class Echo(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        await event_queue.enqueue_event(new_text_message(context.get_user_input().upper()))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def sub_agent(listener: socket.socket, url: str) -> Iterator[None]:
    """An A2A agent of the official library, on loopback behind a monitor that serves it under `url`."""
    card = AgentCard(
        name="Echo",
        description="Says it louder.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Says it louder.", tags=["text"])],
    )
    handler = DefaultRequestHandler(Echo(), InMemoryTaskStore(), card)
    app = Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class Scene:
    """The orchestrator's monitor, and that of the two agents it might ask: `good` and `bad`."""

    def __init__(self, place: Place, own: Monitor, good: str, bad: str) -> None:
        self.place, self.own, self.good, self.bad = place, own, good, bad
        self.domain = own.domain

    def agent(self, name: str) -> str:
        return f"spiffe://{self.domain.name}/agent/{name}"

    def run(self, *agents: str) -> tuple[int, list[dict[str, object]]]:
        """Run it behind its monitor, with these to choose from; what it prints."""
        verifier = self.place.verifier
        program = [sys.executable, "-m", "lictor"]
        ask = [*program, "verifier", "ask", "--url", verifier.url, "--trust", str(self.domain.path), "--fresh"]
        own = [*program, "exec", "--agent", "default", "-c", str(self.own.config), "--"]
        work = ["--ask", shlex.join(ask), "--work", "one two three", *agents]
        done = subprocess.run(
            [*own, sys.executable, str(ORCHESTRATOR), *work], capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def scene(tmp_path: Path, domain: TrustDomain, make_monitor: Start, outside: Outside) -> Iterator[Scene]:
    good, bad = (f"{name}-{os.getpid()}" for name in ("good", "bad"))
    for name in (good, bad):
        domain.add_agent(name)
    listener = socket.create_server(("127.0.0.1", 0))
    agent_id = f"spiffe://{domain.name}/agent/{good}"
    upstream = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ingress = f'agent = "{agent_id}"\nurn = "{URN}"\nupstream = "{upstream}"'
    with placed(tmp_path, domain, make_monitor, outside, ingress=ingress) as place:
        inbound = binding("urn:test:policy:inbound", delegation=[URN], http_request=[f"{URN}#/{CARD}"])
        place.binds("inbound", {**inbound, "subjects": [f"spiffe://{domain.name}/monitor/*"]})
        url = f"https://127.0.0.1:{place.monitor.ingress_port}/"
        own = make_monitor(
            "own",
            {"main": binding(delegation=[URN], http_request=[f"{url}{CARD}"])},
            target(URN, "agent", f"{url}**", protocol="a2a", agent=agent_id),
            more=place.verifier.table,
        )
        place.verifier.turns_to(place.monitor)
        place.monitor.start()
        with sub_agent(listener, url):
            yield Scene(place, own, good, bad)


def test_work_goes_to_whom_is_vouched_for(scene: Scene) -> None:
    place, url = scene.place, f"https://127.0.0.1:{scene.place.monitor.ingress_port}/"
    assert place.get("/open/x", scene.good).status == 200
    assert place.get("/open/x", scene.bad).status == 200
    assert place.get("/closed/x", scene.bad).status == 403
    asked = place.verifier.ask
    until(lambda: asked(agent=scene.good)["status"] == "affirming", what="good evidence has come")
    until(lambda: asked(agent=scene.bad)["status"] == "contraindicated", what="the refusal has come")

    elsewhere = f"https://localhost:{place.server.port}/"
    before = len(place.server.requests)
    code, steps = scene.run(f"{scene.agent(scene.bad)}={elsewhere}", f"{scene.agent(scene.good)}={url}")
    assert [(step["step"], step["ok"]) for step in steps] == [("ask", False), ("ask", True), ("delegate", True)], steps
    assert (code, steps[-1]["agent"], steps[-1]["answer"]) == (0, scene.agent(scene.good), "ONE TWO THREE")
    assert len(place.server.requests) == before, "nothing went to the one who was refused something"
    delegations = [e for e in scene.own.entries() if e["action_type"] == "delegation" and "outcome_of" not in e]
    assert [(e["action_target"], e["decision"]) for e in delegations] == [(URN, "allow")]

    code, steps = scene.run(f"{scene.agent(scene.bad)}={url}")
    assert (code, [(step["step"], step["ok"], step["code"]) for step in steps]) == (1, [("ask", False, 1)])
    assert len([e for e in scene.own.entries() if e["action_type"] == "delegation"]) == 2 * len(delegations)

    place.verifier.stop()
    code, steps = scene.run(f"{scene.agent(scene.good)}={url}")
    assert (code, steps[0]["code"]) == (1, 3), "no answer is no reason to trust"
