from __future__ import annotations

import json
from typing import Any

import pytest
from classified import MCP

from lictor.bindings.facts import Unclassifiable
from lictor.bindings.model import ActionType
from lictor.bindings.protocols.mcp_answers import (
    classify_request,
    cut_down,
    input_requests,
    is_request,
    read_messages,
    tool_digest,
    tools_of,
)


def request(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def result(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": members}


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list"])
def test_a_request_of_the_server_is_an_action(method: str) -> None:
    asked = classify_request(MCP, request(method, a=1))
    assert (asked.known, asked.action.type, asked.action.target) == (True, ActionType.TOOL_CALL, f"{MCP.urn}#{method}")
    assert asked.action.parameters == {"direction": "from_server", "rpc_method": method}
    assert asked.action.content == {"direction": "from_server", "rpc_method": method, "params": {"a": 1}}


def test_what_no_server_asks() -> None:
    asked = classify_request(MCP, request("tools/call", name="add"))
    assert (asked.known, asked.action.target) == (False, MCP.urn)


def test_what_wants_an_answer() -> None:
    assert is_request(request("roots/list"))
    assert not is_request(request("ping"))
    assert not is_request({"jsonrpc": "2.0", "method": "notifications/progress"})
    assert not is_request(result())


@pytest.mark.parametrize("batch", [True, False])
def test_messages_are_read(batch: bool) -> None:
    value = [result(), request("ping")] if batch else result()
    messages, is_batch = read_messages(json.dumps(value).encode())
    assert (messages if is_batch else messages[0]) == value
    assert is_batch == batch


@pytest.mark.parametrize(
    "value",
    [
        5,
        "x",
        None,
        {},
        {"jsonrpc": "1.0", "id": 1, "result": {}},
        {**request("ping"), "id": None},
        [],
        [[]],
        [result()] * 65,
        result(Tools=[]),
        result(inputrequests={}),
        {**result(), "error": {}},
    ],
)
def test_what_is_no_message(value: Any) -> None:
    with pytest.raises(Unclassifiable) as caught:
        read_messages(json.dumps(value).encode())
    assert caught.value.reason == "unparsable_answer"


def test_input_requests() -> None:
    wanted = {"a": {"method": "roots/list"}, "b": {"method": "x", "params": {}}}
    assert input_requests(result(inputRequests=wanted)) == list(wanted.values())
    assert input_requests(result()) == input_requests(request("ping")) == []


@pytest.mark.parametrize(
    "wanted", [[], 5, {"a": 1}, {"a": {}}, {"a": {"method": 1}}, {str(n): {"method": "x"} for n in range(65)}]
)
def test_input_requests_that_cannot_be_judged(wanted: Any) -> None:
    with pytest.raises(Unclassifiable):
        input_requests(result(inputRequests=wanted))


def test_a_list_is_cut_down_and_stays_as_it_was_otherwise() -> None:
    tools = [{"name": "add"}, {"name": "sub"}, {"name": ""}, {"name": 5}, "x"]
    message = result(tools=tools, nextCursor="c")
    read, hidden = cut_down(message, MCP.urn, lambda target: target == f"{MCP.urn}#tools/add")
    assert (read, hidden) == (result(tools=[{"name": "add"}], nextCursor="c"), 4)
    assert tools_of(message) == tools
    assert cut_down(result(tools=[{"name": "add"}]), MCP.urn, lambda target: True)[1] == 0


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        ({"resources": [{"uri": "a:b"}, {"uri": "a:../c"}]}, f"{MCP.urn}#resources/a:b"),
        ({"prompts": [{"name": "p"}, {"name": "q"}]}, f"{MCP.urn}#prompts/p"),
    ],
)
def test_resources_and_prompts_too(listed: dict[str, list[Any]], shown: str) -> None:
    ((kind, values),) = listed.items()
    assert cut_down(result(**listed), MCP.urn, lambda target: target == shown) == (result(**{kind: values[:1]}), 1)


def test_templates_stay() -> None:
    message = result(resourceTemplates=[{"uriTemplate": "file:///{path}", "name": "any"}])
    assert cut_down(message, MCP.urn, lambda target: False) == (message, 0)


TOOL: dict[str, Any] = {"name": "add", "description": "Adds.", "inputSchema": {"type": "object", "x": [1, 2.5, 2**70]}}


@pytest.mark.parametrize(
    "change", [{"description": "Adds!"}, {"inputSchema": {}}, {"annotations": {}}, {"Description": "x"}]
)
def test_the_digest_of_a_tool_changes_with_what_is_told_of_it(change: dict[str, Any]) -> None:
    assert tool_digest({**TOOL, **change}) != tool_digest(TOOL)


def test_the_digest_of_a_tool_does_not_change_with_the_order_or_with_meta() -> None:
    other = dict(reversed(TOOL.items())) | {"_meta": {"seen": 5}}
    assert tool_digest(other) == tool_digest(TOOL)
