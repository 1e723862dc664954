"""Agent A: an ordinary program that does a day's work and prints one JSON line for each step.

    agent.py --tool https://…/mcp --data https://…/ --other-data https://…/ --agent https://…/ [--next-agent https://…/]

It uses a tool, reads data, tries data and a tool that nobody approved, and delegates to another agent; then it tries to
reach past that one, to the agent that does its work. It knows nothing
of any monitor: its clients (httpx, the MCP SDK, the A2A SDK) go where HTTPS_PROXY and SSL_CERT_FILE say. A step that is
refused is a step with "ok": false and the reason that the client was given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import httpx2
from a2a.client import A2AClientError, create_client
from a2a.helpers import get_stream_response_text, new_text_message
from a2a.types import Role, SendMessageRequest
from mcp import Client, MCPError

SENTENCE = "how many words are in this sentence"
REFUSALS = (httpx.HTTPError, httpx2.HTTPError, MCPError, A2AClientError, OSError)


async def use_tool(url: str, name: str, arguments: dict[str, Any]) -> Any:
    """Call one tool of an MCP server."""
    async with Client(url) as tools:
        result = await tools.call_tool(name, arguments)
    return result.structured_content


async def read_data(url: str) -> Any:
    """GET a JSON document."""
    async with httpx.AsyncClient() as web:
        response = await web.get(url)
    if response.is_error:
        raise httpx.HTTPStatusError(told(response), request=response.request, response=response)
    return response.json()


def told(response: httpx.Response) -> str:
    """What an error response says: the detail of RFC 9457 where there is one."""
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem = response.json()
        return f"{response.status_code} {problem.get('title')}: {problem.get('detail')}"
    return f"{response.status_code} {response.reason_phrase}"


async def delegate(url: str, text: str) -> str:
    """Send a message to an A2A agent and return the text of its answer."""
    agent = await create_client(url)
    try:
        request = SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))
        return "".join([get_stream_response_text(part) async for part in agent.send_message(request)])
    finally:
        await agent.close()


def refusal(error: BaseException) -> dict[str, Any]:
    """What the client library says. The MCP client wraps errors in exception groups; its own may have data."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said: dict[str, Any] = {"reason": str(error) or type(error).__name__}
    return {**said, "data": error.data} if isinstance(error, MCPError) else said


async def step(name: str, work: Callable[[], Awaitable[Any]]) -> None:
    """Do one piece of work and print what came of it."""
    try:
        done: dict[str, Any] = {"step": name, "ok": True, "answer": await work()}
    except* REFUSALS as errors:
        done = {"step": name, "ok": False, **refusal(errors)}
    print(json.dumps(done), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description="An agent that uses a tool, reads data and delegates.")
    parser.add_argument("--tool", required=True, help="URL of an MCP server")
    parser.add_argument("--data", required=True, help="URL of a data source")
    parser.add_argument("--other-data", required=True, help="URL of a data source that was not approved")
    parser.add_argument("--agent", required=True, help="URL of an A2A agent")
    parser.add_argument("--next-agent", help="URL of the A2A agent that this one hands work on to")
    arguments = parser.parse_args()

    await step("use_tool", lambda: use_tool(arguments.tool, "convert", {"amount": 200.5, "rate": 1.1}))
    await step("read_data", lambda: read_data(arguments.data))
    await step("read_unapproved_data", lambda: read_data(arguments.other_data))
    await step("use_unapproved_tool", lambda: use_tool(arguments.tool, "delete_everything", {}))
    await step("delegate", lambda: delegate(arguments.agent, SENTENCE))
    if arguments.next_agent:
        await step("delegate_past_it", lambda: delegate(arguments.next_agent, SENTENCE))


if __name__ == "__main__":
    asyncio.run(main())
