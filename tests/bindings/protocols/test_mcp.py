from typing import Any

import pytest
from classified import CATALOG, MCP, mcp, one, request, rpc

from lictor.bindings.classification import classify
from lictor.bindings.facts import Unclassifiable
from lictor.bindings.model import ActionType
from lictor.bindings.patterns import AllowSet
from lictor.bindings.protocols.mcp import SERVER_REQUESTS, resource_target


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
        (rpc("resources/read", uri="file:///etc/passwd"), "#resources/file:///etc/passwd"),
        (rpc("resources/subscribe", uri="db://h/t?a=b&c"), "#resources/db://h/t?a=b&c"),
        (rpc("resources/unsubscribe", uri="a:b%20c*#[x]é"), "#resources/a:b%2520c%2A%23%5Bx%5D%C3%A9"),
        (rpc("prompts/get", name="a b"), "#prompts/a%20b"),
        (rpc("subscriptions/listen", notifications={}), "#subscriptions/listen"),
        (rpc("tasks/result", taskId="1"), "#tasks/result"),
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


@pytest.mark.parametrize(
    "uri",
    [
        "file:///data/../etc/passwd",
        "file:///data/..",
        "file:///data/%2e%2e/x",
        "file:///data/%252E%252e/x",
        "file:///data\\..\\x",
        "file:///data/%5c..%5cx",
        "file:///./x",
        "file:../x",
        "../x",
        "x:/a/..?q",
        "x:a\nb",
        "x:a%00b",
    ],
)
def test_a_resource_that_a_server_may_take_for_another(uri: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, mcp(rpc("resources/read", uri=uri)))
    assert caught.value.reason == "ambiguous_uri"


def test_patterns_name_resources_as_mcp_does() -> None:
    allowed = AllowSet([f"{MCP.urn}#resources/file:///data/*", f"{MCP.urn}#resources/db://h/t?a=b"])
    for uri, expected in [("file:///data/a%20b", True), ("db://h/t?a=b", True), ("file:///etc/passwd", False)]:
        assert allowed.matches(resource_target(MCP.urn, uri)) == expected


@pytest.mark.parametrize("method", ["tools/x", "resources/x", "prompts/x", *sorted(SERVER_REQUESTS)])
def test_a_method_that_no_client_has(method: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, mcp(rpc(method)))
    assert caught.value.reason == "method_not_supported"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (rpc("resources/read"), "not_json_rpc"),
        (rpc("resources/read", uri=""), "bad_name"),
        (rpc("resources/read", uri="x" * 1025), "bad_name"),
        (rpc("prompts/get", name=""), "bad_name"),
        (rpc("prompts/get"), "not_json_rpc"),
    ],
)
def test_what_names_nothing(body: Any, reason: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, mcp(body))
    assert caught.value.reason == reason


def test_mcp_methods_of_http() -> None:
    with pytest.raises(Unclassifiable, match="MCP has no HTTP method PUT"):
        classify(CATALOG, request("t.example/mcp", rpc("ping"), method="PUT"))
    with pytest.raises(Unclassifiable, match="belong to a POST"):
        classify(CATALOG, request("t.example/mcp", method="GET", headers=(("mcp-method", "tools/call"),)))
