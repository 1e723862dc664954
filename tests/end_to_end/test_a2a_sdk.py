"""The official A2A client and server, unchanged, through a monitor: both generations, JSON-RPC and HTTP+JSON."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from a2a.client import A2AClientError, ClientConfig, create_client
from a2a.helpers import get_stream_response_text, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Role, SendMessageRequest, TaskPushNotificationConfig
from end_to_end.world import Monitor, Outside, binding, target
from starlette.applications import Starlette

URN = "urn:test:agent:echo"
SPOKEN = [(binding_, version) for binding_ in ("JSONRPC", "HTTP+JSON") for version in ("0.3", "1.0")]
PATHS = {"JSONRPC": "/rpc", "HTTP+JSON": "/rest"}


class Echo(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        await event_queue.enqueue_event(new_text_message(context.get_user_input().upper()))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def card(port: int, binding_: str, version: str) -> AgentCard:
    url = f"https://localhost:{port}{PATHS[binding_]}"
    return AgentCard(
        name="Echo",
        description="Says it louder.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding=binding_, protocol_version=version)],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )


@dataclass
class Place:
    monitor: Monitor
    port: int

    @contextlib.asynccontextmanager
    async def client(self, spoken: tuple[str, str], **options: Any) -> AsyncIterator[Any]:
        proxy = httpx.Proxy(self.monitor.url, ssl_context=self.monitor.agent_context())
        async with httpx.AsyncClient(proxy=proxy, verify=self.monitor.target_context(), timeout=60) as http:
            config = ClientConfig(httpx_client=http, supported_protocol_bindings=[spoken[0]], **options)
            yield await create_client(card(self.port, *spoken), config)


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    handler = DefaultRequestHandler(Echo(), InMemoryTaskStore(), card(port, "JSONRPC", "1.0"))
    routes = [
        *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
        *create_rest_routes(handler, enable_v0_3_compat=True, path_prefix="/rest"),
    ]
    certificate: dict[str, Any] = {"ssl_certfile": str(outside.cert), "ssl_keyfile": str(outside.key)}
    configuration = uvicorn.Config(
        Starlette(routes=routes), log_level="error", timeout_graceful_shutdown=1, **certificate
    )
    server = uvicorn.Server(configuration)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        monitor = share_monitor(
            "a2a",
            {"main": binding(delegation=[URN], http_request=["https://notify.example/allowed"])},
            target(URN, "agent", f"https://localhost:{port}/**"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, port)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def hello() -> SendMessageRequest:
    return SendMessageRequest(message=new_text_message("hello", role=Role.ROLE_USER))


async def said(client: Any) -> list[str]:
    return [get_stream_response_text(response) async for response in client.send_message(hello())]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("spoken", SPOKEN, ids="-".join)
async def test_results_are_what_they_are_without_a_monitor(
    place: Place, spoken: tuple[str, str], streaming: bool
) -> None:
    before = len(place.monitor.entries())
    async with place.client(spoken, streaming=streaming) as client:
        assert await said(client) == ["HELLO"]
    entry = next(e for e in place.monitor.entries()[before:] if "outcome_of" not in e)
    assert (entry["action_type"], entry["action_target"], entry["decision"]) == ("delegation", URN, "allow")


@pytest.mark.parametrize("path", ["allowed", "elsewhere"])
@pytest.mark.parametrize("spoken", SPOKEN, ids="-".join)
async def test_where_the_other_agent_is_to_send_what_becomes_of_it_is_judged(
    place: Place, spoken: tuple[str, str], path: str
) -> None:
    before, url = len(place.monitor.entries()), f"https://notify.example/{path}"
    push = TaskPushNotificationConfig(url=f"{url}?token=x")
    async with place.client(spoken, streaming=False, push_notification_config=push) as client:
        if path == "allowed":
            assert await said(client) == ["HELLO"]
        else:
            with pytest.raises(A2AClientError, match="403"):
                await said(client)
    delegation, pushed = [e for e in place.monitor.entries()[before:] if "outcome_of" not in e]
    assert (pushed["action_type"], pushed["action_target"]) == ("http_request", url)
    assert pushed["action_parameters"]["push_notification"]
    decisions = {"allowed": ("allow", "allow"), "elsewhere": ("deny", "deny")}
    assert (delegation["decision"], pushed["decision"]) == decisions[path]
    assert "token" not in str(pushed)


@pytest.mark.parametrize("spoken", SPOKEN, ids="-".join)
async def test_what_is_no_message_needs_leave_of_its_own(place: Place, spoken: tuple[str, str]) -> None:
    config = TaskPushNotificationConfig(task_id="1", url="https://notify.example/allowed")
    async with place.client(spoken) as client:
        with pytest.raises(A2AClientError, match="403"):
            await client.create_task_push_notification_config(config)
