"""Bodies that decide what a request is, and that two readers may take for different messages."""

from __future__ import annotations

import gzip
import json
from typing import Any

from end_to_end.attempts import CALL, FORBIDDEN, Case, mcp, over_tunnel


def body(data: bytes | str, reason: str = "unparsable_body", status: int = 400, *headers: str) -> Case:
    return Case(mcp(data.encode() if isinstance(data, str) else data, *headers), status, reason)


def typed(content_type: str, data: bytes, reason: str = "unparsable_body") -> Case:
    return Case(over_tunnel("POST", "/mcp", f"Content-Type: {content_type}", body=data), 400, reason)


def message(reason: str = "not_json_rpc", status: int = 400, **members: Any) -> Case:
    return Case(mcp({**CALL, **members}), status, reason)


def tool(name: Any, reason: str = "not_in_allowlist", status: int = 403) -> Case:
    return message(reason, status, params={"name": name, "arguments": {}})


def member(text: str, reason: str = "unparsable_body") -> Case:
    """One more member in a call that is allowed."""
    return body(json.dumps(CALL)[:-1] + ", " + text + "}", reason)


CALLED = json.dumps(CALL).encode()
VERSION = "io.modelcontextprotocol/protocolVersion"
JSON = {
    "not a number": member('"x": NaN'),
    "infinity": member('"x": -Infinity'),
    "number out of range": member('"x": 1e999'),
    "number with a zero first": member('"x": 01'),
    "number with a sign": member('"x": +1'),
    "hexadecimal number": member('"x": 0x1'),
    "lone surrogate": member('"x": "\\ud800"'),
    "raw line end in a text": member('"x": "a\nb"'),
    "raw NUL in a text": member('"x": "a\x00b"'),
    "comment": body(json.dumps(CALL) + "// end"),
    "comment inside": member('"x": /* */ 1'),
    "comma at the end": body(json.dumps(CALL)[:-1] + ",}"),
    "single quotes": body(json.dumps(CALL).replace('"', "'")),
    "name without quotes": member("x: 1"),
    "two values": body(json.dumps(CALL) * 2),
    "byte order mark": body(b"\xef\xbb\xbf" + CALLED),
    "not UTF-8": body(CALLED[:-1] + b', "x": "\xff"}'),
    "overlong UTF-8": body(CALLED[:-1] + b', "x": "\xc0\xaf"}'),
    "UTF-16": body(json.dumps(CALL).encode("utf-16")),
    "UTF-16 without a mark": body(json.dumps(CALL).encode("utf-16-le")),
    "UTF-32": body(json.dumps(CALL).encode("utf-32")),
    "key twice, once escaped": member('"m\\u0065thod": "ping"'),
    "key twice, deep inside": member('"x": {"y": [{"z": 1, "z": 2}]}'),
    "params twice": member('"params": {"name": "drop_tables"}'),
    "name twice in the params": body(
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","name":"drop_tables"}}'
    ),
    "10,000 brackets": body("[" * 10_000 + "]" * 10_000),
    "10,000 objects": body('{"a":' * 10_000 + "1" + "}" * 10_000),
    "only white space": body("  \n"),
    "a text": body('"tools/call"', "not_json_rpc"),
    "a number": body("1", "not_json_rpc"),
    "null": body("null", "not_json_rpc"),
}
TYPES = {
    "charset UTF-16": typed("application/json; charset=utf-16", CALLED),
    "charset UTF-7": typed("application/json; charset=utf-7", CALLED),
    "two charsets": typed("application/json; charset=utf-8; charset=utf-16", CALLED),
    "two types": Case(mcp(CALL, "Content-Type: application/json; charset=utf-7"), 400, "unparsable_body"),
    "gzip": body(gzip.compress(CALLED), "encoded_body", 400, "Content-Encoding: gzip"),
    "br": body(CALLED, "encoded_body", 400, "Content-Encoding: br"),
    "identity, then gzip": body(CALLED, "encoded_body", 400, "Content-Encoding: identity, gzip"),
    "gzip in a second line": body(CALLED, "encoded_body", 400, "Content-Encoding: identity", "Content-Encoding: gzip"),
    "gzip bomb": body(gzip.compress(b" " * 10_000_000), "encoded_body", 400, "Content-Encoding: gzip"),
}
MESSAGES = {
    "no jsonrpc": body('{"id":1,"method":"ping"}', "not_json_rpc"),
    "jsonrpc 1.0": message(jsonrpc="1.0"),
    "jsonrpc as number": message(jsonrpc=2.0),
    "method as number": message(method=1),
    "method null": message(method=None),
    "method and result": message(result={}),
    "result and error": body('{"jsonrpc":"2.0","id":1,"result":1,"error":{}}', "not_json_rpc"),
    "answer without id": body('{"jsonrpc":"2.0","result":1}', "not_json_rpc"),
    "id as object": message(id={}),
    "id as list": message(id=[1]),
    "id as truth value": message(id=True),
    "params as text": message(params="add"),
    "Method in other letters": member('"Method": "tools/call"', "ambiguous_member"),
    "PARAMS in other letters": member('"PARAMS": {"name": "drop_tables"}', "ambiguous_member"),
    "Name in other letters": message("ambiguous_member", params={"name": "add", "Name": "drop_tables"}),
    "no name": message(params={}),
    "name as number": message(params={"name": 1}),
    "name null": message(params={"name": None}),
    "name that is empty": tool("", "bad_name", 400),
    "name of 1,025 characters": tool("a" * 1025, "bad_name", 400),
    "unknown method of tools": message("method_not_supported", method="tools/run"),
    "empty batch": body("[]", "bad_batch"),
    "batch of 65": Case(mcp([CALL] * 65), 400, "bad_batch"),
    "batch in a batch": Case(mcp([[CALL]]), 400, "not_json_rpc"),
    "batch with a number": Case(mcp([CALL, 1]), 400, "not_json_rpc"),
    "batch with a denied notification": Case(
        mcp([CALL, {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "drop_tables"}}]),
        403,
        "not_in_allowlist",
    ),
    "batch with a denied resource": Case(
        mcp([CALL, {"jsonrpc": "2.0", "id": 9, "method": "resources/read", "params": {"uri": "file:///etc/passwd"}}]),
        403,
        "not_in_allowlist",
    ),
}
TOOLS = {
    "tool in capitals": tool("ADD"),
    "tool with a space behind": tool("add "),
    "tool with a space before": tool(" add"),
    "tool with NUL": tool("add\x00"),
    "tool with a line end": tool("add\n"),
    "tool in full-width letters": tool("\uff41\uff44\uff44"),
    "tool with a zero-width space": tool("ad\u200bd"),
    "tool in Cyrillic": tool("\u0430dd"),
    "tool percent-encoded": tool("%61dd"),
    "tool with dot segments": tool("drop/../add"),
    "tool with a slash": tool("add/x"),
    "tool with a hash": tool("add#x"),
    "tool as a pattern": tool("*"),
    "resource that is not allowed": message(
        "not_in_allowlist", 403, method="resources/read", params={"uri": "file:///etc/passwd"}
    ),
    "prompt that is not allowed": message("not_in_allowlist", 403, method="prompts/get", params={"name": "x"}),
    "notification that calls": Case(
        mcp({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "drop_tables"}}), 403, "not_in_allowlist"
    ),
    "resource with dot segments": message(
        "ambiguous_uri", 400, method="resources/read", params={"uri": "file:///open/../etc/passwd"}
    ),
    "resource with dot segments, encoded twice": message(
        "ambiguous_uri", 400, method="resources/read", params={"uri": "file:///open/%252e%252e/etc/passwd"}
    ),
    "resource that is subscribed to": message(
        "not_in_allowlist", 403, method="resources/subscribe", params={"uri": "file:///etc/passwd"}
    ),
    "method of servers": message("method_not_supported", method="sampling/createMessage"),
    "answer that nobody asked for": Case(mcp({"jsonrpc": "2.0", "id": 7, "result": {}}), 400, "unasked_answer"),
    "answer in a batch that nobody asked for": Case(
        mcp([CALL, {"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": ""}}]), 400, "unasked_answer"
    ),
    "method of its own": message("not_in_allowlist", 403, method="admin/reset"),
}
MIRRORS = {
    "Mcp-Method of another method": body(CALLED, "header_mismatch", 400, "Mcp-Method: ping"),
    "Mcp-Name of another tool": body(CALLED, "header_mismatch", 400, "Mcp-Name: drop_tables"),
    "Mcp-Name twice": body(CALLED, "header_mismatch", 400, "Mcp-Name: add", "Mcp-Name: drop_tables"),
    "Mcp-Name in other letters": body(CALLED, "header_mismatch", 400, "Mcp-Name: Add"),
    "Mcp-Name in bad base64": body(CALLED, "header_mismatch", 400, "Mcp-Name: =?base64?YWRk=?="),
    "Mcp-Name in base64 of another": body(CALLED, "header_mismatch", 400, "Mcp-Name: =?base64?ZHJvcA==?="),
    "Mcp-Param of no argument": body(CALLED, "header_mismatch", 400, "Mcp-Param-Region: eu"),
    "protocol version twice": body(
        CALLED, "header_mismatch", 400, "MCP-Protocol-Version: 2025-06-18", "MCP-Protocol-Version: 2026-07-28"
    ),
    "protocol version of another body": Case(
        mcp({**CALL, "params": {"name": "add", "_meta": {VERSION: "2026-07-28"}}}, "MCP-Protocol-Version: 2025-06-18"),
        400,
        "header_mismatch",
    ),
    "session twice": body(CALLED, "header_mismatch", 400, "Mcp-Session-Id: a", "Mcp-Session-Id: a"),
    "Mcp-Method over a batch": Case(mcp([CALL, CALL], "Mcp-Method: tools/call"), 400, "header_mismatch"),
    "Mcp-Method on a GET": Case(over_tunnel("GET", "/mcp", "Mcp-Method: tools/call"), 400, "header_mismatch"),
    "method that MCP does not have": Case(over_tunnel("PUT", "/mcp", body=CALLED), 400, "method_not_supported"),
    "denied call": Case(mcp(FORBIDDEN), 403, "not_in_allowlist"),
}
BODIES = {**JSON, **TYPES, **MESSAGES, **TOOLS, **MIRRORS}
