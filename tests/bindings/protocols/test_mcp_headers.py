from typing import Any

import pytest
from classified import CATALOG, mcp, one, request, rpc

from lictor.bindings.classification import classify
from lictor.bindings.facts import Unclassifiable

CALL = rpc("tools/call", name="aé")
METHOD = ("mcp-method", "tools/call")
OLD = ("mcp-protocol-version", "2025-11-25")
VERSION = "io.modelcontextprotocol/protocolVersion"
INNER = {"n": 42, "x": 7.0, "y": "é", "z": 15}
ARGUMENTS = rpc("tools/call", name="a", arguments={"region": "eu", "dry_run": True, "in": INNER})


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (CALL, (METHOD, ("mcp-name", "=?base64?YcOp?="))),
        (rpc("tools/call", name="add"), (METHOD, ("mcp-name", "add"))),
        (rpc("resources/read", uri="a:b"), (("mcp-method", "resources/read"), ("mcp-name", "a:b"))),
        (rpc("ping"), (("mcp-method", "ping"),)),
        (rpc("prompts/get", name="p", uri="q"), (("mcp-name", "p"),)),
        (rpc("resources/read", name="p", uri="q:"), (("mcp-name", "q:"),)),
        (rpc("ping", _meta={VERSION: "2026-07-28"}), (("mcp-protocol-version", "2026-07-28"),)),
        (rpc("ping", _meta={VERSION: "2026-07-28"}), ()),
        (rpc("ping"), (("mcp-protocol-version", "2025-03-26"), ("mcp-session-id", "a"))),
        ([rpc("ping")], (("mcp-protocol-version", "2025-03-26"),)),
        (ARGUMENTS, (("mcp-param-region", "eu"), ("mcp-param-dry-run", "true"), ("mcp-param-n", "42"))),
        (ARGUMENTS, (("mcp-param-n", "42.0"), ("mcp-param-x", "7"), ("mcp-param-y", "=?base64?w6k=?="))),
    ],
)
def test_headers_that_repeat_the_body(body: Any, headers: tuple[tuple[str, str], ...]) -> None:
    assert one(mcp(body, *headers)).rpc


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(CALL, (("mcp-method", "tools/list"),), id="other method"),
        pytest.param(CALL, (METHOD, METHOD), id="method twice"),
        pytest.param(rpc("resources/read", name="p", uri="q:"), (("mcp-name", "p"),), id="name in place of URI"),
        pytest.param(rpc("tools/call", name="a"), (("mcp-name", "=?base64?YR==?="),), id="name not canonical base64"),
        pytest.param(rpc("ping", _meta={VERSION: "2026-07-28"}), (OLD,), id="other version"),
        pytest.param(rpc("ping", _meta={VERSION: 1}), (OLD,), id="version a number"),
        pytest.param(rpc("ping"), (OLD, OLD), id="version twice"),
        pytest.param(rpc("ping"), (("mcp-protocol-version", "2025 06"),), id="version no version"),
        pytest.param(rpc("ping"), (("mcp-session-id", "a"), ("mcp-session-id", "a")), id="session twice"),
        pytest.param(ARGUMENTS, (("mcp-param-region", "us"),), id="other argument"),
        pytest.param(ARGUMENTS, (("mcp-param-x", "eu"), ("mcp-param-x", "42")), id="argument twice"),
        pytest.param(ARGUMENTS, (("mcp-param-n", "1.05"),), id="other number"),
        pytest.param(ARGUMENTS, (("mcp-param-x", "=?base64?!?="),), id="argument not base64"),
        pytest.param(rpc("ping"), (("mcp-param-x", ""),), id="argument where there is none"),
        pytest.param([ARGUMENTS], (("mcp-param-region", "eu"),), id="argument of a batch"),
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


@pytest.mark.parametrize("name", ["mcp-method", "mcp-name", "mcp-param-x"])
def test_headers_without_a_body_to_repeat(name: str) -> None:
    with pytest.raises(Unclassifiable, match="belong to a POST"):
        classify(CATALOG, request("t.example/mcp", method="GET", headers=((name, "x"),)))
