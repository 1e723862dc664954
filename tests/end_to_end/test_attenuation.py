"""A delegation that asks that the child binding be a subset: decided where it comes in, said in the child's node."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from end_to_end.attackers import AGENT_A, AGENT_B, MESSAGE, URN_B
from end_to_end.world import Monitor, Server, binding, target, until

from lictor.cli.init import write_binding
from lictor.evidence import ect
from lictor.formats import jws
from lictor.formats.canonical import digest
from lictor.verifier.bets import parse_bet

SUBSET = {
    "behavior_id": "bhv-subset",
    "observable_actions": ["delegation"],
    "compliance_criteria": {"type": "delegation", "outgoing": {"child_binding": "subset"}},
}


def allowed(policy: str, agent: str, *tools: str, version: str = "1.0.0") -> dict[str, Any]:
    rules = binding(policy, version, delegation=[URN_B], tool_call=[*tools])
    return {**rules, "subjects": [agent], "expected_behaviors": [*rules["expected_behaviors"], SUBSET]}


def test_a_child_may_be_allowed_less_and_never_more(share_monitor: Callable[..., Monitor]) -> None:
    callers = binding("urn:test:policy:callers", delegation=[URN_B]) | {
        "subjects": ["spiffe://test.internal/monitor/*"]
    }
    parent = allowed("urn:test:policy:parent", AGENT_A, "urn:test:x", "urn:test:y")
    child = allowed("urn:test:policy:child", AGENT_B, "urn:test:x")
    with contextlib.closing(Server(None)) as agent:
        ingress = f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{agent.port}"'
        rules = {"callers": callers, "parent": parent, "child": child}
        b = share_monitor("narrow-b", rules, ingress=ingress, start=False)
        url = f"https://127.0.0.1:{b.ingress_port}/"
        at = target(URN_B, "agent", f"{url}**", agent=AGENT_B)
        a = share_monitor("narrow-a", {"parent": parent}, at, start=False)
        with ThreadPoolExecutor() as pool:
            [*pool.map(Monitor.start, (a, b))]

        def hand_on() -> httpx.Response:
            proxy = httpx.Proxy(a.url, ssl_context=a.agent_context())
            with httpx.Client(proxy=proxy, verify=a.target_context(), trust_env=False, timeout=30) as http:
                return http.post(url, json=MESSAGE)

        within = [[digest(json.loads((a.path / "bindings" / "parent.json").read_text()))]]
        assert hand_on().status_code == 200
        taken = b.wait_for(lambda e: e["action_parameters"].get("direction") == "inbound")
        assert taken["action_parameters"]["within"] == within
        nodes = [jws.parse_compact(token, typ=ect.ACCEPTED_TYP).claims() for token in b.tokens("nodes")]
        assert [node["ext"]["within"] for node in nodes if node["jti"] == taken["node"]] == [within]

        wider = allowed("urn:test:policy:child", AGENT_B, "urn:test:x", "urn:test:z", version="1.0.1")
        said, before = len(b.output()), len(b.entries())
        write_binding(b.path / "bindings" / "child.json", wider, b.domain)
        until(lambda: "bindings in force" in b.output()[said:], what="the reload")
        refused = hand_on()
        assert (refused.status_code, refused.json()["error"]["data"]["reason"]) == (403, "binding_not_subset")
        entry = b.wait_for(lambda e: e.get("reason") == "binding_not_subset", before)
        assert entry["action_parameters"]["within"] == within
        anomaly = parse_bet(refused.headers.get_list("behavioral-evidence")[-1])
        assert (anomaly.result, anomaly.ext["trigger"]) == ("partial", "violation"), "beside what was allowed"
        assert len(agent.requests) == 1
