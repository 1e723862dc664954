"""Tools whose description or schema is not the one that was approved: not listed, and not called.

A target may have pins: the digest of each approved tool. What the server listed last is known to all workers, so a tool
that has changed is refused by each of them until it is listed as approved again, or approved anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..bindings.facts import Classified, Unclassifiable
from ..bindings.model import Decision, Verdict
from ..bindings.protocols.mcp import tool_target
from ..bindings.protocols.mcp_answers import tool_digest
from ..bindings.target import Target
from ..formats import base64url

MAX_LISTED = 256
MAX_NAME = 128
"""Tools of one target whose digests are kept, and the characters that a name may have for that (MCP allows no more)."""
NOT_APPROVED = "tool_not_approved"
CHANGED = "tool_changed"
_HINTS = {
    NOT_APPROVED: "This tool is not approved: ask your operator to look at it and approve it (lictor tools).",
    CHANGED: "This tool has changed since it was approved: ask your operator to look at it and approve it again.",
}
Digests = Mapping[str, str]


class ToolWatch:
    """`pins` and `listed`: digests of tools by name, by URN. `tell` says what a server has listed now."""

    def __init__(
        self, pins: Mapping[str, Digests], listed: Mapping[str, Digests], tell: Callable[[str, Digests], None]
    ) -> None:
        self._pins = pins
        self._approved = {
            urn: {where: (name, digest) for name, digest in tools.items() for where in _target(urn, name)}
            for urn, tools in pins.items()
        }
        self._listed = dict(listed)
        self._tell = tell

    def listed(self, target: Target, tools: Sequence[Any]) -> tuple[dict[str, object], frozenset[str]]:
        """A server has listed tools: what the outcome says of it, and the action targets that are not to be shown."""
        digests = _digests(tools)
        text = json.dumps(digests, sort_keys=True, separators=(",", ":")).encode()
        said: dict[str, object] = {"tools_digest": base64url.encode(hashlib.sha256(text).digest())}
        named = [(name, digest) for name, digest in digests.items() if digest and len(name) <= MAX_NAME]
        known = dict(named[:MAX_LISTED])
        # A list may come in pages, so what is not in this one stays as it was.
        before = self._listed.get(target.urn, {})
        if any(before.get(name) != digest for name, digest in known.items()):
            self._listed[target.urn] = dict(list({**before, **known}.items())[-MAX_LISTED:])
            self._tell(target.urn, known)
        pins = self._pins.get(target.urn)
        if pins is None:
            return said, frozenset()
        unlike = [name for name, digest in digests.items() if pins.get(name) != digest]
        if unlike:
            said["tools_changed"] = sorted(unlike)[:MAX_LISTED]
        if target.changed_tools == "flag":
            return said, frozenset()
        return said, frozenset(where for name in unlike for where in _target(target.urn, name))

    def judge(self, action: Classified, decision: Decision) -> Decision:
        """The decision on a call: where the target has pins, another one if the tool is not as it was approved."""
        target = action.catalog_target
        approved = self._approved.get(target.urn) if target is not None else None
        called = action.parameters.get("rpc_method") == "tools/call"
        if target is None or approved is None or not called or decision.denied:
            return decision
        name, digest = approved.get(action.target, ("", ""))
        if name and self._listed.get(target.urn, {}).get(name, digest) == digest:
            return decision
        reason = CHANGED if name else NOT_APPROVED
        if target.changed_tools == "flag":
            return replace(decision, verdict=Verdict.FLAG, reason=reason) if decision.allowed else decision
        return Decision(Verdict.DENY, reason, decision.behaviors, _HINTS[reason])


def _digests(tools: Sequence[Any]) -> dict[str, str]:
    """By name; "" for a name that stands for two different tools, or is longer than any call's."""
    found: dict[str, str] = {}
    for tool in tools:
        if isinstance(tool, dict) and isinstance(name := tool.get("name"), str):
            digest = tool_digest(tool)
            found[name] = digest if found.get(name, digest) == digest and list(_target("", name)) else ""
    return found


def _target(urn: str, name: str) -> list[str]:
    try:
        return [tool_target(urn, name)]
    except Unclassifiable:
        return []
