from pathlib import Path
from typing import Any

import pytest

from lictor.bindings.catalog import Catalog, Target
from lictor.formats.errors import UsageError

MCP = Target("urn:example:tool:calc", "tool", ("https://tools.example/mcp",), "mcp")
REST = Target("urn:example:ds:rows", "data_source", ("https://tools.example/**", "https://*.rows.example:8443/v1/*"))
AGENT = Target("urn:example:agent:b", "agent", ("https://b.example/a2a/**",), "a2a", "spiffe://example.org/agent/b")
CATALOG = Catalog([MCP, REST, AGENT])


@pytest.mark.parametrize(
    ("scheme", "host", "port", "path", "target"),
    [
        ("https", "tools.example", 443, "/mcp", MCP),
        ("https", "tools.example", 443, "/mcp/", MCP),
        ("https", "tools.example", 443, "/mcpx", REST),
        ("https", "tools.example", 443, "/mcp/x", REST),
        ("https", "tools.example", 443, "/", REST),
        ("http", "tools.example", 443, "/mcp", None),
        ("https", "tools.example", 8443, "/mcp", None),
        ("https", "eu.rows.example", 8443, "/v1/a", REST),
        ("https", "eu.rows.example", 8443, "/v1/a/", REST),
        ("https", "eu.rows.example", 8443, "/v1/a/b", None),
        ("https", "rows.example", 8443, "/v1/a", None),
        ("https", "b.example", 443, "/a2a", AGENT),
        ("https", "b.example", 443, "/a2a/x", AGENT),
        ("https", "b.example", 443, "/", None),
    ],
)
def test_find(scheme: str, host: str, port: int, path: str, target: Target | None) -> None:
    assert CATALOG.find(scheme, host, port, path) is target


def test_the_slash_tells_two_targets_apart_if_the_catalog_does() -> None:
    one = Target("urn:example:one", "tool", ("https://h.example/x",))
    two = Target("urn:example:two", "tool", ("https://h.example/x/",))
    for catalog in (Catalog([one, two]), Catalog([two, one])):
        assert catalog.find("https", "h.example", 443, "/x") is one
        assert catalog.find("https", "h.example", 443, "/x/") is two


def test_at_gives_every_target_of_an_authority_once() -> None:
    assert CATALOG.at("tools.example", 443) == (MCP, REST)
    assert CATALOG.at("eu.rows.example", 8443) == (REST,)
    assert CATALOG.at("tools.example", 80) == ()
    assert CATALOG.at("x.tools.example", 443) == ()
    both = Target("urn:example:a", "tool", ("https://a.x.example/1", "https://a.x.example/2", "https://*.x.example/**"))
    assert Catalog([both]).at("a.x.example", 443) == (both,)


GOOD: dict[str, Any] = {"urn": "urn:example:a", "kind": "tool", "match": ("https://h.example/",)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"urn": "calc"}, "'calc' is not a URN", id="urn is no URN"),
        pytest.param({"urn": "urn:example:*"}, "is not a URN", id="urn with a star"),
        pytest.param({"urn": "urn:example:a#b"}, "has a fragment", id="urn with a fragment"),
        pytest.param({"kind": "database"}, "kind 'database', expected tool, data_source", id="unknown kind"),
        pytest.param({"protocol": "grpc"}, "protocol 'grpc', expected one of http, mcp, a2a", id="unknown protocol"),
        pytest.param({"kind": "model", "protocol": "mcp"}, "kind must be 'tool'", id="MCP model"),
        pytest.param({"protocol": "a2a"}, "kind must be 'agent'", id="A2A tool"),
        pytest.param({"lists": "all"}, 'need protocol = "mcp"', id="lists without MCP"),
        pytest.param({"pins": Path("p.json")}, 'need protocol = "mcp"', id="pins without MCP"),
        pytest.param({"changed_tools": "flag"}, 'need protocol = "mcp"', id="changed_tools without MCP"),
        pytest.param({"monitor": "spiffe://x.test/monitor/b"}, "it needs agent too", id="monitor without agent"),
        pytest.param({"evidence": "https://b.example"}, "it needs monitor too", id="evidence without monitor"),
        pytest.param({"match": ()}, "matches nothing", id="no pattern"),
        pytest.param({"match": ("https://h.example",)}, "urn:example:a: .* has no path", id="pattern without path"),
        pytest.param({"match": ("https://h.example/",) * 2}, "can name only one", id="pattern twice"),
        pytest.param({"client_cert": Path("c.pem")}, "both client_cert and client_key", id="certificate without key"),
        pytest.param(
            {"agent_id": "b"}, "urn:example:a: agent_id 'b' is not a SPIFFE ID", id="agent_id is no SPIFFE ID"
        ),
    ],
)
def test_a_bad_target_is_refused(change: dict[str, Any], complaint: str) -> None:
    Catalog([Target(**GOOD)])
    with pytest.raises(UsageError, match=complaint):
        Catalog([Target(**{**GOOD, **change})])


def test_two_targets_may_not_share_urn_or_pattern() -> None:
    with pytest.raises(UsageError, match="urn:example:a stands twice"):
        Catalog([Target(**GOOD), Target(**{**GOOD, "match": ("https://i.example/",)})])
    with pytest.raises(UsageError, match="belongs to urn:example:a and to urn:example:b"):
        Catalog([Target(**GOOD), Target(**{**GOOD, "urn": "urn:example:b"})])
