"""An MCP server with three tools, over HTTPS. It counts the calls of each tool in a file that others may read.

    mcp_tool_server.py --cert server.pem --key server.key --calls calls.json [--port 8443]

Prints one line, {"listening": URL}, when it can be called; port 0 picks a free one.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections import Counter
from pathlib import Path

import uvicorn
from mcp.server import MCPServer


class Calls:
    """How often each tool was called; the file is true at any moment."""

    def __init__(self, path: Path, tools: list[str]) -> None:
        self._path = path
        self._counts = Counter(dict.fromkeys(tools, 0))
        self._write()

    def add(self, tool: str) -> None:
        self._counts[tool] += 1
        self._write()

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._counts))
        new.replace(self._path)


def tool_server(calls: Calls) -> MCPServer:
    """The server with its tools; nothing is really deleted."""
    server = MCPServer("office-tools", version="1.0.0", log_level="WARNING")

    @server.tool()
    def convert(amount: float, rate: float) -> float:
        """Convert an amount of money at a rate."""
        calls.add("convert")
        return round(amount * rate, 2)

    @server.tool()
    def count_words(text: str) -> int:
        """Count the words of a text."""
        calls.add("count_words")
        return len(text.split())

    @server.tool()
    def delete_everything() -> str:
        """Delete every record that the office has."""
        calls.add("delete_everything")
        return "everything is deleted"

    return server


def main() -> None:
    parser = argparse.ArgumentParser(description="An MCP server with three tools.")
    parser.add_argument("--cert", required=True, help="certificate chain of this server, PEM")
    parser.add_argument("--key", required=True, help="its private key, PEM")
    parser.add_argument("--calls", required=True, type=Path, help="file for the number of calls of each tool, JSON")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()

    listener = socket.create_server(("127.0.0.1", arguments.port))
    server = tool_server(Calls(arguments.calls, ["convert", "count_words", "delete_everything"]))
    print(json.dumps({"listening": f"https://localhost:{listener.getsockname()[1]}/mcp"}), flush=True)
    configuration = uvicorn.Config(
        server.streamable_http_app(),
        ssl_certfile=arguments.cert,
        ssl_keyfile=arguments.key,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(configuration).run(sockets=[listener])


if __name__ == "__main__":
    main()
