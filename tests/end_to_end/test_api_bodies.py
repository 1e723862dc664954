"""What bodies for model APIs and GraphQL do is judged over real sockets: what is refused never reaches the server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, target

OPENAI, ANTHROPIC, GRAPH = "urn:test:model:o", "urn:test:model:a", "urn:test:data:g"
CHAT, MESSAGES, GRAPHQL = "/v1/chat/completions", "/anthropic/v1/messages", "/graphql"
GZIP = "Content-Encoding: gzip"
OTHER = "not_in_allowlist"
TWICE = b'{"model": "ok", "model": "other"}'
LITERAL = "mutation { note(text: %s) }"


@pytest.fixture(scope="module")
def at(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[tuple[Server, Wire]]:
    """The server behind all three, and a tunnel to it."""
    with contextlib.closing(Server(outside)) as server:
        url = f"https://localhost:{server.port}"
        rules = binding(
            model_inference=[f"{OPENAI}#models/ok", f"{ANTHROPIC}#models/ok"],
            data_source_access=[f"{GRAPH}#query/user", f"{GRAPH}#mutation/note", f"{GRAPH}#persisted/known"],
        )
        short = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 5}}}
        rules["expected_behaviors"] += [
            {
                "behavior_id": "short-notes",
                "observable_actions": ["data_source_access"],
                "targets": [f"{GRAPH}#mutation/note"],
                "compliance_criteria": {"type": "schema", "parameter": "/arguments", "schema": short},
            },
            {
                "behavior_id": "the-provider-does-nothing-by-itself",
                "observable_actions": ["model_inference"],
                "targets": [f"{ANTHROPIC}#models/*"],
                "compliance_criteria": {
                    "type": "schema",
                    "parameter": "/body",
                    "schema": {"type": "object", "properties": {"mcp_servers": False, "tools": False}},
                },
            },
        ]
        monitor = share_monitor(
            "bodies",
            {"main": rules},
            target(OPENAI, "model", f"{url}/v1/**", f"{url}/openai/**", protocol="openai")
            + target(ANTHROPIC, "model", f"{url}/anthropic/**", protocol="anthropic")
            + target(GRAPH, "data_source", f"{url}{GRAPHQL}", protocol="graphql"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        with Wire(monitor) as wire:
            wire.tunnel(f"localhost:{server.port}")
            yield server, wire


def send(wire: Wire, path: str, body: Any, *headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    if not any(header.startswith("Content-Type") for header in headers):
        headers = ("Content-Type: application/json", *headers)
    return wire.request("POST", path, *headers, body=data)


def graph(query: str, **more: Any) -> dict[str, Any]:
    return {"query": query, **more}


REFUSED: dict[str, tuple[str, Any, tuple[str, ...], str]] = {
    "another model": (CHAT, {"model": "other"}, (), OTHER),
    "a model whose name begins like an allowed one": (CHAT, {"model": "ok-2"}, (), OTHER),
    "capitals": (CHAT, {"model": "OK"}, (), OTHER),
    "a space before the name": (CHAT, {"model": " ok"}, (), OTHER),
    "the model twice": (CHAT, TWICE, (), "unparsable_body"),
    "the model in two spellings": (CHAT, {"model": "ok", "Model": "other"}, (), "ambiguous_member"),
    "no model": (CHAT, {"messages": []}, (), OTHER),
    "a model that is no string": (CHAT, {"model": ["ok"]}, (), "ambiguous_model"),
    "further models": (CHAT, {"model": "ok", "models": ["other"]}, (), OTHER),
    "a fallback": (MESSAGES, {"model": "ok", "fallbacks": [{"model": "other"}]}, (), OTHER),
    "the provider's own fallback": (MESSAGES, {"model": "ok", "fallbacks": "default"}, (), OTHER),
    "a model that a tool asks": (
        "/v1/responses",
        {"model": "ok", "tools": [{"type": "x", "model": "other"}]},
        (),
        OTHER,
    ),
    "a stored prompt": ("/v1/responses", {"prompt": {"id": "pmpt_1"}}, (), OTHER),
    "another deployment": ("/openai/deployments/other/chat/completions", {}, (), OTHER),
    "a deployment and another model": (
        "/openai/deployments/ok/chat/completions",
        {"model": "other"},
        (),
        "ambiguous_model",
    ),
    "a file": ("/v1/files", b"--x--", ("Content-Type: multipart/form-data; boundary=x",), OTHER),
    "a batch that names a model": ("/v1/batches", {"model": "ok", "input_file_id": "f"}, (), OTHER),
    "fine-tuning": ("/v1/fine_tuning/jobs", {"model": "ok"}, (), OTHER),
    "an encoded slash in the path": ("/v1/chat%2Fcompletions", {"model": "ok"}, (), OTHER),
    "a compressed body": (CHAT, b"\x1f\x8b\x08", (GZIP,), "encoded_body"),
    "a form": (CHAT, b"model=ok", ("Content-Type: application/x-www-form-urlencoded",), "unparsable_body"),
    "a remote MCP server": (
        MESSAGES,
        {"model": "ok", "mcp_servers": [{"url": "https://x.example"}]},
        (),
        "schema_violated",
    ),
    "a tool of the provider's": (MESSAGES, {"model": "ok", "tools": [{"type": "web_search"}]}, (), "schema_violated"),
    "another field": (GRAPHQL, graph("{ secrets }"), (), OTHER),
    "another field under an allowed name": (GRAPHQL, graph("query user { user: secrets }"), (), OTHER),
    "another field beside": (GRAPHQL, graph("{ user secrets }"), (), OTHER),
    "another field in a fragment": (GRAPHQL, graph("{ user ...F } fragment F on Query { secrets }"), (), OTHER),
    "another field in a fragment in place": (GRAPHQL, graph("{ user ... { secrets } }"), (), OTHER),
    "another field that is skipped": (GRAPHQL, graph("{ user secrets @skip(if: true) }"), (), OTHER),
    "a query's field as a mutation": (GRAPHQL, graph("mutation { user }"), (), OTHER),
    "two operations": (GRAPHQL, graph("query A { user } query B { secrets }"), (), "ambiguous_operation"),
    "the other operation": (GRAPHQL, graph("query A { user } query B { secrets }", operationName="B"), (), OTHER),
    "a batch with one bad member": (GRAPHQL, [graph("{ user }"), graph("{ secrets }")], (), OTHER),
    "the query twice": (GRAPHQL, b'{"query": "{user}", "query": "{secrets}"}', (), "unparsable_body"),
    "the query in two spellings": (GRAPHQL, graph("{ user }", Query="{ secrets }"), (), "ambiguous_member"),
    "the query in body and URL": (f"{GRAPHQL}?query=%7Bsecrets%7D", graph("{ user }"), (), "ambiguous_query"),
    "the hash of another text": (
        GRAPHQL,
        graph("{ user }", extensions={"persistedQuery": {"sha256Hash": "0" * 64}}),
        (),
        "ambiguous_operation",
    ),
    "an id beside the text": (GRAPHQL, graph("{ user }", documentId="other"), (), "ambiguous_operation"),
    "another persisted operation": (GRAPHQL, {"documentId": "other"}, (), OTHER),
    "a text that is too long, in place": (GRAPHQL, graph(LITERAL % '"too long"'), (), "schema_violated"),
    "a text that is too long, as a default": (
        GRAPHQL,
        graph('mutation ($t: String = "too long") { note(text: $t) }'),
        (),
        "schema_violated",
    ),
    "a text that is too long, as a variable": (
        GRAPHQL,
        graph("mutation ($t: String) { note(text: $t) }", variables={"t": "too long"}),
        (),
        "schema_violated",
    ),
    "a text that is too long, the second time": (
        GRAPHQL,
        graph('mutation { a: note(text: "ok") b: note(text: "too long") }'),
        (),
        "schema_violated",
    ),
    "deep nesting": (GRAPHQL, graph("{user" * 3000 + "}" * 3000), (), "not_graphql"),
    "a text in place of JSON": (GRAPHQL, b"{ user }", ("Content-Type: application/graphql",), "unparsable_body"),
}
ALLOWED: dict[str, tuple[str, Any, str]] = {
    "chat": (CHAT, {"model": "ok", "messages": []}, f"{OPENAI}#models/ok"),
    "a deployment": ("/openai/deployments/ok/chat/completions", {}, f"{OPENAI}#models/ok"),
    "embeddings": ("/v1/embeddings", {"model": "ok"}, f"{OPENAI}#models/ok"),
    "the agent's own tool": (CHAT, {"model": "ok", "tools": [{"function": {"model": "x"}}]}, f"{OPENAI}#models/ok"),
    "a message": (MESSAGES, {"model": "ok", "messages": []}, f"{ANTHROPIC}#models/ok"),
    "a query": (GRAPHQL, graph("query Any { me: user { name } }"), f"{GRAPH}#query/user"),
    "a mutation": (GRAPHQL, graph(LITERAL % '"short"'), f"{GRAPH}#mutation/note"),
    "the chosen operation": (
        GRAPHQL,
        graph("query A { user } query B { secrets }", operationName="A"),
        f"{GRAPH}#query/user",
    ),
    "a persisted operation": (GRAPHQL, {"documentId": "known"}, f"{GRAPH}#persisted/known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(at: tuple[Server, Wire], name: str) -> None:
    server, wire = at
    path, body, headers, reason = REFUSED[name]
    before, arrived = len(wire.monitor.entries()), len(server.requests)
    answer = send(wire, path, body, *headers)
    assert answer.status in (400, 403)
    assert answer.json()["reason"] == reason
    assert len(server.requests) == arrived
    made = [entry for entry in wire.monitor.entries()[before:] if "outcome_of" not in entry]
    assert reason in {entry["reason"] for entry in made}
    assert {entry["decision"] for entry in made} == {"deny"}


def test_graphql_is_not_spoken_where_nobody_reads_it(at: tuple[Server, Wire]) -> None:
    server, wire = at
    arrived = len(server.requests)
    key = "Sec-WebSocket-Key: " + "A" * 22 + "=="
    answer = wire.request("GET", GRAPHQL, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
    assert (answer.status, answer.json()["reason"]) == (403, "upgrade_refused")
    assert len(server.requests) == arrived


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(at: tuple[Server, Wire], name: str) -> None:
    server, wire = at
    path, body, expected = ALLOWED[name]
    before = len(wire.monitor.entries())
    assert send(wire, path, body).status == 200
    assert json.loads(server.requests[-1][3]) == body
    made = wire.monitor.wait_for(lambda e: "outcome_of" not in e, before)
    assert (made["action_target"], made["decision"]) == (expected, "allow")
