"""An A2A agent that is asked how many words a message has. It counts them with an MCP tool, or asks another agent.

    sub_agent.py --url https://public.example:9443/ --tool https://localhost:8443/mcp [--port 9000]
    sub_agent.py --url https://public.example:9443/ --agent https://localhost:9444/ [--port 9000]

Serves plain HTTP on loopback: something in front of it is expected to speak TLS under --url, the address in its agent
card. Its own calls go where HTTPS_PROXY and SSL_CERT_FILE say. Prints one line, {"listening": URL}, when it can be
called; port 0 picks a free one.
"""

from __future__ import annotations

import argparse
import json
import socket
from abc import ABC, abstractmethod

import uvicorn
from a2a.client import create_client
from a2a.helpers import get_stream_response_text, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Role, SendMessageRequest
from mcp import Client
from starlette.applications import Starlette


class Answers(AgentExecutor, ABC):
    """Answers each message with a text. `url` is where whoever helps with it is found."""

    def __init__(self, url: str) -> None:
        self._url = url

    @abstractmethod
    async def answer(self, text: str) -> str:
        """What is answered to this text."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        text = await self.answer(context.get_user_input())
        await event_queue.enqueue_event(new_text_message(text, context_id=context.context_id, task_id=context.task_id))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError("an answer takes one call; there is nothing to cancel")


class Counts(Answers):
    """Uses the tool of an MCP server."""

    async def answer(self, text: str) -> str:
        async with Client(self._url) as tools:
            result = await tools.call_tool("count_words", {"text": text})
        return f"{(result.structured_content or {})['result']} words"


class HandsOn(Answers):
    """Asks another agent, and says what that one says."""

    async def answer(self, text: str) -> str:
        agent = await create_client(self._url)
        try:
            request = SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))
            return "".join([get_stream_response_text(part) async for part in agent.send_message(request)])
        finally:
            await agent.close()


def agent_card(url: str) -> AgentCard:
    return AgentCard(
        name="Word counter",
        description="Counts the words of a text.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="count", name="Count words", description="Counts words.", tags=["text"])],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="An A2A agent that counts words.")
    parser.add_argument("--url", required=True, help="address that other agents call")
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--tool", type=Counts, dest="work", help="URL of the MCP server that it uses")
    work.add_argument("--agent", type=HandsOn, dest="work", help="URL of the A2A agent that it hands work on to")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()

    card = agent_card(arguments.url)
    handler = DefaultRequestHandler(arguments.work, InMemoryTaskStore(), card)
    routes = create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/")
    listener = socket.create_server(("127.0.0.1", arguments.port))
    print(json.dumps({"listening": f"http://127.0.0.1:{listener.getsockname()[1]}/"}), flush=True)
    configuration = uvicorn.Config(Starlette(routes=routes), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(configuration).run(sockets=[listener])


if __name__ == "__main__":
    main()
