"""Criteria with a memory on the wire: two workers, many clients, one limit that holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from command_line import lictor
from end_to_end.wire import Answer, Wire
from end_to_end.world import Monitor, Outside, Server, binding, target, until

from lictor.cli.init import write_binding
from lictor.formats import base64url

LIMIT, CLIENTS, EACH = 25, 40, 3


ROWS = "urn:example:ds:rows"


def limited(limit: int) -> dict[str, Any]:
    document = binding(data_source_access=[ROWS])
    document["expected_behaviors"].append(
        {
            "behavior_id": "bhv-rate",
            "observable_actions": ["data_source_access"],
            "compliance_criteria": {"type": "rate", "limit": limit, "period_s": 3600},
        }
    )
    return document


def test_exactly_the_limit_reaches_the_upstream(
    make_monitor: Callable[..., Monitor], outside: Outside, server: Server
) -> None:
    more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
    bindings = {"main": limited(LIMIT)}
    targets = target(ROWS, "data_source", f"https://localhost:{server.port}/**")
    monitor = make_monitor("limited", bindings, targets=targets, more=more, workers=2)

    def client(number: int) -> list[tuple[int, str]]:
        found = []
        for n in range(EACH):
            answer = get(monitor, server, f"/{number}/{n}")
            found.append((answer.status, answer.json().get("reason", "")))
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for found in pool.map(client, range(CLIENTS)) for answer in found]
    assert answers.count((200, "")) == LIMIT
    assert answers.count((403, "rate_exceeded")) == CLIENTS * EACH - LIMIT
    assert len(server.requests) == LIMIT

    refused = get(monitor, server, "/again")
    problem = refused.json()
    assert (problem["reason"], problem["behavior_id"]) == ("rate_exceeded", "bhv-rate")
    assert "try again in" in problem["detail"]
    assert refused.headers["behavioral-evidence"]

    monitor.kill()
    monitor.start()
    assert get(monitor, server, "/after").json()["reason"] == "rate_exceeded"
    assert len(server.requests) == LIMIT
    assert len([e for e in monitor.of_agents() if "outcome_of" not in e and e["decision"] == "allow"]) == LIMIT

    rewrite(monitor, limited(LIMIT + 1))
    assert [get(monitor, server, "/raised").status for _ in range(2)] == [200, 403]
    monitor.stop()
    verified(monitor)


def test_calls_of_a_budget_are_exact_across_workers(
    make_monitor: Callable[..., Monitor], outside: Outside, server: Server
) -> None:
    document = limited(1000)
    budget = {"type": "budget", "per": "month", "calls": 7}
    document["expected_behaviors"].append(
        {"behavior_id": "bhv-budget", "observable_actions": ["data_source_access"], "compliance_criteria": budget}
    )
    targets = target(ROWS, "data_source", f"https://localhost:{server.port}/**")
    more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
    monitor = make_monitor("budget", {"main": document}, targets=targets, more=more, workers=3)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: get(monitor, server, f"/{n}"), range(24)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [403] * 17
    assert {answer.json()["reason"] for answer in answers if answer.status == 403} == {"budget_exhausted"}
    assert len(server.requests) == 7


def get(monitor: Monitor, server: Server, path: str) -> Answer:
    with Wire(monitor) as wire:
        return wire.tunnel(f"localhost:{server.port}").request("GET", path)


def verified(monitor: Monitor) -> None:
    """The log and its evidence hold, flags, denials and reloads included."""
    done = lictor("log", "verify", "-c", monitor.config, cwd=monitor.path)
    assert done.returncode == 0, done.stdout + done.stderr


def rewrite(monitor: Monitor, document: dict[str, Any]) -> None:
    """Put another binding in force while the monitor runs."""
    said = len(monitor.output())
    write_binding(monitor.path / "bindings" / "main.json", document, monitor.domain)
    until(lambda: "bindings in force" in monitor.output()[said:], what="the reload")


def test_parameters_are_judged_where_a_behavior_asks_and_never_kept(
    make_monitor: Callable[..., Monitor], outside: Outside, server: Server
) -> None:
    document = binding(data_source_access=[ROWS, "urn:example:ds:free"])
    document["expected_behaviors"] += [
        {
            "behavior_id": "bhv-table",
            "observable_actions": ["data_source_access"],
            "targets": [ROWS],
            "compliance_criteria": {"type": "pattern", "parameters": {"/query/table": "public_[a-z]+"}},
        },
        {
            "behavior_id": "bhv-body",
            "observable_actions": ["data_source_access"],
            "targets": [ROWS],
            "compliance_criteria": {
                "type": "schema",
                "schema": {"properties": {"body": {"type": "object", "properties": {"limit": {"maximum": 10}}}}},
            },
        },
    ]
    targets = target(ROWS, "data_source", f"https://localhost:{server.port}/rows") + target(
        "urn:example:ds:free", "data_source", f"https://localhost:{server.port}/free"
    )
    more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
    monitor = make_monitor("parameters", {"main": document}, targets=targets, more=more)

    def post(path: str, body: bytes, *headers: str) -> tuple[int, str]:
        with Wire(monitor) as wire:
            answer = wire.tunnel(f"localhost:{server.port}").request("POST", path, *headers, body=body)
        return answer.status, answer.json().get("reason", "")

    assert post("/rows?table=public_x", b'{"limit": 3, "secret": "hunter2"}') == (200, "")
    assert post("/rows?table=public_x", b"") == (200, "")
    assert post("/rows?table=private_x", b'{"limit": 3}') == (403, "pattern_mismatch")
    assert post("/rows?table=public_x&table=private_x", b"") == (403, "pattern_mismatch")
    assert post("/rows?table=public_x;table=private_x", b"") == (400, "ambiguous_query")
    assert post("/rows", b'{"limit": 3}') == (403, "parameter_missing")
    assert post("/rows?table=public_x", b'{"limit": 11}') == (403, "schema_violated")
    assert post("/rows?table=public_x", b'{"limit": 11, "limit": 1}') == (400, "unparsable_body")
    assert post("/rows?table=public_x", b"limit=11") == (400, "unparsable_body")
    assert post("/rows?table=public_x", b"\x1f\x8b", "Content-Encoding: gzip") == (400, "encoded_body")
    assert post("/free?table=private_x", b"limit=11") == (200, "")
    assert [path for _, path, _, _ in server.requests] == [
        "/rows?table=public_x",
        "/rows?table=public_x",
        "/free?table=private_x",
    ]
    assert server.requests[0][3] == b'{"limit": 3, "secret": "hunter2"}'
    assert "hunter2" not in str(monitor.entries())
    assert "public_x" not in str(monitor.entries())


def test_audit_lets_pass_what_it_reports(
    make_monitor: Callable[..., Monitor], outside: Outside, server: Server
) -> None:
    document = {**binding(data_source_access=[]), "mode": "audit"}
    targets = target(ROWS, "data_source", f"https://localhost:{server.port}/**")
    more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
    monitor = make_monitor("audit", {"main": document}, targets=targets, more=more)
    assert get(monitor, server, "/x").status == 200
    entry = monitor.of_agents()[0]
    assert (entry["decision"], entry["reason"]) == ("flag", "audit:not_in_allowlist")
    monitor.stop()
    verified(monitor)
    (first, *_) = [json.loads(base64url.decode(token.split(".")[1])) for token in monitor.tokens("bets")]
    assert (first["bhv_result"], first["bhv_details"][0]["violations"]) == ("fail", 1)


def test_after_private_data_nothing_goes_outside(
    make_monitor: Callable[..., Monitor], outside: Outside, server: Server
) -> None:
    private, elsewhere = "urn:example:ds:private", "urn:example:tool:outside"
    document = binding(data_source_access=[private], tool_call=[elsewhere])
    document["expected_behaviors"].append(
        {
            "behavior_id": "bhv-flow",
            "observable_actions": ["tool_call", "http_request", "model_inference"],
            "compliance_criteria": {"type": "sequence", "scope": "agent", "never_after": [private]},
        }
    )
    targets = target(private, "data_source", f"https://localhost:{server.port}/private/**")
    targets += target(elsewhere, "tool", f"https://localhost:{server.port}/outside/**")
    more = f'[interception]\nupstream_ca = "{outside.ca}"\n'
    monitor = make_monitor("flow", {"main": document}, targets=targets, more=more, workers=2)

    assert get(monitor, server, "/outside/1").status == 200
    assert get(monitor, server, "/private/2").status == 200
    refused = [get(monitor, server, "/outside/3").json() for _ in range(6)]
    assert {(r["reason"], r["behavior_id"]) for r in refused} == {("forbidden_after", "bhv-flow")}
    monitor.kill()
    monitor.start()
    assert get(monitor, server, "/outside/4").json()["reason"] == "forbidden_after"
    assert get(monitor, server, "/private/5").status == 200
    assert [path for _, path, _, _ in server.requests] == ["/outside/1", "/private/2", "/private/5"]
