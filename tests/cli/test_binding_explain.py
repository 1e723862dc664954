"""`lictor binding explain` as a person and as a script call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

A = "spiffe://e.example/agent/default"
MCP, PEER, FILES = "urn:ex:tool:mcp", "urn:ex:agent:b", "https://files.example/v1/items"
MODEL, GRAPH = "urn:ex:model:o", "urn:ex:tool:g"
TARGETS = f"""
[[target]]
urn = "{MCP}"
kind = "tool"
protocol = "mcp"
match = ["https://mcp.example/mcp"]

[[target]]
urn = "{PEER}"
kind = "agent"
match = ["https://b.example/**"]

[[target]]
urn = "{MODEL}"
kind = "model"
protocol = "openai"
match = ["https://o.example/v1/**"]

[[target]]
urn = "{GRAPH}"
kind = "tool"
protocol = "graphql"
match = ["https://g.example/graphql"]
"""
BEHAVIORS = [
    {
        "behavior_id": "tools",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "allowlist", "values": [MCP, f"{MCP}#tools/read", f"{GRAPH}#query/user"]},
    },
    {
        "behavior_id": "models",
        "observable_actions": ["model_inference"],
        "compliance_criteria": {"type": "allowlist", "values": [f"{MODEL}#models/small"]},
    },
    {
        "behavior_id": "paths",
        "observable_actions": ["tool_call"],
        "targets": [f"{MCP}#tools/read"],
        "compliance_criteria": {"type": "pattern", "parameters": {"/arguments/path": "/srv/[a-z]+"}},
    },
    {
        "behavior_id": "rate",
        "observable_actions": ["http_request"],
        "compliance_criteria": {"type": "rate", "limit": 2, "period_s": 86400},
    },
    {
        "behavior_id": "web",
        "observable_actions": ["http_request"],
        "compliance_criteria": {"type": "allowlist", "values": [FILES]},
    },
]
Run = Callable[..., tuple[int, str]]
Ask = Callable[..., tuple[int, Any]]


def done(target: str) -> dict[str, Any]:
    fixed = {"decision": "allow", "reason": "allowed", "behaviors": [], "wid": "w", "node": "n", "lineage": "root"}
    return {
        "agent_id": A,
        "action_type": "http_request",
        "action_target": target,
        "action_parameters": {"method": "GET"},
        **fixed,
    }


@pytest.fixture
def ask(run: Run, working_set: Callable[[list[Any]], Path]) -> Ask:
    """Asks about agent `default` of a set with BEHAVIORS, TARGETS and as many recorded requests as `calls` says."""
    made: list[Path] = []

    def explain(*args: str | Path, calls: int = 0, agent: str = "default", plain: bool = False) -> tuple[int, Any]:
        if not made:
            config = working_set([done(FILES)] * calls)
            made.append(config)
            config.write_text(config.read_text() + TARGETS)
            policy = config.parent / "bindings" / "default.json"
            document = json.loads(policy.read_text()) | {"expected_behaviors": BEHAVIORS}
            policy.write_text(json.dumps(document))
            key = config.parent / "trust" / "operator.key"
            assert run("binding", "sign", policy, "--key", key, "--json")[0] == 0
        form = () if plain else ("--json",)
        code, text = run("binding", "explain", "--agent", agent, "-c", made[0], *args, *form)
        return code, text if plain or code == 2 else json.loads(text)

    return explain


def test_a_url_that_is_allowed(ask: Ask) -> None:
    code, result = ask(f"{FILES}?q=1")
    assert (code, result["ok"], result["agent"], result["remembered_entries"]) == (0, True, A, 0)
    assert result["connect"] == {
        "authority": "files.example:443",
        "decision": "allow",
        "reason": "the host alone does not decide",
    }
    (action,) = result["actions"]
    assert (action["action_type"], action["action_target"], action["decision"]) == ("http_request", FILES, "allow")
    assert [(b["behavior_id"], b["result"], b["matched"]) for b in action["behaviors"]] == [
        ("rate", "pass", None),
        ("web", "pass", FILES),
    ]


def test_a_rate_is_judged_by_the_ledger(ask: Ask) -> None:
    code, result = ask(FILES, agent=A, calls=2)
    assert (code, result["remembered_entries"], result["actions"][0]["reason"]) == (1, 2, "rate_exceeded")
    assert "rate of urn:lictor:policy:default: limit 2, period_s 86400" in result["actions"][0]["because"]
    code, text = ask(FILES, plain=True)
    assert code == 1
    assert text.startswith(f"denied  for {A}\nCONNECT files.example:443 opens the tunnel")
    assert "  fail  rate of urn:lictor:policy:default 1.0.0 (rate): limit 2" in text
    assert "remembers the 2 entries of the ledger" in text


def test_a_tool_call_is_judged_by_its_arguments(ask: Ask, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments.json"
    call = ("https://mcp.example/mcp", "--tool", "read", "--body", arguments)
    for path, code, because in (
        ("/srv/a", 0, "every behavior is satisfied"),
        ("/etc", 1, "paths of urn:lictor:policy:default: /arguments/path does not match '/srv/[a-z]+'"),
    ):
        arguments.write_text(json.dumps({"path": path}))
        found, result = ask(*call)
        assert (found, result["actions"][0]["action_target"]) == (code, f"{MCP}#tools/read")
        assert result["actions"][0]["because"] == because
    code, result = ask("https://mcp.example/mcp", "--tool", "write")
    assert (code, result["actions"][0]["behaviors"][0]["nearest"]) == (1, f"{MCP}#tools/read")
    assert ask("https://mcp.example/mcp")[1]["actions"][0]["action_target"] == MCP


def test_a_batch_is_judged_member_by_member(ask: Ask, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    ping, other = {"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 2, "method": "x"}
    body.write_text(json.dumps([ping, other]))
    code, result = ask("https://mcp.example/mcp", "--body", body)
    assert (code, [action["decision"] for action in result["actions"]]) == (1, ["allow", "deny"])


@pytest.mark.parametrize(
    ("url", "body", "targets", "code"),
    [
        ("https://o.example/v1/chat/completions", {"model": "small"}, [f"{MODEL}#models/small"], 0),
        ("https://o.example/v1/chat/completions", {"model": "large"}, [f"{MODEL}#models/large"], 1),
        ("https://o.example/v1/files", {"model": "small"}, [f"{MODEL}#/v1/files"], 1),
        ("https://g.example/graphql", {"query": "{ user { name } }"}, [f"{GRAPH}#query/user"], 0),
        ("https://g.example/graphql?query=%7Buser%7D", None, [f"{GRAPH}#query/user"], 0),
        ("https://g.example/graphql", {"query": "{ a }"}, [f"{GRAPH}#query/a"], 1),
    ],
)
def test_what_stands_in_the_body_is_judged(
    ask: Ask, tmp_path: Path, url: str, body: Any, targets: list[str], code: int
) -> None:
    (tmp_path / "body.json").write_text(json.dumps(body))
    found, result = ask(url, *(["--body", tmp_path / "body.json"] if body else []))
    assert ([action["action_target"] for action in result["actions"]], found) == (targets, code)


def test_an_action_without_a_request(ask: Ask) -> None:
    code, result = ask("--type", "delegation", "--target", PEER)
    assert (code, result["connect"], result["actions"][0]["reason"]) == (1, None, "default_deny")
    assert result["actions"][0]["because"].startswith("no behavior observes delegation")
    assert ask("--type", "tool_call", "--target", MCP)[0] == 0


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["https://files%2eexample/"], "doubtful_name"),
        (["https://files.example/a/../b"], "doubtful_name"),
        (["https://mcp.example/mcp", "--method", "PUT"], "method_not_supported"),
        (["https://mcp.example/mcp", "--method", "POST"], "unparsable_body"),
    ],
)
def test_what_the_monitor_refuses_by_itself(ask: Ask, args: list[str], reason: str) -> None:
    code, result = ask(*args)
    assert (code, result["ok"], result["refused"]["reason"], result["actions"]) == (1, False, reason, [])


def test_a_host_that_is_closed_at_connect(ask: Ask) -> None:
    code, result = ask("https://other.example/")
    assert (code, result["connect"]["decision"], result["connect"]["reason"]) == (1, "deny", "not_in_allowlist")


def test_an_agent_whose_certificate_was_revoked(ask: Ask, run: Run, tmp_path: Path) -> None:
    assert ask(FILES)[0] == 0
    assert run("agent", "revoke", "default", "--trust", tmp_path / "set" / "trust", "--json")[0] == 0
    code, result = ask(FILES)
    assert (code, result["refused"]) == (1, {"reason": "no_identity", "text": "the certificate of default is revoked"})


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ([], "give either a URL, or --type and --target"),
        (["https://a.example/", "--type", "tool_call", "--target", MCP], "give either a URL"),
        (["--type", "tool_call"], "give either a URL"),
        (["--type", "tool_call", "--target", MCP, "--method", "GET"], "describe a request: give a URL"),
        (["https://files.example/", "--tool", "x"], "https://files.example/ is not one"),
        (["https://mcp.example/mcp", "--tool", "x", "--body", "none"], "none cannot be read"),
    ],
)
def test_wrong_use_is_said(ask: Ask, args: list[str], complaint: str) -> None:
    code, text = ask(*args)
    assert code == 2
    assert complaint in text


def test_an_agent_that_is_not_there(ask: Ask) -> None:
    assert ask(FILES, agent="defualt") == (2, "there is no agent 'defualt', did you mean default?")
    assert "is not a SPIFFE ID" in ask(FILES, agent="https://x")[1]
