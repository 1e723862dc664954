"""An orchestrator: has its work done by the first agent that a Verifier vouches for.

    orchestrator.py --ask "COMMAND …" --work TEXT ID=URL [ID=URL …]

COMMAND is run with the ID of each agent behind it, in the order in which they are given; exit code 0 vouches for the
agent, and the message is sent to the A2A agent at its URL. Anything else, no answer too, is no reason to trust: the
next is asked. Prints one JSON line for each step; exit code 1 if nobody was vouched for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import subprocess
import sys

from a2a.client import create_client
from a2a.helpers import get_stream_response_text, new_text_message
from a2a.types import Role, SendMessageRequest

ANSWER_S = 60


def vouched_for(command: list[str], agent: str) -> bool:
    """Ask about an agent, and say what came of it."""
    try:
        code: int | None = subprocess.run(
            [*command, agent], stdout=subprocess.DEVNULL, timeout=ANSWER_S, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        code = None
    print(json.dumps({"step": "ask", "agent": agent, "ok": code == 0, "code": code}), flush=True)
    return code == 0


async def delegate(url: str, text: str) -> str:
    """Send a message to an A2A agent and return the text of its answer."""
    agent = await create_client(url)
    try:
        request = SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))
        return "".join([get_stream_response_text(part) async for part in agent.send_message(request)])
    finally:
        await agent.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Delegates to the first agent that a Verifier vouches for.")
    parser.add_argument("--ask", required=True, help="the command that is asked, with the agent's ID behind it")
    parser.add_argument("--work", required=True, help="what is to be done")
    parser.add_argument("agents", nargs="+", metavar="ID=URL")
    arguments = parser.parse_args()
    for pair in arguments.agents:
        agent, _, url = pair.partition("=")
        if vouched_for(shlex.split(arguments.ask), agent):
            answer = asyncio.run(delegate(url, arguments.work))
            print(json.dumps({"step": "delegate", "agent": agent, "ok": True, "answer": answer}), flush=True)
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
