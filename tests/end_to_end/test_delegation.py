"""An agent delegates to one behind another monitor: evidence travels with the work and comes back with the answer."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from command_line import spawned
from end_to_end.world import Monitor, Server, binding, target, until

from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.cli.init import write_binding
from lictor.evidence import bet, ect

AGENT_B = "spiffe://test.internal/agent/b"
URN_B = "urn:test:agent:b"
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}


Make = Callable[..., Monitor]
Pair = tuple[Monitor, Monitor, Server, str]


def between(make: Make, local: Server, name: str) -> Pair:
    """Monitor A before an agent, monitor B before a sub-agent that is a plain HTTP server; where B listens."""
    inbound = binding(delegation=[URN_B], http_request=[f"{URN_B}#/.well-known/agent-card.json"])
    b = make(
        f"{name}b",
        {"inbound": {**inbound, "subjects": ["spiffe://test.internal/monitor/*"]}},
        ingress=f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{local.port}"',
    )
    url = f"https://127.0.0.1:{b.ingress_port}/"
    a = make(f"{name}a", {"main": binding(delegation=[URN_B])}, target(URN_B, "agent", f"{url}**", agent=AGENT_B))
    return a, b, local, url


@pytest.fixture
def pair(make_monitor: Make) -> Iterator[Pair]:
    """For what spoils it for others."""
    with contextlib.closing(Server(None)) as local:
        yield between(make_monitor, local, "")


@pytest.fixture(scope="module")
def shared(share_monitor: Make) -> Iterator[Pair]:
    """For all that look at nothing but what they did themselves."""
    with contextlib.closing(Server(None)) as local:
        yield between(share_monitor, local, "shared-")


def keys(domain: Any) -> EvidenceKeys:
    found = EvidenceKeys(domain.identity_ca.read_bytes())
    for path in domain.path.glob("monitors/*/evidence.pem"):
        found.add_jwk(evidence_jwk(path.read_bytes()))
    return found


def client(monitor: Any) -> httpx.Client:
    return httpx.Client(
        proxy=httpx.Proxy(monitor.url, ssl_context=monitor.agent_context()),
        verify=monitor.target_context(),
        trust_env=False,
        timeout=20,
    )


def test_evidence_travels_both_ways(shared: Pair, domain: Any) -> None:
    a, b, local, url = shared
    before, taken = len(a.entries()), len(b.entries())
    with client(a) as http:
        response = http.post(url, json=MESSAGE)
    assert response.status_code == 200, response.text
    method, _, headers, body = local.requests[-1]
    assert (method, json.loads(body)) == ("POST", MESSAGE)
    resolve = keys(domain).resolve

    caller = ect.verify(headers.get_all("Execution-Context")[0], resolve, audience=[AGENT_B])
    assert caller.subject == "spiffe://test.internal/agent/default"
    assert caller.issuer == a_id(a)
    evidence = bet.verify(headers["Behavioral-Evidence"], resolve, audience=[AGENT_B])
    assert evidence.parents == (caller.jti,)
    assert evidence.result == "pass"
    decision = next(e for e in a.entries()[before:] if e["action_type"] == "delegation")
    assert evidence.ext["first_seq"] + evidence.ext["count"] == decision["seq"] + 1, "covers the decision to delegate"

    callee = ect.verify(response.headers["execution-context"], resolve)
    assert callee.subject == AGENT_B
    assert callee.parents == (caller.jti,)
    assert callee.wid == caller.wid
    answer = bet.verify(response.headers["behavioral-evidence"], resolve)
    assert answer.subject == AGENT_B
    assert answer.parents == (callee.jti,)

    inbound = next(e for e in b.entries_of(taken) if "outcome_of" not in e)
    assert inbound["action_parameters"]["peer"] == a_id(a)
    assert inbound["node"] == callee.jti
    outcome = a.outcome(before)
    assert outcome["peer_ect"]
    assert outcome["request_digest"].startswith("sha-256:")


def test_both_monitors_recorded_the_same(pair: Pair, domain: Any) -> None:
    a, b, _, url = pair
    with client(a) as http:
        assert [http.post(url, json=MESSAGE).status_code for _ in range(2)] == [200, 200]
    a.stop()
    b.stop()
    ledgers = [str(monitor.path / "data" / "ledger.sqlite") for monitor in (a, b)]
    done = spawned("chain", "verify", *ledgers, "--trust", domain.identity_ca, "--json")
    shown = json.loads(done.stdout)
    assert done.returncode == 0, shown
    assert [edge["state"] for edge in shown["chain"]["edges"]] == ["agreed", "agreed"]
    assert {edge["callee"] for edge in shown["chain"]["edges"]} == {AGENT_B}


def a_id(monitor: Any) -> str:
    return f"spiffe://test.internal/monitor/{monitor.name}"


@pytest.mark.parametrize("what", ["no evidence", "replayed", "agent instead of monitor"])
def test_ingress_refuses(shared: Pair, domain: Any, what: str) -> None:
    a, b, local, url = shared
    headers: list[tuple[str, str]] = []
    if what == "replayed":
        with client(a) as http:
            http.post(url, json=MESSAGE)
        seen = local.requests[-1][2]
        headers = [(n, seen.get_all(n)[0]) for n in ("Execution-Context", "Behavioral-Evidence")]
    context = ssl.create_default_context(cafile=str(domain.identity_ca))
    who = domain.path / "monitors" / a.name
    if what == "agent instead of monitor":
        who = domain.path / "agents" / "default"
    context.load_cert_chain(who / "cert.pem", who / "key.pem")
    arrived, before = len(local.requests), len(b.entries())
    with httpx.Client(verify=context, trust_env=False) as http:
        response = http.post(url, json=MESSAGE, headers=headers)
    expected = {"no evidence": "ect_missing", "replayed": "ect_replayed", "agent instead of monitor": "default_deny"}
    assert response.status_code == 403
    assert response.json()["error"]["data"]["reason"] == expected[what]
    assert response.json()["id"] == 7
    assert len(local.requests) == arrived
    assert [e for e in b.entries()[before:] if e.get("reason") == expected[what]]


def test_what_a_caller_shows_is_judged_by_the_callees_binding(pair: Pair) -> None:
    """Evidence that is good, of a caller whose own log holds a violation: refused where a pass is asked for."""
    a, b, local, url = pair
    asked = {
        "behavior_id": "bhv-shown",
        "observable_actions": ["delegation"],
        "compliance_criteria": {
            "type": "delegation",
            "outgoing": {"to": ["urn:test:other"]},
            "incoming": {
                "issuers": ["spiffe://test.internal/monitor/*"],
                "policies": ["urn:test:policy:main"],
                "result": "pass",
                "max_age_s": 600,
                "max_depth": 1,
            },
        },
    }
    inbound = json.loads((b.path / "bindings" / "inbound.json").read_text())
    inbound["expected_behaviors"].append(asked)
    said = len(b.output())
    write_binding(b.path / "bindings" / "inbound.json", inbound, b.domain)
    until(lambda: "bindings in force" in b.output()[said:], what="the reload")
    with client(a) as http:
        assert http.post(url, json=MESSAGE).status_code == 200
        relaxed = json.loads((a.path / "bindings" / "main.json").read_text())
        relaxed["mode"] = "audit"
        relaxed["expected_behaviors"][0]["compliance_criteria"]["values"] = []
        said = len(a.output())
        write_binding(a.path / "bindings" / "main.json", relaxed, a.domain)
        until(lambda: "bindings in force" in a.output()[said:], what="the reload")
        response = http.post(url, json=MESSAGE)
    assert response.status_code == 403
    problem = response.json()["error"]["data"]
    assert (problem["reason"], problem["behavior_id"]) == ("result_not_accepted", "bhv-shown")
    assert len(local.requests) == 1
    entry = next(e for e in b.entries() if e.get("reason") == "result_not_accepted")
    assert (entry["agent_id"], entry["decision"]) == (a_id(a), "deny")
    assert [s["result"] for s in entry["action_parameters"]["evidence"]] == ["fail"]
    assert entry["action_parameters"]["depth"] == 1
    assert bet.verify(response.headers.get_list("behavioral-evidence")[-1], keys(b.domain).resolve).issuer == a_id(b)


def test_the_agent_card_is_read_and_nothing_beside_it(shared: Pair) -> None:
    a, b, local, url = shared
    arrived, before = len(local.requests), len(b.entries())
    context = ssl.create_default_context(cafile=str(a.domain.identity_ca))
    who = a.domain.path / "monitors" / a.name
    context.load_cert_chain(who / "cert.pem", who / "key.pem")
    with httpx.Client(verify=context, trust_env=False) as http:
        assert http.get(url + ".well-known/agent-card.json").status_code == 200
        assert http.get(url + "internal/tasks").status_code == 403
    assert [path for _, path, _, _ in local.requests[arrived:]] == ["/.well-known/agent-card.json"]
    targets = [e["action_target"] for e in b.entries_of(before) if "outcome_of" not in e]
    assert targets == [f"{URN_B}#/.well-known/agent-card.json", f"{URN_B}#/internal/tasks"]
