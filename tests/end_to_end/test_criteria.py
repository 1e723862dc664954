"""Criteria with a memory on the wire: two workers, many clients, one limit that holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from end_to_end.wire import Answer, Wire
from end_to_end.world import Monitor, Outside, Server, binding, target, until

from lictor.cli.init import write_binding

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
    assert len([e for e in monitor.entries() if "outcome_of" not in e and e["decision"] == "allow"]) == LIMIT

    rewrite(monitor, limited(LIMIT + 1))
    assert [get(monitor, server, "/raised").status for _ in range(2)] == [200, 403]


def get(monitor: Monitor, server: Server, path: str) -> Answer:
    with Wire(monitor) as wire:
        return wire.tunnel(f"localhost:{server.port}").request("GET", path)


def rewrite(monitor: Monitor, document: dict[str, Any]) -> None:
    """Put another binding in force while the monitor runs."""
    said = len(monitor.output())
    write_binding(monitor.path / "bindings" / "main.json", document, monitor.domain)
    until(lambda: "bindings in force" in monitor.output()[said:], what="the reload")
