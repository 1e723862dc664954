"""The inverse of an allowlist; a host is closed only where one value denies all of it."""

from typing import Any

import pytest

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Stateless
from lictor.bindings.model import Action, ActionType
from lictor.bindings.target import Target

ALICE = "spiffe://e.example/a"


def ready(*values: str) -> Stateless:
    compiled = compile_criteria({"type": "denylist", "values": list(values)})
    assert isinstance(compiled, Stateless)
    return compiled


def target(urn: str, protocol: str = "http") -> Target:
    return Target(urn, "tool", ("https://t.example/",), protocol)


@pytest.mark.parametrize(
    ("value", "action", "denied"),
    [
        ("urn:example:tool:a", "urn:example:tool:a", True),
        ("urn:example:tool:a", "urn:example:tool:a#tools/x", False),
        ("urn:example:tool:a#tools/rm*", "urn:example:tool:a#tools/rmdir", True),
        ("urn:example:tool:a#tools/rm*", "urn:example:tool:a#tools/ls", False),
        ("https://h.example/private/**", "https://h.example/private/x/y", True),
        ("https://h.example/private/**", "https://h.example/public", False),
        ("https://*.h.example/**", "https://a.b.h.example/", True),
        ("https://*.h.example/**", "https://h.example/", False),
        ("https://h.example/**", "http://h.example/", False),
    ],
)
def test_judge(value: str, action: str, denied: bool) -> None:
    outcome = ready(value).judge(Action(ALICE, ActionType.TOOL_CALL, action))
    assert (outcome.ok, outcome.reason) == ((False, "in_denylist") if denied else (True, ""))


def test_an_empty_list_denies_nothing() -> None:
    compiled = ready()
    assert compiled.judge(Action(ALICE, ActionType.TOOL_CALL, "urn:example:tool:a")).ok
    assert compiled.may_allow_authority("h.example", 443, ())


HTTP, MCP = target("urn:example:tool:a"), target("urn:example:tool:a", "mcp")
OTHER = target("urn:example:tool:b")


@pytest.mark.parametrize(
    ("values", "host", "targets", "open_"),
    [
        (["https://h.example/**"], "h.example", (), False),
        (["https://*.example.org/**"], "x.example.org", (), False),
        (["https://h.example/**"], "other.example", (), True),
        (["https://h.example:8443/**"], "h.example", (), True),
        (["https://h.example/private/**", "https://h.example/*"], "h.example", (), True),
        (["urn:example:tool:a"], "t.example", (HTTP,), False),
        (["urn:example:tool:a"], "t.example", (MCP,), True),
        (["urn:example:tool:a*"], "t.example", (MCP,), False),
        (["urn:example:tool:a#tools/*"], "t.example", (MCP,), True),
        (["urn:example:tool:a"], "t.example", (HTTP, OTHER), True),
        (["urn:example:tool:*"], "t.example", (HTTP, OTHER), False),
    ],
)
def test_the_host_is_closed_where_all_of_it_is_denied(
    values: list[str], host: str, targets: tuple[Target, ...], open_: bool
) -> None:
    compiled: Any = ready(*values)
    assert compiled.may_allow_authority(host, 443, targets) is open_
