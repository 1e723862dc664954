"""Agent B: an A2A agent that counts the words of the message it is sent, with an MCP tool.

    sub_agent.py --url https://public.example:9443/ --tool https://localhost:8443/mcp [--port 9000]

Serves plain HTTP on loopback: something in front of it is expected to speak TLS under --url, the address in its agent
card. Its own calls go where HTTPS_PROXY and SSL_CERT_FILE say. Prints one line, {"listening": URL}, when it can be
called; port 0 picks a free one.
"""

from __future__ import annotations

import argparse
import json
import socket

import uvicorn
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from mcp import Client
from starlette.applications import Starlette


class WordCounter(AgentExecutor):
    """Answers each message with the number of its words."""

    def __init__(self, tool_url: str) -> None:
        self._tool_url = tool_url

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        async with Client(self._tool_url) as tools:
            result = await tools.call_tool("count_words", {"text": context.get_user_input()})
        words = (result.structured_content or {})["result"]
        answer = new_text_message(f"{words} words", context_id=context.context_id, task_id=context.task_id)
        await event_queue.enqueue_event(answer)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError("an answer takes one call; there is nothing to cancel")


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
    parser.add_argument("--tool", required=True, help="URL of the MCP server that it uses")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()

    card = agent_card(arguments.url)
    handler = DefaultRequestHandler(WordCounter(arguments.tool), InMemoryTaskStore(), card)
    routes = create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/")
    listener = socket.create_server(("127.0.0.1", arguments.port))
    print(json.dumps({"listening": f"http://127.0.0.1:{listener.getsockname()[1]}/"}), flush=True)
    configuration = uvicorn.Config(Starlette(routes=routes), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(configuration).run(sockets=[listener])


if __name__ == "__main__":
    main()
