"""The headers by which MCP repeats, outside of the body, what stands inside: they must agree, or not be there.

From revision 2026-07-28 on `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` let parts in between route without reading the
body. Which argument an `Mcp-Param-*` repeats stands in the tool's schema, which is the server's word and not looked at
here; that some argument has the value is what is checked.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from ..facts import RequestFacts, Unclassifiable

_ONCE = ("mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name", "last-event-id")
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_VERSION_IN_BODY = "io.modelcontextprotocol/protocolVersion"
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ZEROS = re.compile(r"\A(-?[0-9]+)\.0+\Z")
_PARAM = "mcp-param-"


def check_no_mirrors(facts: RequestFacts) -> None:
    """Of a request without a body. Raises Unclassifiable."""
    _check_once(facts)
    if any(name in ("mcp-method", "mcp-name") or name.startswith(_PARAM) for name, _ in facts.headers):
        raise Unclassifiable("header_mismatch", "Mcp-Method, Mcp-Name and Mcp-Param-* belong to a POST")


def check_headers(facts: RequestFacts, message: dict[str, Any] | None) -> None:
    """Of a POST of one message (None: of a batch, which has no headers that repeat it). Raises Unclassifiable."""
    _check_once(facts)
    params = message.get("params") if message is not None else None
    named = params if isinstance(params, dict) else {}
    method = None if message is None else message.get("method")
    _check_mirror(facts, "mcp-method", method)
    by = _NAMED_BY.get(method or "")
    _check_mirror(facts, "mcp-name", named.get(by) if by else named.get("name", named.get("uri")))
    meta = named.get("_meta")
    version = meta.get(_VERSION_IN_BODY) if isinstance(meta, dict) else None
    if version is not None:
        _check_mirror(facts, "mcp-protocol-version", version)
    _check_params(facts, named.get("arguments") if method == "tools/call" else None)


def _check_once(facts: RequestFacts) -> None:
    for name in _ONCE:
        if len(facts.header(name)) > 1:
            raise Unclassifiable("header_mismatch", f"the header {name} stands more than once")
    for value in facts.header("mcp-protocol-version"):
        if not _VERSION.fullmatch(value):
            raise Unclassifiable("header_mismatch", "the header mcp-protocol-version is not a version")


def _check_mirror(facts: RequestFacts, name: str, wanted: object) -> None:
    values = facts.header(name)
    if values and (wanted is None or _decoded(values[0]) != wanted):
        raise Unclassifiable("header_mismatch", f"the header {name} does not say what the body says")


def _check_params(facts: RequestFacts, arguments: object) -> None:
    seen = set()
    known: set[str] | None = None
    for name, value in facts.headers:
        if not name.startswith(_PARAM):
            continue
        if known is None:
            known = set(_scalars(arguments))
        said = _decoded(value.strip())
        if name in seen or said is None or not ({said, _ZEROS.sub(r"\1", said)} & known):
            raise Unclassifiable("header_mismatch", f"the header {name[:100]} does not say what an argument says")
        seen.add(name)


def _scalars(value: object) -> Iterator[str]:
    """All strings, numbers and truth values inside, as a header writes them. The body's reader bounds the depth."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _scalars(inner)
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        yield str(value)
        if isinstance(value, float) and value.is_integer():
            yield str(int(value))


def _decoded(value: str) -> str | None:
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        decoded = base64.b64decode(value[9:-2], validate=True)
        return decoded.decode("utf-8") if base64.b64encode(decoded).decode() == value[9:-2] else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
