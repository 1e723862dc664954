"""What becomes of an MCP server's answer, in values; over sockets it is end_to_end/test_mcp_answers.py."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from flows import FakeControl, make_flow, run
from mitmproxy import http

from lictor.addons.answers import AT_ONCE, Answers
from lictor.addons.enforce import Settings
from lictor.addons.exchange import Exchange, Tally, attach
from lictor.addons.tool_watch import ToolWatch
from lictor.bindings.catalog import Catalog
from lictor.bindings.facts import Classified
from lictor.bindings.model import ActionType
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.bindings.target import Target
from lictor.engine.answer_gate import Gate
from lictor.evidence.entry import Receipt
from lictor.formats.errors import LedgerError

AGENT, URN = "spiffe://e.example/agent/a", "urn:example:tool:calc"
TARGET = Target(URN, "tool", ("https://api.example/mcp",), "mcp")
ROOTS = {"jsonrpc": "2.0", "id": 7, "method": "roots/list"}
TOOLS: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "add"}, {"name": "drop"}]}}


def policy(**behavior: Any) -> Policy:
    document = {
        "policy_id": "urn:p",
        "version": "1.0.0",
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {
                "behavior_id": "b",
                "observable_actions": ["tool_call"],
                "compliance_criteria": {"type": "allowlist", "values": [URN, f"{URN}#roots/list", f"{URN}#tools/add"]},
                **behavior,
            }
        ],
    }
    return Policy([load_binding(json.dumps(document).encode(), "test")], Catalog([TARGET]))


class Reading:
    """One exchange whose request was let out."""

    def __init__(self, target: Target = TARGET, judge: Policy | None = None, method: str = "POST") -> None:
        self.control, self.policy = FakeControl(), judge or policy()
        settings = Settings("spiffe://e.example/monitor/m", 1000, b"salt")
        watch = ToolWatch({}, {}, lambda urn, tools: None)
        self.answers = Answers(settings, lambda: self.policy, self.control, lambda: watch)
        self.flow = make_flow(method, "/mcp", (b"Accept-Encoding", b"gzip"))
        action = Classified(ActionType.TOOL_CALL, target.urn, {"method": method, "rpc_method": "ping"}, 1, True, target)
        self.exchange = Exchange(AGENT, False, "https", "api.example", 443, "/mcp", "", classified=(action,))
        self.exchange.permit = ("https", "api.example", 443)
        self.exchange.response_tally = Tally(None)
        attach(self.flow, self.exchange)

    def begin(self, content_type: str = "text/event-stream", status: int = 200) -> None:
        self.answers.request(self.flow)
        self.flow.response = http.Response.make(status, b"", {"content-type": content_type})
        self.answers.responseheaders(self.flow)

    async def event(self, message: Any) -> bytes:
        assert self.flow.response is not None
        gate = self.flow.response.stream
        assert isinstance(gate, Gate)
        gate.came, gate.passed = b"data: " + json.dumps(message).encode() + b"\n\n", b""
        await run(self.answers.response_data(self.flow))
        return gate.passed

    async def whole(self, message: Any, status: int = 200) -> http.Response:
        self.begin("application/json", status)
        assert self.flow.response is not None
        self.flow.response.content = json.dumps(message).encode()
        await run(self.answers.response(self.flow))
        return self.flow.response

    @property
    def killed(self) -> bool:
        return self.flow.error is not None


async def test_a_request_of_the_server_is_recorded_before_it_passes_and_has_an_outcome() -> None:
    reading = Reading()
    reading.begin()
    passed = json.loads((await reading.event(ROOTS)).removeprefix(b"data: "))
    assert (passed["method"], passed["id"]) == ("roots/list", passed["id"])
    assert passed["id"].startswith("lictor.")
    (draft,) = reading.control.drafts
    assert (draft.agent_id, draft.action_type, draft.action_target) == (AGENT, "tool_call", f"{URN}#roots/list")
    size = len(json.dumps(ROOTS))
    assert draft.action_parameters["direction"] == "from_server"
    assert draft.action_parameters["request_bytes"] == size
    (outcome,) = reading.control.outcomes
    assert (outcome.outcome_of, outcome.outcome["complete"], outcome.outcome["status"]) == (0, True, 200)


async def test_what_a_memory_denies_does_not_pass() -> None:
    reading = Reading()
    reading.control.answer = lambda draft: Receipt(0, 1.0, "deny", "rate_exceeded", "w", "n")  # type: ignore[method-assign]
    reading.begin()
    assert await reading.event(ROOTS) == b""
    assert not reading.killed
    assert reading.control.outcomes == []


async def test_what_is_only_flagged_passes() -> None:
    allowlist = {"type": "allowlist", "values": [URN]}
    reading = Reading(judge=policy(compliance_criteria=allowlist, on_violation="flag"))
    reading.begin()
    assert await reading.event(ROOTS) != b""
    assert reading.control.drafts[0].decision == "flag"


async def test_what_cannot_be_recorded_ends_the_stream() -> None:
    reading = Reading()
    reading.control.answer = lambda draft: LedgerError("the disk is full")  # type: ignore[method-assign]
    reading.begin()
    assert await reading.event(ROOTS) == b""
    assert reading.killed
    assert reading.exchange.ended_by == "monitor_error"


async def test_criteria_on_parameters_see_what_the_server_asks() -> None:
    schema = {"type": "schema", "parameter": "/params", "schema": {"properties": {"a": {"const": 1}}}}
    reading = Reading(judge=policy(compliance_criteria=schema))
    reading.begin()
    assert await reading.event({**ROOTS, "params": {"a": 1}}) != b""
    assert await reading.event({**ROOTS, "params": {"a": 2}}) == b""
    assert reading.control.drafts[1].reason == "schema_violated"


async def test_lists_are_cut_down_by_what_looks_at_the_target_alone() -> None:
    shown = await Reading().whole(TOOLS)
    assert [tool["name"] for tool in shown.json()["result"]["tools"]] == ["add"]
    schema = {"type": "schema", "parameter": "/arguments/x", "schema": {"const": 1}}
    assert (await Reading(judge=policy(compliance_criteria=schema)).whole(TOOLS)).json() == TOOLS
    everything = dataclasses.replace(TARGET, lists="all")
    reading = Reading(everything)
    assert (await reading.whole(TOOLS)).json() == TOOLS
    assert "hidden" not in reading.exchange.peer_evidence


async def test_a_large_answer_is_read_like_a_small_one() -> None:
    large = {**TOOLS, "result": {**TOOLS["result"], "x": "y" * AT_ONCE}}
    assert len((await Reading().whole(large)).json()["result"]["tools"]) == 1
    assert (await Reading().whole({**large, "id": True})).status_code == 502


async def test_the_outcome_says_how_much_was_hidden() -> None:
    reading = Reading()
    reading.begin()
    await reading.event(TOOLS)
    await reading.event(TOOLS)
    assert reading.exchange.peer_evidence["hidden"] == 2
    assert "tools_digest" in reading.exchange.peer_evidence


async def test_bytes_that_pass_are_counted_as_they_pass() -> None:
    reading = Reading()
    reading.begin()
    passed = await reading.event({"jsonrpc": "2.0", "id": 1, "result": {}})
    assert reading.exchange.response_tally is not None
    assert reading.exchange.response_tally.size == len(passed) > 0


async def test_of_a_batch_what_is_allowed_passes_and_where_nothing_is_left_the_agent_is_told() -> None:
    denied = {**ROOTS, "method": "sampling/createMessage"}
    assert (await Reading().whole([denied, {"jsonrpc": "2.0", "id": 1, "result": {}}])).json() == [
        {"jsonrpc": "2.0", "id": 1, "result": {}}
    ]
    for answer in (await Reading().whole(denied), await Reading().whole([denied])):
        assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (403, "server_request_denied")


async def test_an_answer_that_cannot_be_read_is_replaced() -> None:
    reading = Reading()
    answer = await reading.whole({"jsonrpc": "2.0", "id": 1})
    assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (502, "unparsable_answer")
    assert answer.json()["id"] == 1
    assert (await Reading().whole({"error": "invalid_token"}, 401)).json() == {"error": "invalid_token"}


@pytest.mark.parametrize("target", [None, dataclasses.replace(TARGET, protocol="http")])
def test_other_answers_are_not_touched(target: Target | None) -> None:
    reading = Reading()
    reading.exchange.classified = (dataclasses.replace(reading.exchange.classified[0], catalog_target=target),)
    reading.begin("text/html")
    assert reading.exchange.reading is None
    assert reading.flow.request.headers["accept-encoding"] == "gzip"
    assert reading.answers.response(reading.flow) is None


@pytest.mark.parametrize(
    ("method", "status", "read"),
    [("POST", 200, True), ("DELETE", 200, False), ("GET", 405, False), ("POST", 307, False)],
)
def test_what_is_no_json_and_no_stream(method: str, status: int, read: bool) -> None:
    reading = Reading(method=method)
    reading.begin("text/plain", status)
    assert (reading.exchange.reading is not None) == read


def test_a_gate_that_nobody_has_put_there() -> None:
    reading = Reading()
    reading.flow.response = http.Response.make(200)
    with pytest.raises(RuntimeError, match="nobody has put there"):
        reading.answers.response_data(reading.flow)
