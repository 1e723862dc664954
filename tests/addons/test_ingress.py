"""In front of a local agent: nothing reaches it unjudged, unrecorded or without evidence, and so it answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from flows import FakeControl, make_flow, nothing_open, run
from mitmproxy import flow as mitm_flow
from mitmproxy import http
from mitmproxy.proxy.mode_specs import ProxyMode

from lictor.addons import ingress as module
from lictor.addons.enforce import Settings
from lictor.addons.exchange import exchange_of, permitted
from lictor.addons.ingress import Ingress, IngressSettings, catalog_of
from lictor.addons.ways import request_digest
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.engine.problem import Problem, set_problem
from lictor.evidence.entry import InboundDraft, Receipt, Tokens
from lictor.formats.errors import LictorError, VerificationError

PEER = "spiffe://test.internal/monitor/a"
AGENT = "spiffe://test.internal/agent/b"
URN = "urn:test:agent:b"
SETTINGS = IngressSettings(AGENT, URN, ("b.internal", 8443))
SEND = {"jsonrpc": "2.0", "id": 3, "method": "SendMessage", "params": {"message": {}}}
WEBSOCKET = (
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)


class Peer:
    """Stands for `Identify`."""

    def __init__(self) -> None:
        self.known = True

    def peer(self, client: Any) -> Any:
        if not self.known:
            raise VerificationError("revoked")
        return type("Peer", (), {"spiffe_id": PEER})


class Way:
    def __init__(self, control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> None:
        binding = {
            "policy_id": "urn:test:policy",
            "version": "1.0.0",
            "evaluation_mode": "continuous",
            "expected_behaviors": [
                {
                    "behavior_id": type_,
                    "observable_actions": [type_],
                    "compliance_criteria": {"type": "allowlist", "values": [value]},
                }
                for type_, value in (
                    ("delegation", URN),
                    ("http_request", f"{URN}#/.well-known/agent-card.json"),
                )
            ],
        }
        self.control, self.identify, self.examined = control, Peer(), dict[str, Any]()
        self.verdict = "allow"
        monkeypatch.setattr(module, "examine", self.examine)
        self.policy = Policy([load_binding(json.dumps(binding).encode(), "test")], catalog_of(SETTINGS))
        self.ingress = Ingress(
            Settings("spiffe://test.internal/monitor/b", 1000, b"salt"),
            SETTINGS,
            lambda: self.policy,
            self.identify,  # type: ignore[arg-type]
            lambda *a: None,  # type: ignore[arg-type, return-value]
            control,
            nothing_open(),
        )

    def examine(self, **arguments: Any) -> InboundDraft:
        """Stands for the verification of what came along, which has tests of its own."""
        self.examined = arguments
        reason = "allowed" if self.verdict == "allow" else "ect_invalid"
        return InboundDraft(AGENT, PEER, URN, arguments["action_parameters"], self.verdict, reason, "the reason")

    async def send(self, flow: http.HTTPFlow) -> http.HTTPFlow:
        flow.client_conn.proxy_mode = ProxyMode.parse("reverse:http://127.0.0.1:9000")
        await run(self.ingress.requestheaders(flow))
        if flow.response is None and not flow.error:
            await run(self.ingress.request(flow))
        return flow

    async def post(self, value: Any, *headers: tuple[bytes, bytes]) -> http.HTTPFlow:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return await self.send(incoming("POST", "/", *headers, body=body))


def incoming(method: str = "GET", path: str = "/", *headers: tuple[bytes, bytes], **more: Any) -> http.HTTPFlow:
    """As the reverse proxy makes it: the place is the local agent's already, Host is what the caller wrote."""
    defaults: dict[str, Any] = {
        "host": "127.0.0.1", "port": 9000, "scheme": "http", "host_header": b"b.internal:8443",
    }  # fmt: skip
    return make_flow(method, path, (b"Content-Type", b"application/json"), *headers, **(defaults | more))


@pytest.fixture
def way(control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> Way:
    return Way(control, monkeypatch)


def told(flow: http.HTTPFlow) -> Any:
    assert flow.response is not None
    told = json.loads(flow.response.content or b"")
    return told["error"]["data"] if "error" in told else told


async def test_a_delegation_is_verified_recorded_and_let_in(way: Way) -> None:
    lines = ((b"Execution-Context", b"ect.1"), (b"Behavioral-Evidence", b"bet.1"))
    flow = await way.post(SEND, *lines)
    assert permitted(flow)
    assert way.examined["peer_id"] == PEER
    assert way.examined["agent_id"] == AGENT
    assert way.examined["execution_context"] == ["ect.1"]
    assert way.examined["behavioral_evidence"] == ["bet.1"]
    assert set(way.examined["accepted"]) >= {AGENT, "spiffe://test.internal/monitor/b"}
    assert len(way.control.inbound) == 1
    assert way.control.drafts == []


async def test_the_agent_gets_its_node_behind_what_came(way: Way) -> None:
    way.control.answer = lambda d: Receipt(0, 1.0, "allow", "allowed", "w", "n", ("node.b",))  # type: ignore[method-assign]
    flow = await way.post(SEND, (b"Execution-Context", b"ect.1"))
    assert flow.request.headers.get_all("execution-context") == ["ect.1", "node.b"]


async def test_evidence_that_does_not_hold(way: Way) -> None:
    way.verdict = "deny"
    way.control.answer = lambda d: Receipt(0, 1.0, "deny", d.reason, "w", "n", detail=d.detail)  # type: ignore[method-assign]
    flow = await way.post(SEND)
    assert not permitted(flow)
    assert (told(flow)["reason"], told(flow)["detail"]) == ("ect_invalid", "the reason")


async def test_replayed(way: Way) -> None:
    """Only the control process can know: its receipt decides."""
    way.control.answer = lambda d: Receipt(0, 1.0, "deny", "ect_replayed", "w", "n")  # type: ignore[method-assign]
    flow = await way.post(SEND)
    assert not permitted(flow)
    assert told(flow)["reason"] == "ect_replayed"


async def test_not_recorded_not_let_in(way: Way) -> None:
    way.control.answer = lambda d: LictorError("full")  # type: ignore[method-assign]
    assert not permitted(await way.post(SEND))


@pytest.mark.parametrize(
    ("what", "reason", "value"),
    [
        ("not JSON", "unparsable_body", b"{"),
        ("key twice", "unparsable_body", b'{"jsonrpc":"2.0","jsonrpc":"2.0"}'),
        ("batch", "batch_not_supported", [SEND, SEND]),
        ("other method", "not_in_allowlist", {**SEND, "method": "CancelTask"}),
    ],
)
async def test_refused(way: Way, what: str, reason: str, value: Any) -> None:
    flow = await way.post(value)
    assert not permitted(flow)
    assert told(flow)["reason"] == reason
    assert [(d.decision, d.reason, d.agent_id) for d in way.control.drafts] == [("deny", reason, PEER)]


@pytest.mark.parametrize(
    ("what", "reason", "flow"),
    [
        ("upgrade", "upgrade_refused", incoming("GET", "/", (b"Upgrade", b"h2c"))),
        ("half a WebSocket handshake", "upgrade_refused", incoming("GET", "/chat", (b"Upgrade", b"websocket"))),
        ("work over WebSocket", "upgrade_refused", incoming("GET", "/message:send", *WEBSOCKET)),
        ("WebSocket that is not allowed", "not_in_allowlist", incoming("GET", "/chat", *WEBSOCKET)),
        ("no Host", "doubtful_name", incoming(host_header=None)),
        ("dot segments", "doubtful_name", incoming("GET", "/a/../b")),
        ("bad method", "bad_method", incoming("G\udcffT")),
        ("path that is not allowed", "not_in_allowlist", incoming("GET", "/admin")),
        ("too large", "body_too_large", incoming("POST", "/", (b"Content-Length", b"1001"), body=b"{}")),
    ],
)
async def test_refused_by_its_head(way: Way, what: str, reason: str, flow: http.HTTPFlow) -> None:
    sent = await way.send(flow)
    assert not permitted(sent)
    assert told(sent)["reason"] == reason
    assert [d.decision for d in way.control.drafts] == ["deny"]


async def test_a_problem_that_the_engine_found(way: Way) -> None:
    flow = incoming()
    set_problem(flow, Problem("unreadable_request", "no request"))
    assert told(await way.send(flow))["reason"] == "unreadable_request"


async def test_agent_card(way: Way) -> None:
    flow = await way.send(incoming("GET", "/.well-known/agent-card.json"))
    assert permitted(flow)
    assert way.control.drafts[0].action_type == "http_request"
    assert way.control.inbound == []


async def test_websocket(way: Way) -> None:
    flow = await way.send(incoming("GET", "/.well-known/agent-card.json", *WEBSOCKET))
    assert permitted(flow)
    assert flow.request.headers["upgrade"] == "websocket"
    exchange = exchange_of(flow)
    assert exchange is not None
    assert exchange.upgrade is not None


async def test_nobody(way: Way) -> None:
    way.identify.known = False
    flow = await way.post(SEND)
    assert flow.error is not None
    assert way.control.drafts == way.control.inbound == []


async def test_what_goes_out_is_not_its_business(way: Way) -> None:
    flow = make_flow()
    assert way.ingress.requestheaders(flow) is None
    assert exchange_of(flow) is None


class TestAnswer:
    async def flow(self, way: Way) -> http.HTTPFlow:
        flow = await way.post(SEND)
        flow.response = http.Response.make(200, b"{}")
        await run(way.ingress.responseheaders(flow))
        return flow

    async def test_carries_evidence(self, way: Way) -> None:
        flow = await self.flow(way)
        assert flow.response is not None
        assert flow.response.headers["execution-context"] == "node.b"
        assert flow.response.headers["behavioral-evidence"] == "bet.b"

    async def test_without_evidence_there_is_none(self, way: Way) -> None:
        way.control.tokens = LictorError("full")
        flow = await self.flow(way)
        assert flow.error is not None
        assert flow.error.msg == mitm_flow.Error.KILLED_MESSAGE

    @pytest.mark.parametrize("how", ["response", "error"])
    async def test_ends_the_delegation(self, way: Way, how: str) -> None:
        flow = await self.flow(way)
        flow.error = mitm_flow.Error("gone")
        await run(getattr(way.ingress, how)(flow))
        assert way.control.finished == ["node-0"]


async def test_ends_before_it_was_judged(way: Way) -> None:
    flow = incoming("POST", "/", body=b"{")
    flow.client_conn.proxy_mode = ProxyMode.parse("reverse:http://127.0.0.1:9000")
    await run(way.ingress.requestheaders(flow))
    flow.error = mitm_flow.Error("client disconnected")
    await run(way.ingress.error(flow))
    assert [d.reason for d in way.control.drafts] == ["request_aborted"]
    assert way.control.finished == []


@pytest.mark.parametrize("who", [AGENT, PEER])
async def test_an_agent_in_quarantine_takes_no_work_and_hands_none_on(way: Way, who: str) -> None:
    way.policy = way.policy.with_quarantined({who})
    for flow in (await way.post(SEND), await way.send(incoming(path="/.well-known/agent-card.json"))):
        assert not permitted(flow)
        assert told(flow)["reason"] == "quarantined"
    assert [d.decision for d in way.control.drafts] == ["deny", "deny"]


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_delegation_may_be_held(way: Way, decision: str) -> None:
    binding = json.loads(json.dumps(way.policy.bindings[0].document))
    for behavior in binding["expected_behaviors"]:
        behavior |= {"on_violation": "hold", "compliance_criteria": {"type": "allowlist", "values": []}}
    way.policy = Policy([load_binding(json.dumps(binding).encode(), "test")], catalog_of(SETTINGS))
    said = Receipt(0, 1.0, decision, "approved" if decision == "allow" else "hold_denied", "w", "n", ("node.b",))
    way.control.answer = lambda draft: said  # type: ignore[method-assign]
    flow = await way.post(SEND)
    assert [(d.decision, d.reason) for d in way.control.inbound] == [("hold", "not_in_allowlist")]
    assert permitted(flow) is (decision == "allow")
    if decision == "deny":
        assert told(flow)["reason"] == "hold_denied"


CONTEXT = (b"Execution-Context", b"of.the.agent")
COVERED = (
    CONTEXT,
    (b"Signature-Input", b'sig=("@method" "execution-context")'),
    (b"Signature", b"sig=:YQ==:"),
)


async def test_what_was_delivered_stands_for_lines(way: Way) -> None:
    way.control.waiting = Tokens(("node.a",), ("bet.a",), ("note.a",))
    way.control.answer = lambda d: Receipt(0, 1.0, "allow", "allowed", "w", "n", ("node.b",))  # type: ignore[method-assign]
    flow = await way.post(SEND, *COVERED)
    assert permitted(flow)
    assert way.control.taken == [(PEER, request_digest(flow.request))]
    assert way.examined["execution_context"] == ["of.the.agent", "node.a"]
    assert way.examined["behavioral_evidence"] == ["bet.a"]
    assert way.examined["checkpoint"] == ["note.a"]
    assert way.examined["action_parameters"]["evidence_by"] == "delivery"
    assert flow.request.headers.get_all("execution-context") == ["of.the.agent"], "nothing is added to it here either"


async def test_where_nothing_was_delivered_nothing_is_said_of_it(way: Way) -> None:
    """A peer may sign lines of its own: they are examined, and did not come by delivery."""
    way.control.waiting = Tokens([], [], [])  # type: ignore[arg-type]  # as the channel brings it
    await way.post(SEND, *COVERED, (b"Behavioral-Evidence", b"bet.a"))
    assert way.examined["behavioral_evidence"] == ["bet.a"]
    assert "evidence_by" not in way.examined["action_parameters"]


async def test_nothing_is_taken_for_a_request_that_can_be_touched(way: Way) -> None:
    way.control.waiting = Tokens(("node.a",), ("bet.a",))
    await way.post(SEND, CONTEXT)
    assert way.control.taken == []
    assert way.examined["execution_context"] == ["of.the.agent"]
    assert "evidence_by" not in way.examined["action_parameters"]


async def test_a_doubtful_signature_is_not_let_in(way: Way) -> None:
    flow = await way.post(SEND, CONTEXT, *COVERED[2:])
    assert not permitted(flow)
    assert told(flow)["reason"] == "signature_doubtful"
    assert way.control.inbound == []
    assert [(d.agent_id, d.decision, d.reason) for d in way.control.drafts] == [(PEER, "deny", "signature_doubtful")]


async def test_what_cannot_be_looked_for_is_not_let_in(way: Way) -> None:
    way.control.waiting = LictorError("the control process is gone")
    flow = await way.post(SEND, *COVERED)
    assert not permitted(flow)
    assert told(flow)["reason"] == "monitor_error"


async def answered(way: Way, *lines: tuple[bytes, bytes], asked: tuple[tuple[bytes, bytes], ...] = ()) -> http.HTTPFlow:
    """A delegation that was let in and answered, up to its end."""
    way.control.answer = lambda d: Receipt(0, 1.0, "allow", "allowed", "w", "node-b", ("node.b",))  # type: ignore[method-assign]
    flow = await way.post(SEND, *asked)
    flow.response = http.Response.make(200, b"", http.Headers(lines))
    if not any(name == b"Content-Length" for name, _ in lines):
        flow.response.headers.pop("content-length", None)
    await run(way.ingress.responseheaders(flow))
    if not flow.error:
        await run(way.ingress.response(flow))
    return flow


TE = ((b"TE", b"trailers"),)
OURS_COVERED = (
    (b"Execution-Context", b"x"),
    (b"Signature-Input", b'sig=("execution-context")'),
    (b"Signature", b"sig=:YQ==:"),
)


async def test_the_end_of_a_stream_in_trailers(way: Way) -> None:
    flow = await answered(way, asked=TE)
    assert flow.response is not None
    assert flow.response.headers["transfer-encoding"] == "chunked"
    for fields in (flow.response.headers, flow.response.trailers):
        assert fields is not None
        assert fields["behavioral-evidence"] == "bet.b"
        assert fields["execution-context"] == "node.b"
    assert way.control.finished == ["node-b"]
    assert way.control.left == []


async def test_the_end_of_a_stream_left_to_be_fetched(way: Way) -> None:
    way.ingress._ingress = replace(SETTINGS, fetched=True)
    flow = await answered(way)
    assert flow.response is not None
    assert flow.response.headers["behavioral-evidence"] == "bet.b"
    assert not flow.response.trailers
    assert way.control.left == [("node-b", PEER, ())]
    assert way.control.finished == ["node-b"]


async def test_a_stream_where_nothing_can_be_fetched(way: Way) -> None:
    flow = await answered(way)
    assert flow.response is not None
    assert flow.response.headers["behavioral-evidence"] == "bet.b"
    assert (way.control.left, way.control.finished) == ([], ["node-b"])


async def test_an_answer_that_must_not_be_touched(way: Way) -> None:
    way.ingress._ingress = replace(SETTINGS, fetched=True)
    flow = await answered(way, (b"Content-Length", b"0"), *OURS_COVERED, asked=TE)
    assert flow.response is not None
    assert flow.response.headers.get_all("execution-context") == ["x"]
    assert "behavioral-evidence" not in flow.response.headers
    assert way.control.left == [("node-b", PEER, ())]


async def test_an_answer_that_must_not_be_touched_where_nothing_can_be_fetched(way: Way) -> None:
    """Without evidence nothing is answered."""
    flow = await answered(way, (b"Content-Length", b"0"), *OURS_COVERED)
    assert flow.error is not None
    assert flow.error.msg == mitm_flow.Error.KILLED_MESSAGE


async def test_a_stream_ends_although_there_is_no_evidence_about_its_end(way: Way) -> None:
    """It was begun with evidence, and the caller's monitor notes that none came at the end."""
    way.control.answer = lambda d: Receipt(0, 1.0, "allow", "allowed", "w", "node-b", ("node.b",))  # type: ignore[method-assign]
    flow = await way.post(SEND, *TE)
    flow.response = http.Response.make(200, b"", http.Headers())
    flow.response.headers.pop("content-length", None)
    await run(way.ingress.responseheaders(flow))
    way.control.tokens = LictorError("full")
    await run(way.ingress.response(flow))
    assert flow.error is None
    assert not flow.response.trailers
    assert way.control.finished == ["node-b"]
