import json
from typing import Any

import pytest
from classified import CATALOG, mcp, rpc

from lictor.bindings.classification import classify
from lictor.bindings.facts import Unclassifiable
from lictor.bindings.jsonrpc import MAX_BATCH

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
def test_a_body_that_is_not_certain(body: Any, reason: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, mcp(body))
    assert caught.value.reason == reason
