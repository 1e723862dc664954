"""The example programs are ordinary: without any monitor they find each other, and everything is let through."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor import examples
from lictor.cli.demo_processes import Program, Programs, free_ports
from lictor.cli.demo_world import CUSTOMER, World, make_outside

FOLDER = Path(examples.__file__).parent
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "world")
    world.make_folders()
    make_outside(world)
    return world


@pytest.fixture
def programs(world: World) -> Iterator[Programs]:
    with Programs(world.logs) as programs:
        yield programs


def run(programs: Programs, world: World, name: str, script: str, *arguments: str) -> Program:
    environment = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    environment["SSL_CERT_FILE"] = str(world.outside / "ca.pem")
    return programs.start(name, [sys.executable, str(FOLDER / script), *arguments], environment)


def listening(program: Program) -> str:
    return str(json.loads(program.first_line(30))["listening"])


def test_an_agent_does_everything_where_nobody_stands_in_front_of_it(world: World, programs: Programs) -> None:
    tls = ("--cert", str(world.outside / "server.pem"), "--key", str(world.outside / "server.key"))
    ca = ("--client-ca", str(world.outside / "ca.pem"))
    tool_server = run(programs, world, "tool", "mcp_tool_server.py", *tls, "--calls", str(world.calls("tool")))
    data_server = run(programs, world, "data", "data_api.py", *tls, *ca, "--calls", str(world.calls("data")))
    tool, data = listening(tool_server), listening(data_server)
    ports = free_ports(2)
    url, next_url = (f"http://127.0.0.1:{port}/" for port in ports)
    middle = run(programs, world, "b", "sub_agent.py", "--url", url, "--agent", next_url, "--port", str(ports[0]))
    last = run(programs, world, "c", "sub_agent.py", "--url", next_url, "--tool", tool, "--port", str(ports[1]))
    assert (listening(middle), listening(last)) == (url, next_url)
    where = ("--tool", tool, "--data", f"{data}orders", "--other-data", f"{data}salaries", "--agent", url)
    where += ("--next-agent", next_url)
    agent = run(programs, world, "a", "agent.py", *where)
    steps = {step["step"]: step for step in map(json.loads, agent.lines(60))}
    assert agent.stop() == 0, agent.err.read_text()
    assert steps["use_tool"] == {"step": "use_tool", "ok": True, "answer": {"result": 220.55}}
    assert steps["use_unapproved_tool"]["answer"] == {"result": "everything is deleted"}
    assert steps["delegate"]["answer"] == steps["delegate_past_it"]["answer"] == "7 words"
    assert steps["read_data"]["ok"] is False, "the data source must demand a client certificate"
    assert counts(world, "tool") == {"convert": 1, "count_words": 2, "delete_everything": 1}
    assert counts(world, "data") == {"connections": 2, "requests": 0}


def test_the_data_source_serves_a_client_with_a_certificate(world: World, programs: Programs) -> None:
    import ssl

    import httpx

    tls = ("--cert", str(world.outside / "server.pem"), "--key", str(world.outside / "server.key"))
    ca = ("--client-ca", str(world.outside / "ca.pem"), "--name", "sales")
    url = listening(run(programs, world, "data", "data_api.py", *tls, *ca, "--calls", str(world.calls("data"))))
    context = ssl.create_default_context(cafile=str(world.outside / "ca.pem"))
    context.load_cert_chain(world.outside / "customer.pem", world.outside / "customer.key")
    answer = httpx.get(f"{url}orders", verify=context, trust_env=False).json()
    assert (answer["source"], answer["path"], answer["client"]) == ("sales", "/orders", CUSTOMER)
    assert counts(world, "data") == {"connections": 1, "requests": 1}


def test_an_orchestrator_delegates_to_whom_is_vouched_for(world: World, programs: Programs, tmp_path: Path) -> None:
    tls = ("--cert", str(world.outside / "server.pem"), "--key", str(world.outside / "server.key"))
    tool = listening(run(programs, world, "tool", "mcp_tool_server.py", *tls, "--calls", str(world.calls("tool"))))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/"
    listening(run(programs, world, "b", "sub_agent.py", "--url", url, "--tool", tool, "--port", str(port)))
    verifier = tmp_path / "verifier.py"
    verifier.write_text("import sys\nsys.exit({'good': 0, 'bad': 1}.get(sys.argv[1].rpartition('/')[2], 3))\n")
    ask = ("--ask", f"{sys.executable} {verifier}", "--work", "one two three")
    agents = [f"spiffe://x/agent/{name}={url}" for name in ("bad", "new", "good", "other")]
    done = run(programs, world, "orchestrator", "orchestrator.py", *ask, *agents)
    steps = [json.loads(line) for line in done.lines(60)]
    assert [(step["agent"].rpartition("/")[2], step["ok"]) for step in steps[:-1]] == [
        ("bad", False),
        ("new", False),
        ("good", True),
    ]
    assert (steps[-1]["step"], steps[-1]["answer"]) == ("delegate", "3 words")
    assert done.stop() == 0

    nobody = run(programs, world, "in-vain", "orchestrator.py", "--ask", "/nowhere/ask", "--work", "x", agents[2])
    assert [json.loads(line) for line in nobody.lines(60)] == [
        {"step": "ask", "agent": "spiffe://x/agent/good", "ok": False, "code": None}
    ]
    assert nobody.stop() == 1


def counts(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.calls(name).read_text())
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_they_know_nothing_of_lictor(script: Path) -> None:
    tree = ast.parse(script.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] == "lictor" for name in imported)
    assert not any(node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    assert "lictor" not in script.read_text()
