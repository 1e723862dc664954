from typing import Any

import pytest
from classified import CATALOG, MCP, mcp, one, request, rpc

from lictor.bindings.classification import classify
from lictor.bindings.facts import Unclassifiable
from lictor.bindings.model import ActionType


@pytest.mark.parametrize(
    ("body", "target"),
    [
        (rpc("tools/call", name="add", arguments={"a": 1}), "#tools/add"),
        (rpc("tools/call", name="files/read.v2"), "#tools/files/read.v2"),
        (rpc("tools/call", name="a b#c%2F*é"), "#tools/a%20b%23c%252F%2A%C3%A9"),
        (rpc("initialize"), ""),
        (rpc("ping"), ""),
        (rpc("server/discover"), ""),
        (rpc("tools/list"), ""),
        (rpc("resources/list"), ""),
        (rpc("resources/templates/list"), ""),
        (rpc("prompts/list"), ""),
        (rpc("logging/setLevel"), ""),
        ({"jsonrpc": "2.0", "method": "ping", "id": None}, ""),
        ({"jsonrpc": "2.0", "method": "notifications/initialized"}, ""),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, ""),
        ({"jsonrpc": "2.0", "id": "x", "error": {"code": 1, "message": "m"}}, ""),
        (rpc("notifications/initialized"), "#notifications/initialized"),
        (rpc("resources/read", uri="file:///etc/passwd"), "#resources/read"),
        (rpc("prompts/get", name="p"), "#prompts/get"),
        (rpc("completion/complete"), "#completion/complete"),
        (rpc("Tools/Call", name="add"), "#Tools/Call"),
    ],
)
def test_mcp(body: dict[str, Any], target: str) -> None:
    action = one(mcp(body))
    assert (action.type, action.target) == (ActionType.TOOL_CALL, MCP.urn + target)
    assert (action.rpc, action.rpc_id, action.catalog_target) == (True, body.get("id"), MCP)
    assert action.parameters == {"method": "POST", "rpc_method": body.get("method", "")}


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS"])
def test_mcp_without_body_is_for_the_session(method: str) -> None:
    assert one(request("t.example/mcp", method=method)).target == MCP.urn


def test_mcp_batch_is_one_action_a_message() -> None:
    actions = classify(CATALOG, mcp([rpc("tools/call", name="a"), rpc("ping"), rpc("tools/call", name="b")]))
    assert [action.target.removeprefix(MCP.urn) for action in actions] == ["#tools/a", "", "#tools/b"]


CALL = rpc("tools/call", name="aé")
METHOD = ("mcp-method", "tools/call")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (CALL, (METHOD, ("mcp-name", "=?base64?YcOp?="))),
        (rpc("tools/call", name="add"), (METHOD, ("mcp-name", "add"))),
        (rpc("resources/read", uri="a:b"), (("mcp-method", "resources/read"), ("mcp-name", "a:b"))),
        (rpc("ping"), (("mcp-method", "ping"),)),
    ],
)
def test_headers_that_repeat_the_body(body: Any, headers: tuple[tuple[str, str], ...]) -> None:
    assert one(mcp(body, *headers)).rpc


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(CALL, (("mcp-method", "tools/list"),), id="other method"),
        pytest.param(CALL, (METHOD, METHOD), id="method twice"),
        pytest.param(CALL, (("mcp-name", "add"),), id="other name"),
        pytest.param(CALL, (("mcp-name", "=?base64?YWRk?="),), id="other name encoded"),
        pytest.param(CALL, (("mcp-name", "=?base64?!!!!?="),), id="name not base64"),
        pytest.param(CALL, (("mcp-name", "=?base64?/w==?="),), id="name not UTF-8"),
        pytest.param(rpc("ping"), (("mcp-name", "add"),), id="name where the body has none"),
        pytest.param(rpc("ping"), (("mcp-method", ""),), id="empty method"),
        pytest.param([rpc("ping")], (("mcp-method", "ping"),), id="batch"),
        pytest.param({"jsonrpc": "2.0", "id": 1, "result": 1}, (("mcp-method", "ping"),), id="response"),
    ],
)
def test_headers_that_say_something_else(body: Any, headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, mcp(body, *headers))
    assert caught.value.reason == "header_mismatch"


def test_mcp_methods_of_http() -> None:
    with pytest.raises(Unclassifiable, match="MCP has no HTTP method PUT"):
        classify(CATALOG, request("t.example/mcp", rpc("ping"), method="PUT"))
    with pytest.raises(Unclassifiable, match="belong to a POST"):
        classify(CATALOG, request("t.example/mcp", method="GET", headers=(METHOD,)))
