from typing import Any

import pytest
from classified import AGENT, CATALOG, MCP, ROWS, TOOL, mcp, one, request, rpc

from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import classify, find_target, needs_body
from lictor.bindings.criterion import Reads
from lictor.bindings.facts import RequestFacts, Unclassifiable
from lictor.bindings.target import Target


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


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("store/a//b", "urn:example:store"),
        ("store/https://other.example/x", "urn:example:store"),
        ("store/a/%2F/b", "urn:example:store"),
        ("store//private/x", None),
        ("store/%2Fprivate/x", None),
        ("store//api", None),
        ("plain//x", None),
        ("api//x", None),
    ],
)
def test_empty_segments_must_not_decide_the_target(path: str, found: str | None) -> None:
    """They lead to what is judged by its name, where it makes no difference whether the server drops them."""
    catalog = Catalog(
        [
            Target("urn:example:store", "data_source", ("https://t.example/store/**",)),
            Target("urn:example:private", "data_source", ("https://t.example/store/private/**",)),
            Target("urn:example:exact", "data_source", ("https://t.example/store/api",)),
            Target("urn:example:mcp", "tool", ("https://t.example/api/**",), "mcp"),
        ]
    )
    facts = request(f"t.example/{path}", method="GET")
    if found is None:
        with pytest.raises(Unclassifiable) as caught:
            find_target(catalog, facts)
        assert caught.value.reason == "ambiguous_path"
    else:
        target = find_target(catalog, facts)
        assert target is not None
        assert target.urn == found


def content(facts: RequestFacts, reads: Reads = "body") -> dict[str, Any] | None:
    (action,) = classify(CATALOG, facts, reads)
    return action.content


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (mcp(rpc("tools/call", name="add", arguments={"a": 1})), {"rpc_method": "tools/call", "arguments": {"a": 1}}),
        (mcp(rpc("tools/call", name="add")), {"rpc_method": "tools/call"}),
        (mcp(rpc("resources/read", uri="x:y")), {"rpc_method": "resources/read", "params": {"uri": "x:y"}}),
        (mcp({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}), {"rpc_method": "", "result": {"a": 1}}),
        (request("b.example/", rpc("message/send", a=1)), {"rpc_method": "message/send", "params": {"a": 1}}),
        (request("b.example/v1/message:send", {"a": 1}), {"body": {"a": 1}}),
        (request("t.example/plain", [1, None]), {"body": [1, None]}),
        (request("t.example/plain", b"", method="GET"), {}),
        (request("elsewhere.example/", {"a": 1}, method="PUT"), {"body": {"a": 1}}),
    ],
)
def test_content_is_what_the_action_carries(facts: RequestFacts, expected: dict[str, Any]) -> None:
    assert content(facts) == {"method": facts.method, **expected}
    assert "method" not in (content(facts, "target") or {})
    assert "arguments" not in one(facts).parameters


def test_each_member_of_a_batch_has_its_own_content() -> None:
    batch = [rpc("tools/call", name="add", arguments={"a": n}) for n in range(3)]
    actions = classify(CATALOG, mcp(batch), "body")
    common = {"method": "POST", "rpc_method": "tools/call"}
    assert [a.content for a in actions] == [{**common, "arguments": {"a": n}} for n in range(3)]


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
