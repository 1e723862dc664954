import json
from typing import Any

import pytest

from lictor.bindings.catalog import Catalog, Target
from lictor.bindings.classification import (
    MAX_BATCH,
    Classified,
    RequestFacts,
    Unclassifiable,
    classify,
    find_target,
    needs_body,
)
from lictor.bindings.criterion import Reads
from lictor.bindings.model import ActionType

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


@pytest.mark.parametrize(
    ("facts", "type_", "target"),
    [
        (request("t.example/plain"), ActionType.TOOL_CALL, "urn:example:tool:plain"),
        (request("d.example/v1/a/b", method="GET"), ActionType.DATA_SOURCE_ACCESS, "urn:example:ds:rows"),
        (request("m.example/v1/chat"), ActionType.MODEL_INFERENCE, "urn:example:model:m"),
        (request("d.example/v2/a", method="GET"), ActionType.HTTP_REQUEST, "https://d.example/v2/a"),
        (request("elsewhere.example/"), ActionType.HTTP_REQUEST, "https://elsewhere.example/"),
        (
            RequestFacts("GET", "http", "::1", 8080, "/x", "secret=1"),
            ActionType.HTTP_REQUEST,
            "http://[::1]:8080/x",
        ),
    ],
)
def test_by_url(facts: RequestFacts, type_: ActionType, target: str) -> None:
    action = one(facts)
    assert (action.type, action.target, action.rpc) == (type_, target, False)
    assert action.parameters == {"method": facts.method}


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


BAD_BODIES = {
    "not JSON": (b"add 1 2", "unparsable_body"),
    "empty": (b"", "unparsable_body"),
    "not UTF-8": ('{"jsonrpc":"2.0"}'.encode("utf-16"), "unparsable_body"),
    "method twice": (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', "unparsable_body"),
    "name twice": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
        "unparsable_body",
    ),
    "NaN": (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}', "unparsable_body"),
    "behind a byte-order mark": (b"\xef\xbb\xbf" + json.dumps(rpc("ping")).encode(), "unparsable_body"),
    "Method in another case": ({**rpc("ping"), "Method": "tools/call"}, "ambiguous_member"),
    "method with a long s": ({**rpc("ping"), "param\u017f": {"name": "x"}}, "ambiguous_member"),
    "Name in another case": (rpc("tools/call", name="a", NAME="b"), "ambiguous_member"),
    "a string": ("ping", "not_json_rpc"),
    "a number": (5, "not_json_rpc"),
    "null": (b"null", "not_json_rpc"),
    "no version": ({"id": 1, "method": "ping"}, "not_json_rpc"),
    "version 1.0": ({**rpc("ping"), "jsonrpc": "1.0"}, "not_json_rpc"),
    "version a number": ({**rpc("ping"), "jsonrpc": 2.0}, "not_json_rpc"),
    "method a number": ({**rpc("ping"), "method": 1}, "not_json_rpc"),
    "method null": ({**rpc("ping"), "method": None}, "not_json_rpc"),
    "id a list": ({**rpc("ping"), "id": [1]}, "not_json_rpc"),
    "id true": ({**rpc("ping"), "id": True}, "not_json_rpc"),
    "request and response": ({**rpc("ping"), "result": {}}, "not_json_rpc"),
    "result and error": ({"jsonrpc": "2.0", "id": 1, "result": 1, "error": {}}, "not_json_rpc"),
    "response without id": ({"jsonrpc": "2.0", "result": 1}, "not_json_rpc"),
    "neither": ({"jsonrpc": "2.0", "id": 1}, "not_json_rpc"),
    "params a string": ({**rpc("ping"), "params": "x"}, "not_json_rpc"),
    "tool without name": (rpc("tools/call"), "not_json_rpc"),
    "tool name a number": (rpc("tools/call", name=5), "not_json_rpc"),
    "tool with params as a list": ({**rpc("tools/call"), "params": ["add"]}, "not_json_rpc"),
    "tool name empty": (rpc("tools/call", name=""), "bad_name"),
    "tool name too long": (rpc("tools/call", name="a" * 1025), "bad_name"),
    "method empty": (rpc(""), "bad_name"),
    "a method that would be named like a tool": (rpc("tools/add"), "method_not_supported"),
    "empty batch": ([], "bad_batch"),
    "long batch": ([rpc("ping")] * (MAX_BATCH + 1), "bad_batch"),
    "batch with a bad message": ([rpc("ping"), "x"], "not_json_rpc"),
    "batch in a batch": ([[rpc("ping")]], "not_json_rpc"),
}


@pytest.mark.parametrize(("body", "reason"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_mcp_body_that_is_not_certain(body: Any, reason: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, mcp(body))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param((("content-encoding", "gzip"),), "encoded_body", id="compressed"),
        pytest.param(
            (("content-encoding", "identity"), ("content-encoding", "br")), "encoded_body", id="compressed twice"
        ),
        pytest.param((("content-type", "application/json; charset=utf-16"),), "unparsable_body", id="UTF-16"),
        pytest.param((("content-type", 'application/json;Charset="UTF-7"'),), "unparsable_body", id="UTF-7 in quotes"),
        pytest.param(
            (("content-type", "application/json;charset*=utf-7"),), "unparsable_body", id="extended parameter"
        ),
        pytest.param((JSON, ("content-type", "text/plain")), "unparsable_body", id="two content types"),
    ],
)
def test_encoding_that_hides_the_body(headers: tuple[tuple[str, str], ...], reason: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, request("t.example/mcp", rpc("ping"), headers=headers))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "value", ["application/json", 'application/json; charset="utf-8"', "application/json;charset=UTF-8"]
)
def test_encoding_that_is_plain(value: str) -> None:
    headers = (("content-type", value), ("content-encoding", "identity"))
    assert one(request("t.example/mcp", rpc("ping"), headers=headers)).target == MCP.urn


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


@pytest.mark.parametrize("method", ["message/send", "message/stream", "SendMessage", "SendStreamingMessage"])
def test_a2a_delegation_by_json_rpc(method: str) -> None:
    action = one(request("b.example/", rpc(method, message={"role": "user"})))
    assert (action.type, action.target, action.rpc_id) == (ActionType.DELEGATION, AGENT.urn, 7)
    assert action.parameters == {"method": "POST", "rpc_method": method}


@pytest.mark.parametrize(
    "path",
    [
        "message:send",
        "v1/message:send",
        "v1/message:stream",
        "tenant/message:send",
        "v1/message:send/",
        "v1%2Fmessage:send",
    ],
)
def test_a2a_delegation_by_path(path: str) -> None:
    action = one(request(f"b.example/{path}", {"message": {}}))
    assert (action.type, action.target, action.rpc) == (ActionType.DELEGATION, AGENT.urn, False)


@pytest.mark.parametrize(
    ("facts", "is_rpc"),
    [
        (request("b.example/.well-known/agent-card.json", method="GET"), False),
        (request("b.example/v1/tasks/1:cancel", {}), False),
        (request("b.example/v1/tasks/1:cancel", b""), False),
        (request("b.example/", rpc("tasks/get", id="1")), True),
        (request("b.example/", rpc("GetTask", id="1")), True),
    ],
)
def test_a2a_everything_else_is_http(facts: RequestFacts, is_rpc: bool) -> None:
    action = one(facts)
    assert (action.type, action.target) == (ActionType.HTTP_REQUEST, f"https://b.example{facts.path}")
    assert (action.rpc, action.catalog_target) == (is_rpc, AGENT)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"method": "message/send", "id": 1}, id="no version"),
        pytest.param({"Method": "message/send", "id": 1}, id="method in another case"),
        pytest.param({**rpc("tasks/get"), "METHOD": "message/send"}, id="two methods"),
        pytest.param(b'{"jsonrpc":"2.0","method":"tasks/get","method":"message/send"}', id="method twice"),
        pytest.param(b"hello", id="not JSON"),
    ],
)
def test_a2a_body_that_is_not_certain(body: Any) -> None:
    with pytest.raises(Unclassifiable):
        classify(CATALOG, request("b.example/", body))


def test_a2a_delegation_by_path_needs_json() -> None:
    for body in (b"", b"[]", b'{"message":1,"message":2}'):
        with pytest.raises(Unclassifiable):
            classify(CATALOG, request("b.example/v1/message:send", body))


def test_a2a_batch() -> None:
    actions = classify(CATALOG, request("b.example/", [rpc("tasks/get"), rpc("message/send")]))
    assert [action.type for action in actions] == [ActionType.HTTP_REQUEST, ActionType.DELEGATION]


def test_a_body_that_was_not_read_is_never_taken_for_none() -> None:
    for url in ("t.example/mcp", "b.example/"):
        with pytest.raises(Unclassifiable) as caught:
            classify(CATALOG, request(url))
        assert caught.value.reason == "body_not_read"


def test_needs_body() -> None:
    assert needs_body(MCP, "POST")
    assert needs_body(AGENT, "POST")
    assert not needs_body(MCP, "GET")
    assert not needs_body(ROWS, "POST")
    assert not needs_body(None, "POST")


def test_an_encoded_slash_must_not_decide_the_target() -> None:
    catalog = Catalog([Target("urn:example:all", "data_source", ("https://t.example/**",)), Target(
        "urn:example:tool", "tool", ("https://t.example/api/mcp",), "mcp")])  # fmt: skip
    with pytest.raises(Unclassifiable) as caught:
        find_target(catalog, request("t.example/api%2Fmcp", method="GET"))
    assert caught.value.reason == "ambiguous_path"
    found = find_target(catalog, request("t.example/@types%2Fnode", method="GET"))
    assert found is not None
    assert found.urn == "urn:example:all"


def content(facts: RequestFacts, reads: Reads = "body") -> dict[str, Any] | None:
    (action,) = classify(CATALOG, facts, reads)
    return action.content


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (mcp(rpc("tools/call", name="add", arguments={"a": 1})), {"method": "POST", "arguments": {"a": 1}}),
        (mcp(rpc("tools/call", name="add")), {"method": "POST"}),
        (mcp(rpc("resources/read", uri="x:y")), {"method": "POST", "params": {"uri": "x:y"}}),
        (request("b.example/", rpc("message/send", a=1)), {"method": "POST", "params": {"a": 1}}),
        (request("b.example/v1/message:send", {"a": 1}), {"method": "POST", "body": {"a": 1}}),
        (request("t.example/plain", [1, None]), {"method": "POST", "body": [1, None]}),
        (request("t.example/plain", b"", method="GET"), {"method": "GET"}),
        (request("elsewhere.example/", {"a": 1}, method="PUT"), {"method": "PUT", "body": {"a": 1}}),
    ],
)
def test_content_is_what_the_action_carries(facts: RequestFacts, expected: dict[str, Any]) -> None:
    assert content(facts) == expected
    assert content(facts, "target") is None
    assert "arguments" not in one(facts).parameters


def test_each_member_of_a_batch_has_its_own_content() -> None:
    batch = [rpc("tools/call", name="add", arguments={"a": n}) for n in range(3)]
    actions = classify(CATALOG, mcp(batch), "body")
    assert [a.content for a in actions] == [{"method": "POST", "arguments": {"a": n}} for n in range(3)]


def asking(query: str) -> RequestFacts:
    return RequestFacts("GET", "https", "d.example", 443, "/v1/a", query)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("a=1", {"query": {"a": "1"}}),
        ("a=1&a=2&b&=x&&a=3", {"query": {"a": ["1", "2", "3"], "b": "", "": "x"}}),
        ("a=%C3%A4+b%2B%26", {"query": {"a": "ä b+&"}}),
        ("a=b=c", {"query": {"a": "b=c"}}),
        ("%61=1&a=2", {"query": {"a": ["1", "2"]}}),
    ],
)
def test_the_query_is_taken_apart_without_the_body(query: str, expected: dict[str, Any]) -> None:
    assert content(asking(query), "query") == {"method": "GET", **expected}


@pytest.mark.parametrize("query", ["a=1;b=2", "a=%", "a=%4", "a=%zz", "%=1", "a=%ff", "a=%ed%a0%80", "&" * 1000])
def test_a_query_that_servers_take_apart_differently_is_refused_where_it_is_judged(query: str) -> None:
    with pytest.raises(Unclassifiable) as error:
        content(asking(query), "query")
    assert error.value.reason == "ambiguous_query"
    assert content(asking(query), "target") is None


def test_a_body_that_is_judged_must_be_json_and_must_be_there() -> None:
    for body in (b"a=1", b'{"a": 1, "a": 2}', b"\xff"):
        with pytest.raises(Unclassifiable) as error:
            content(request("t.example/plain", body))
        assert error.value.reason == "unparsable_body"
        assert content(request("t.example/plain", body), "query") == {"method": "POST"}
    with pytest.raises(Unclassifiable) as error:
        content(request("t.example/plain"))
    assert error.value.reason == "body_not_read"
    assert needs_body(TOOL, "POST", "body")
    assert needs_body(None, "GET", "body")
    assert not needs_body(TOOL, "POST", "query")
