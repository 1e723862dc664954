"""A small catalog and requests to it, for the tests of what requests are."""

from __future__ import annotations

import json
from typing import Any

from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import classify
from lictor.bindings.facts import Classified, RequestFacts
from lictor.bindings.target import Target

MCP = Target("urn:example:tool:calc", "tool", ("https://t.example/mcp",), "mcp")
TOOL = Target("urn:example:tool:plain", "tool", ("https://t.example/plain",))
ROWS = Target("urn:example:ds:rows", "data_source", ("https://d.example/v1/**",))
MODEL = Target("urn:example:model:m", "model", ("https://m.example/**",))
AGENT = Target("urn:example:agent:b", "agent", ("https://b.example/**",), "a2a")
CATALOG = Catalog([MCP, TOOL, ROWS, MODEL, AGENT])
JSON = ("content-type", "application/json")


def request(
    url: str, body: Any = None, method: str = "POST", headers: tuple[tuple[str, str], ...] = (JSON,)
) -> RequestFacts:
    """Facts of a request to `https://<url>`; a body that is not bytes is sent as JSON."""
    host, slash, path = url.partition("/")
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return RequestFacts(method, "https", host, 443, slash + path, "", headers, data)


def one(facts: RequestFacts) -> Classified:
    (action,) = classify(CATALOG, facts)
    return action


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def mcp(body: Any, *headers: tuple[str, str]) -> RequestFacts:
    return request("t.example/mcp", body, headers=(JSON, *headers))
