"""The official MCP client and server, unchanged, through a monitor, at every revision that both speak."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx2
import mcp
import pytest
import uvicorn
from click.testing import CliRunner
from end_to_end.world import Monitor, Outside, binding, target
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.mcpserver import resolve
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    Root,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel

from lictor.cli import cli

URN = "urn:test:tool:office"
LEGACY = ["2025-03-26", "2025-06-18", "2025-11-25"]
VERSIONS = [*LEGACY, "2026-07-28"]
REQUESTS = ["sampling/createMessage", "elicitation/create", "roots/list"]
TOOLS = ["add", "ask", "summarize", "where"]
ALLOWED = ["", *(f"#tools/{name}" for name in TOOLS), "#resources/memo://one", "#prompts/greet"]


class Name(BaseModel):
    name: str


def ask_name() -> resolve.Elicit[Name]:
    return resolve.Elicit("Who are you?", Name)


def summary(text: str) -> resolve.Sample:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return resolve.Sample([message], max_tokens=10)


def roots() -> resolve.ListRoots:
    return resolve.ListRoots()


def office() -> MCPServer:
    server = MCPServer("office", version="1.0.0", log_level="WARNING")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def ask(who: Annotated[Name, resolve.Resolve(ask_name)]) -> str:
        """Ask the user for a name."""
        return f"Hello, {who.name}"

    @server.tool()
    def summarize(text: str, said: Annotated[CreateMessageResult, resolve.Resolve(summary)]) -> str:
        """Have the client's model say it shorter."""
        assert isinstance(said.content, TextContent)
        return said.content.text

    @server.tool()
    def where(found: Annotated[ListRootsResult, resolve.Resolve(roots)]) -> str:
        """Ask for the client's folders."""
        return str(found.roots[0].uri)

    @server.tool()
    def delete_everything() -> str:
        """Delete every record."""
        return "gone"

    @server.resource("memo://one")
    def one() -> str:
        return "first memo"

    @server.resource("memo://two")
    def two() -> str:
        return "second memo"

    @server.prompt()
    def greet() -> str:
        return "Say hello"

    @server.prompt()
    def insult() -> str:
        return "Say something else"

    return server


@contextlib.contextmanager
def serving(outside: Outside, **options: Any) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    configuration = uvicorn.Config(
        office().streamable_http_app(**options),
        ssl_certfile=str(outside.cert),
        ssl_keyfile=str(outside.key),
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(configuration)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@dataclass
class Office:
    """Two servers, that stream their answers and that do not, behind monitors that let in their requests, or do not."""

    monitor: Monitor
    closed: Monitor
    ports: dict[str, int]
    asked: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def client(self, version: str, monitor: Monitor | None = None, port: str = "sse") -> AsyncIterator[Any]:
        monitor = monitor or self.monitor
        proxy = httpx2.Proxy(monitor.url, ssl_context=monitor.agent_context())
        async with httpx2.AsyncClient(proxy=proxy, verify=monitor.target_context(), timeout=60) as http:
            transport = streamable_http_client(f"https://localhost:{self.ports[port]}/mcp", http_client=http)
            async with mcp.Client(
                transport,
                mode="legacy" if version in LEGACY else version,
                sampling_callback=self.sample,
                elicitation_callback=self.elicit,
                list_roots_callback=self.roots,
            ) as client:
                yield client

    async def sample(self, *_: Any) -> CreateMessageResult:
        self.asked.append("sampling/createMessage")
        content = TextContent(type="text", text="in short")
        return CreateMessageResult(role="assistant", content=content, model="m")

    async def elicit(self, *_: Any) -> ElicitResult:
        self.asked.append("elicitation/create")
        return ElicitResult(action="accept", content={"name": "Ada"})

    async def roots(self, *_: Any) -> ListRootsResult:
        self.asked.append("roots/list")
        return ListRootsResult(roots=[Root(uri="file:///work")])


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Office]:
    with serving(outside) as sse, serving(outside, json_response=True) as plain:
        urls = [f"https://localhost:{port}/mcp" for port in (sse, plain)]
        targets = target(URN, "tool", *urls, protocol="mcp")
        more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
        monitors = [
            share_monitor(
                name,
                {"main": binding(tool_call=[URN + fragment for fragment in allowed])},
                targets,
                more=more,
                workers=2 if name == "mcp" else 1,
            )
            for name, allowed in (("mcp", ALLOWED + [f"#{r}" for r in REQUESTS]), ("mcp-closed", ALLOWED))
        ]
        yield Office(*monitors, {"sse": sse, "json": plain})


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in LEGACY:
        monkeypatch.setattr("mcp.client.session.LATEST_HANDSHAKE_VERSION", request.param)
    return str(request.param)


def text_of(result: Any) -> str:
    assert not result.is_error, result
    return str(result.content[0].text)


async def test_results_are_what_they_are_without_a_monitor(place: Office, version: str) -> None:
    place.asked.clear()
    async with place.client(version) as client:
        assert client.session.protocol_version == version
        assert text_of(await client.call_tool("add", {"a": 2, "b": 3})) == "5"
        if version > "2025-03-26":  # which has no elicitation yet
            assert text_of(await client.call_tool("ask", {})) == "Hello, Ada"
        assert text_of(await client.call_tool("summarize", {"text": "long"})) == "in short"
        assert text_of(await client.call_tool("where", {})) == "file:///work"
        assert (await client.read_resource("memo://one")).contents[0].text == "first memo"
        assert (await client.get_prompt("greet")).messages[0].content.text == "Say hello"
    assert sorted(place.asked) == sorted(REQUESTS if version > "2025-03-26" else REQUESTS[::2])


@pytest.mark.parametrize("port", ["sse", "json"])
async def test_lists_hold_what_the_agent_may_use(place: Office, version: str, port: str) -> None:
    async with place.client(version, port=port) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
        assert [str(found.uri) for found in (await client.list_resources()).resources] == ["memo://one"]
        assert [found.name for found in (await client.list_prompts()).prompts] == ["greet"]
        for call in (
            client.call_tool("delete_everything", {}),
            client.read_resource("memo://two"),
            client.get_prompt("insult"),
        ):
            with pytest.raises(MCPError, match="refused by lictor"):
                await call


async def test_every_request_of_the_server_is_an_entry(place: Office, version: str) -> None:
    before = len(place.monitor.entries())
    async with place.client(version) as client:
        await client.call_tool("where", {})
    entry = place.monitor.wait_for(lambda e: e["action_target"] == f"{URN}#roots/list", before)
    assert (entry["action_type"], entry["decision"]) == ("tool_call", "allow")
    parameters = entry["action_parameters"]
    assert (parameters["direction"], parameters["rpc_method"]) == ("from_server", "roots/list")
    call = next(e for e in place.monitor.entries()[before:] if e["action_target"] == f"{URN}#tools/where")
    assert call["wid"] == entry["wid"]
    assert place.monitor.wait_for(lambda e: e.get("outcome_of") == entry["seq"])["outcome"]["complete"]


async def test_a_request_that_no_binding_allows_never_arrives(place: Office, version: str) -> None:
    place.asked.clear()
    before = len(place.closed.entries())
    async with place.client(version, place.closed) as client:
        if version in LEGACY:
            with pytest.raises(MCPError, match="imed out"):
                await client.call_tool("where", {}, read_timeout_seconds=0.5)
        else:
            with pytest.raises(MCPError, match="the server asked for roots/list, which is not allowed"):
                await client.call_tool("where", {})
        assert text_of(await client.call_tool("add", {"a": 1, "b": 1})) == "2"
    assert place.asked == []
    entry = place.closed.wait_for(lambda e: e["action_target"] == f"{URN}#roots/list", before)
    assert (entry["decision"], entry["reason"]) == ("deny", "not_in_allowlist")


def lictor(*args: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli, [*args, "--json"], standalone_mode=False)
    return done.return_value or done.exit_code, json.loads(done.stdout)


async def test_what_the_log_says_of_it_is_verified_learned_and_explained(place: Office, tmp_path: Path) -> None:
    async with place.client("2025-11-25") as client:
        await client.call_tool("where", {})
        await client.read_resource("memo://one")
    config = ("-c", str(place.monitor.config))
    place.monitor.wait_for(lambda e: e["action_target"] == f"{URN}#resources/memo://one" and "outcome_of" in e)
    code, verified = lictor("log", "verify", *config)
    assert (code, verified["verdict"]) == (0, "intact")
    learned = lictor("binding", "learn", "--agent", "default", *config)[1]["binding"]
    (behavior,) = learned["expected_behaviors"]
    assert {f"{URN}#roots/list", f"{URN}#resources/memo://one"} <= set(behavior["compliance_criteria"]["values"])
    for uri, code in (("memo://one", 0), ("memo://two", 1)):
        message = {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}
        (tmp_path / "body.json").write_text(json.dumps(message))
        url = f"https://localhost:{place.ports['sse']}/mcp"
        told = lictor("binding", "explain", url, "--agent", "default", "--body", str(tmp_path / "body.json"), *config)
        assert told[0] == code
