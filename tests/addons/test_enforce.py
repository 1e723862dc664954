"""Judge, record, then permit: what each hook does with the values of a request, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from flows import FakeControl, make_flow, nothing_open, run
from mitmproxy import flow as mitm_flow
from mitmproxy import http

from lictor.addons.drafting import drop_hop_by_hop, method_text
from lictor.addons.enforce import Enforce, Settings
from lictor.addons.exchange import exchange_of, permitted
from lictor.addons.guard import Guard
from lictor.addons.places import Places
from lictor.addons.settling import whole_or_nothing
from lictor.addons.tool_watch import ToolWatch
from lictor.addons.ways import request_digest
from lictor.bindings.catalog import Catalog, Target
from lictor.bindings.facts import Classified
from lictor.bindings.model import ActionType, Decision, Verdict
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.engine.problem import Problem, set_problem
from lictor.evidence.entry import Receipt
from lictor.formats.errors import LictorError, VerificationError

AGENT = "spiffe://test.internal/agent/a"
TUNNEL = ("api.example", 443)
MCP = "urn:test:tool:mcp"
AGENT_B = "urn:test:agent:b"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add"}}
FORBIDDEN = {**CALL, "id": 2, "params": {"name": "drop"}}
SEND = {"jsonrpc": "2.0", "id": 3, "method": "SendMessage", "params": {"message": {}}}


def policy(tools: str = "deny") -> Policy:
    allow = {
        "tool_call": [MCP, f"{MCP}#tools/add"],
        "http_request": ["https://api.example/open/**", "http://api.example/open/**"],
        "delegation": [AGENT_B],
    }
    binding = {
        "policy_id": "urn:test:policy",
        "version": "1.0.0",
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {
                "behavior_id": type_,
                "observable_actions": [type_],
                "compliance_criteria": {"type": "allowlist", "values": values},
                "on_violation": tools if type_ == "tool_call" else "deny",
            }
            for type_, values in allow.items()
        ],
    }
    catalog = Catalog(
        [
            Target(MCP, "tool", ("https://api.example/mcp",), "mcp"),
            Target(AGENT_B, "agent", ("https://api.example/b/**",), "a2a", "spiffe://test.internal/agent/b"),
        ]
    )
    return Policy([load_binding(json.dumps(binding).encode(), "test")], catalog)


class Anybody:
    """Stands for `Identify`."""

    def __init__(self) -> None:
        self.error: VerificationError | None = None

    def peer(self, client: Any) -> Any:
        if self.error is not None:
            raise self.error
        return type("Peer", (), {"spiffe_id": AGENT})


class Way:
    """The addon with what is round it, and a flow through its hooks."""

    def __init__(self, control: FakeControl) -> None:
        self.control, self.identify, made = control, Anybody(), policy()
        self.policy, self.guard = made, Guard()
        self.names = {"api.example": ["1.1.1.1"], "evil.example": ["1.1.1.1"]}
        self.resolved: list[str] = []
        self.places = Places(lambda: made.catalog, frozenset(), self.resolve, 20)
        settings = Settings("spiffe://test.internal/monitor/m", 1000, b"salt")
        self.enforce = Enforce(
            settings,
            lambda: self.policy,
            self.identify,  # type: ignore[arg-type]
            self.guard,
            control,
            nothing_open(),
            self.places,
            lambda: ToolWatch({}, {}, lambda urn, tools: None),
        )

    async def resolve(self, host: str) -> list[str]:
        self.resolved.append(host)
        return self.names.get(host, [])

    async def tunnel(self, flow: http.HTTPFlow, authority: tuple[str, int] = TUNNEL) -> None:
        """As CONNECT leaves it behind."""
        self.places.client_connected(flow.client_conn)
        await self.places.find(flow.client_conn, AGENT, authority)
        self.guard.open_tunnel(flow.client_conn, authority)

    async def send(self, flow: http.HTTPFlow, tunnel: tuple[str, int] | None = TUNNEL) -> http.HTTPFlow:
        self.places.client_connected(flow.client_conn)
        if tunnel is not None:
            await self.tunnel(flow, tunnel)
        await run(self.enforce.requestheaders(flow))
        if flow.response is None and not flow.error:
            await run(self.enforce.request(flow))
        return flow

    async def post(self, path: str, value: Any, *headers: tuple[bytes, bytes]) -> http.HTTPFlow:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return await self.send(make_flow("POST", path, (b"Content-Type", b"application/json"), *headers, body=body))


@pytest.fixture
def way(control: FakeControl) -> Way:
    return Way(control)


def told(flow: http.HTTPFlow) -> Any:
    assert flow.response is not None
    return json.loads(flow.response.content or b"")


async def test_allowed_is_permitted_after_its_receipt(way: Way) -> None:
    flow = await way.send(make_flow())
    assert permitted(flow)
    (draft,) = way.control.drafts
    assert (draft.agent_id, draft.decision, draft.action_type) == (AGENT, "allow", "http_request")
    assert draft.action_target == "https://api.example/open/x"


async def test_no_permit_before_the_receipt(way: Way) -> None:
    """The invariant of the whole monitor: while the entry is not durable nothing may leave."""
    given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting: list[Any] = []

    def later(draft: Any, then: Any, held: Any = None) -> asyncio.Future[None]:
        waiting.append((draft, then))
        return given

    way.control.record_action = later  # type: ignore[method-assign]
    flow = make_flow()
    await way.tunnel(flow)
    hooked = way.enforce.requestheaders(flow)
    assert hooked is given, "the engine waits for it"
    assert not permitted(flow)
    ((draft, then),) = waiting
    then(Receipt(0, 1.0, draft.decision, draft.reason, "w", "n"))
    assert permitted(flow)


@pytest.mark.parametrize("seen", ["error", "deny"])
async def test_the_receipt_has_the_last_word(way: Way, seen: str) -> None:
    answer = (
        LictorError("the disk is full")
        if seen == "error"
        else Receipt(0, 1.0, "deny", "rate_exceeded", "w", "n", detail="Wait a minute.")
    )
    way.control.answer = lambda draft: answer  # type: ignore[method-assign]
    flow = await way.send(make_flow())
    assert not permitted(flow)
    assert told(flow)["reason"] == ("monitor_error" if seen == "error" else "rate_exceeded")


async def test_denied(way: Way) -> None:
    flow = await way.send(make_flow(path="/closed"))
    assert not permitted(flow)
    assert (told(flow)["reason"], told(flow)["behavior_id"]) == ("not_in_allowlist", "http_request")
    assert flow.response is not None
    assert flow.response.headers["behavioral-evidence"] == "bet.a"


@pytest.mark.parametrize(
    ("what", "reason", "flow", "tunnel"),
    [
        ("other tunnel", "name_mismatch", {}, ("evil.example", 443)),
        ("no tunnel", "unsupported_scheme", {}, None),
        ("WebSocket", "upgrade_refused", {"headers": [(b"Upgrade", b"WebSocket")]}, TUNNEL),
        ("dot segment", "doubtful_name", {"path": "/open/../x"}, TUNNEL),
        ("not UTF-8", "doubtful_name", {"path": "/open/\udcff"}, TUNNEL),
        ("asterisk", "doubtful_name", {"method": "OPTIONS", "path": "*"}, TUNNEL),
        ("bad method", "bad_method", {"method": "G\udcffT"}, TUNNEL),
        ("bad query", "doubtful_name", {"path": "/open/x?a b"}, TUNNEL),
        ("bad evidence", "doubtful_header", {"headers": [(b"Execution-Context", b"\xff")]}, TUNNEL),
    ],
)
async def test_what_is_no_action_is_an_entry_too(way: Way, what: str, reason: str, flow: Any, tunnel: Any) -> None:
    made = make_flow(flow.pop("method", "GET"), flow.pop("path", "/open/x"), *flow.pop("headers", ()), **flow)
    sent = await way.send(made, tunnel)
    assert not permitted(sent)
    assert told(sent)["reason"] == reason
    (draft,) = way.control.drafts
    assert (draft.decision, draft.reason) == ("deny", reason)
    json.dumps([draft.action_target, dict(draft.action_parameters), draft.execution_context]).encode("ascii")


async def test_a_problem_that_the_engine_found(way: Way) -> None:
    flow = make_flow(host="", port=0, scheme="", host_header=None)
    set_problem(flow, Problem("unreadable_request", "no request"))
    sent = await way.send(flow, None)
    assert told(sent)["reason"] == "unreadable_request"
    assert way.control.drafts[0].action_target == "http://invalid/"


async def test_no_identity_no_entry_no_answer(way: Way) -> None:
    way.identify.error = VerificationError("revoked")
    flow = await way.send(make_flow())
    assert flow.error is not None
    assert flow.error.msg == mitm_flow.Error.KILLED_MESSAGE
    assert not permitted(flow)
    assert way.control.drafts == []


class TestConnect:
    def flow(self, authority: str) -> http.HTTPFlow:
        host, _, port = authority.rpartition(":")
        return make_flow("CONNECT", "", host=host, port=int(port), scheme="", authority=authority)

    async def test_opens_a_tunnel(self, way: Way) -> None:
        flow = self.flow("API.example:443")
        way.places.client_connected(flow.client_conn)
        await run(way.enforce.http_connect(flow))
        assert flow.response is None
        assert way.guard.tunnel(flow.client_conn) == TUNNEL
        assert way.control.drafts == [], "what is done in it are the actions"

    @pytest.mark.parametrize(
        ("authority", "reason"), [("evil.example:443", "not_in_allowlist"), ("0x7f.1:443", "doubtful_name")]
    )
    async def test_refused(self, way: Way, authority: str, reason: str) -> None:
        flow = self.flow(authority)
        await run(way.enforce.http_connect(flow))
        assert told(flow)["reason"] == reason
        assert way.guard.tunnel(flow.client_conn) is None
        assert [d.decision for d in way.control.drafts] == ["deny"]

    async def test_in_a_tunnel(self, way: Way) -> None:
        flow = self.flow("api.example:443")
        await way.tunnel(flow)
        await run(way.enforce.http_connect(flow))
        assert told(flow)["reason"] == "name_mismatch"


class TestNames:
    """A name is resolved once it was judged and before the entry; one that is denied is not resolved at all."""

    @pytest.mark.parametrize("how", ["CONNECT", "path", "plain http", "batch", "no agent"])
    async def test_of_what_is_denied_never_leave(self, way: Way, how: str) -> None:
        evil = make_flow(host="evil.example", scheme="http", port=80)
        if how == "CONNECT":
            await run(way.enforce.http_connect(TestConnect().flow("evil.example:443")))
        elif how == "path":
            await way.send(make_flow(scheme="http", port=80, path="/closed"), None)
        elif how == "plain http":
            await way.send(evil, None)
        elif how == "batch":
            way.names["other.example"] = ["1.1.1.1"]
            body = json.dumps([CALL, FORBIDDEN]).encode()
            await way.send(make_flow("POST", "/mcp", host="other.example", scheme="http", port=80, body=body), None)
        else:
            way.identify.error = VerificationError("revoked")
            await way.send(make_flow(scheme="http", port=80), None)
        assert way.resolved == []
        assert [d.decision for d in way.control.drafts] == ([] if how == "no agent" else ["deny"])

    async def test_are_resolved_once_a_connection(self, way: Way) -> None:
        first = make_flow(scheme="http", port=80)
        await way.send(first, None)
        for _ in range(3):
            flow = make_flow(scheme="http", port=80)
            flow.client_conn = first.client_conn
            hooked = way.enforce.requestheaders(flow)
            assert isinstance(hooked, asyncio.Future), "no task for a name that is known"
            await hooked
            assert permitted(flow)
        assert way.resolved == ["api.example"]

    @pytest.mark.parametrize(
        ("what", "addresses", "reason", "status", "more"),
        [
            ("metadata", ["169.254.169.254"], "address_refused", 403, {"address": "169.254.169.254"}),
            ("one of two", ["1.1.1.1", "224.0.0.1"], "address_refused", 403, {"address": "224.0.0.1"}),
            ("nowhere", [], "name_not_resolved", 502, {}),
        ],
    )
    @pytest.mark.parametrize("how", ["CONNECT", "plain http", "body"])
    async def test_that_lead_nowhere_are_refused_before_the_entry(
        self, way: Way, what: str, addresses: list[str], reason: str, status: int, more: Any, how: str
    ) -> None:
        way.names["api.example"] = addresses
        flow = make_flow(scheme="http", port=80)
        if how == "CONNECT":
            flow = TestConnect().flow("api.example:443")
            way.places.client_connected(flow.client_conn)
            await run(way.enforce.http_connect(flow))
            assert way.guard.tunnel(flow.client_conn) is None
        else:
            if how == "body":
                made = Policy(way.policy.bindings, Catalog([Target(MCP, "tool", ("http://api.example/mcp",), "mcp")]))
                way.policy = made
                flow = make_flow("POST", "/mcp", scheme="http", port=80, body=json.dumps(CALL).encode())
            await way.send(flow, None)
        assert not permitted(flow)
        answer = told(flow)
        assert (answer["error"]["data"] if how == "body" else answer)["reason"] == reason
        assert flow.response is not None
        assert flow.response.status_code == status
        assert not any(address in flow.response.text for address in addresses), "the agent is not told"  # type: ignore[operator]
        (draft,) = way.control.drafts
        assert (draft.decision, draft.reason) == ("deny", reason)
        assert more.items() <= dict(draft.action_parameters).items()

    async def test_judged_by_the_policy_that_is_in_force_once_they_are_resolved(self, way: Way) -> None:
        class Reloads:
            async def __call__(self, host: str) -> list[str]:
                way.policy = Policy([], way.policy.catalog)
                return ["1.1.1.1"]

        way.resolve = Reloads()  # type: ignore[method-assign]
        way.places._lookup = way.resolve
        flow = await way.send(make_flow(scheme="http", port=80), None)
        assert not permitted(flow)
        assert [(d.decision, d.reason) for d in way.control.drafts] == [("deny", "default_deny")]


class TestBodies:
    async def test_nothing_is_judged_before_the_body(self, way: Way) -> None:
        flow = make_flow("POST", "/mcp", body=json.dumps(CALL).encode())
        await way.tunnel(flow)
        assert way.enforce.requestheaders(flow) is None
        assert not permitted(flow)
        assert way.control.drafts == []
        await run(way.enforce.request(flow))
        assert permitted(flow)
        (draft,) = way.control.drafts
        assert draft.action_target == f"{MCP}#tools/add"
        assert draft.action_parameters["request_bytes"] == len(json.dumps(CALL))
        assert draft.action_parameters["request_digest"].startswith("hmac-sha-256:")

    @pytest.mark.parametrize(
        ("body", "reason"), [(b"", "unparsable_body"), (b"{", "unparsable_body"), (b"[]", "bad_batch")]
    )
    async def test_unparsable(self, way: Way, body: bytes, reason: str) -> None:
        assert told(await way.post("/mcp", body))["reason"] == reason

    async def test_announced_too_large(self, way: Way) -> None:
        flow = await way.send(make_flow("POST", "/mcp", (b"Content-Length", b"1001"), body=b"x"))
        assert (flow.response.status_code if flow.response else 0, told(flow)["reason"]) == (413, "body_too_large")

    async def test_ends_before_it_was_judged(self, way: Way) -> None:
        flow = make_flow("POST", "/mcp", body=b"{")
        await way.tunnel(flow)
        await run(way.enforce.requestheaders(flow))
        flow.error = mitm_flow.Error("client disconnected")
        await run(way.enforce.error(flow))
        assert [(d.decision, d.reason) for d in way.control.drafts] == [("deny", "request_aborted")]

    async def test_refusal_has_the_callers_id(self, way: Way) -> None:
        flow = await way.post("/mcp", FORBIDDEN)
        assert (told(flow)["id"], told(flow)["error"]["data"]["reason"]) == (2, "not_in_allowlist")


class TestHeld:
    """The worker's verdict is to hold; the receipt says what became of it."""

    @pytest.fixture
    def decide(self, way: Way) -> Callable[[str], None]:
        def decide(decision: str) -> None:
            way.policy = policy("hold")

            def answer(draft: Any) -> Receipt:
                held = draft.decision == "hold"
                reason = {"allow": "approved", "deny": "hold_denied"}[decision] if held else draft.reason
                seq = len(way.control.drafts) - 1
                return Receipt(seq, 1.0, decision if held else draft.decision, reason, "w", "n", detail="not today")

            way.control.answer = answer  # type: ignore[method-assign]

        return decide

    async def test_approved(self, way: Way, decide: Callable[[str], None]) -> None:
        decide("allow")
        assert permitted(await way.post("/mcp", FORBIDDEN))
        assert [(d.decision, d.reason) for d in way.control.drafts] == [("hold", "not_in_allowlist")]

    async def test_denied(self, way: Way, decide: Callable[[str], None]) -> None:
        decide("deny")
        flow = await way.post("/mcp", FORBIDDEN)
        assert not permitted(flow)
        [said] = [told(flow)] if isinstance(told(flow), dict) else told(flow)
        data = said["error"]["data"]
        assert (data["reason"], data["detail"], data["behavior_id"]) == ("hold_denied", "not today", "tool_call")

    @pytest.mark.parametrize("decision", ["allow", "deny"])
    async def test_a_batch_waits_for_all_of_its_members(
        self, way: Way, decide: Callable[[str], None], decision: str
    ) -> None:
        decide(decision)
        flow = await way.post("/mcp", [CALL, FORBIDDEN])
        assert [d.decision for d in way.control.drafts] == ["allow", "hold"]
        assert permitted(flow) is (decision == "allow")
        errors = [(draft.outcome_of, draft.outcome["error"]) for draft in way.control.outcomes]
        assert errors == ([] if decision == "allow" else [(0, "batch_member_denied")])

    async def test_what_would_be_denied_in_a_batch_is_not_held(self, way: Way) -> None:
        way.policy = policy("hold").with_quarantined({AGENT})
        await way.post("/mcp", [CALL, FORBIDDEN])
        assert [(d.decision, d.reason) for d in way.control.drafts] == [("deny", "quarantined")] * 2


class TestBatches:
    async def test_one_denied_member_denies_all(self, way: Way) -> None:
        flow = await way.post("/mcp", [CALL, FORBIDDEN])
        assert not permitted(flow)
        assert [d.decision for d in way.control.drafts] == ["deny", "deny"]
        assert [d.reason for d in way.control.drafts] == ["batch_member_denied", "not_in_allowlist"]
        assert [m["id"] for m in told(flow)] == [1, 2]
        assert {m["error"]["data"]["action_target"] for m in told(flow)} == {f"{MCP}#tools/drop"}

    async def test_all_allowed(self, way: Way) -> None:
        flow = await way.post("/mcp", [CALL, {**CALL, "id": 9}])
        assert permitted(flow)
        exchange = exchange_of(flow)
        assert exchange is not None
        assert [r.seq for r in exchange.receipts] == [0, 1]

    async def test_receipts_in_any_order(self, way: Way) -> None:
        """Each belongs to its own member, however late it comes."""
        waiting: list[tuple[Any, Any, asyncio.Future[None]]] = []

        def later(draft: Any, then: Any, held: Any = None) -> asyncio.Future[None]:
            waiting.append((draft, then, asyncio.get_running_loop().create_future()))
            return waiting[-1][2]

        way.control.record_action = later  # type: ignore[method-assign]
        flow = make_flow("POST", "/mcp", body=json.dumps([CALL, {**CALL, "id": 9}]).encode())
        await way.tunnel(flow)
        await run(way.enforce.requestheaders(flow))
        task = asyncio.ensure_future(way.enforce.request(flow))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        for seq, (draft, then, future) in reversed(list(enumerate(waiting))):
            assert not permitted(flow)
            then(Receipt(seq, 1.0, draft.decision, draft.reason, "w", "n"))
            future.set_result(None)
        await task
        exchange = exchange_of(flow)
        assert exchange is not None
        assert [r.seq for r in exchange.receipts] == [0, 1]
        assert permitted(flow)

    async def test_one_that_a_memory_denies_denies_all(self, way: Way) -> None:
        blamed = {"policy_id": "urn:p", "version": "1.0.0", "binding": "d", "behavior_id": "rate", "result": "fail"}
        denied = Receipt(1, 1.0, "deny", "rate_exceeded", "w", "n", (), ("bet.a",), "try again in 9 s.", blamed)
        answers = iter([Receipt(0, 1.0, "allow", "allowed", "w", "n"), denied])
        way.control.answer = lambda draft: next(answers)  # type: ignore[method-assign]
        flow = await way.post("/mcp", [CALL, {**CALL, "id": 9}])
        assert not permitted(flow)
        data = told(flow)[0]["error"]["data"]
        assert (data["reason"], data["behavior_id"], data["entry"]) == ("rate_exceeded", "rate", 1)
        assert data["detail"] == "try again in 9 s."
        assert [o.outcome_of for o in way.control.outcomes] == [0], "the one that was let out went nowhere"

    async def test_one_that_could_not_be_recorded_denies_all(self, way: Way) -> None:
        answers = iter([Receipt(0, 1.0, "allow", "allowed", "w", "n"), LictorError("no")])
        way.control.answer = lambda draft: next(answers)  # type: ignore[method-assign]
        flow = await way.post("/mcp", [CALL, {**CALL, "id": 9}])
        assert not permitted(flow)
        assert flow.response is not None
        assert flow.response.status_code == 503
        assert [o.outcome_of for o in way.control.outcomes] == [0], "the one that was let out went nowhere"


class TestDelegation:
    async def test_evidence_goes_along(self, way: Way) -> None:
        flow = await way.post("/b/", SEND, (b"Execution-Context", b"own.line"))
        assert permitted(flow)
        assert flow.request.headers.get_all("execution-context") == ["own.line", "node.a"]
        assert flow.request.headers.get_all("behavioral-evidence") == ["bet.a"]
        (draft,) = way.control.drafts
        assert draft.audience == ("spiffe://test.internal/agent/b",)
        assert draft.execution_context == ("own.line",)
        assert draft.action_parameters["request_digest"].startswith("sha-256:"), "both ends must get the same"

    async def test_only_so_many_tokens_are_looked_at(self, way: Way) -> None:
        """Else one request could keep the control process busy; what is sent on stays as it came."""
        lines = b", ".join(b"a%d.b.c" % n for n in range(5000))
        flow = await way.post("/b/", SEND, (b"Execution-Context", lines), (b"Execution-Context", b"last.of.all"))
        assert flow.request.headers.get_all("execution-context")[0] == lines.decode()
        named = way.control.drafts[0].execution_context
        assert (len(named), named[0], named[-1]) == (64, "a4937.b.c", "last.of.all")

    async def test_nothing_else_gets_evidence(self, way: Way) -> None:
        flow = await way.send(make_flow())
        assert "execution-context" not in flow.request.headers


async def test_a_query_is_in_the_log_as_a_digest(way: Way) -> None:
    await way.send(make_flow(path="/open/x?token=secret"))
    (draft,) = way.control.drafts
    assert draft.action_target == "https://api.example/open/x"
    assert draft.action_parameters["query_digest"].startswith("hmac-sha-256:")
    assert "secret" not in repr(draft)


def test_hop_by_hop() -> None:
    headers = http.Headers(proxy_authorization="x", Proxy_Connection="y", upgrade="h2c", accept="*/*")
    drop_hop_by_hop(headers)
    assert list(headers) == ["accept"]


def test_method_text() -> None:
    assert method_text(make_flow("G\udcffT").request) == "G\\xffT"


def test_whole_or_nothing_leaves_single_actions_alone() -> None:
    action = Classified(ActionType.TOOL_CALL, MCP)
    for verdict in (Verdict.ALLOW, Verdict.DENY):
        judged = [(action, Decision(verdict, "reason"))]
        assert whole_or_nothing(judged) == judged


CONTEXT = (b"Execution-Context", b"of.the.agent")
COVERED = (
    CONTEXT,
    (b"Signature-Input", b'sig=("@method" "execution-context")'),
    (b"Signature", b"sig=:YQ==:"),
)


def with_evidence_at(way: Way, **more: Any) -> None:
    """The catalog says where the monitor of agent B takes evidence."""
    target = Target(
        AGENT_B, "agent", ("https://api.example/b/**",), "a2a", "spiffe://test.internal/agent/b",
        evidence="https://b.example:1", monitor="spiffe://test.internal/monitor/b",
    )  # fmt: skip
    way.policy = Policy(way.policy.bindings, Catalog([target]))


async def test_a_delegation_says_that_trailers_are_taken(way: Way) -> None:
    flow = await way.post("/b/x", SEND)
    assert flow.request.headers["te"] == "trailers"
    assert flow.request.headers.get_all("execution-context") == ["node.a"]


async def test_a_request_that_must_not_be_touched_is_not(way: Way) -> None:
    with_evidence_at(way)
    flow = await way.post("/b/x", SEND, *COVERED)
    assert permitted(flow)
    assert [name for name, _ in flow.request.headers.fields] == [
        b"Host", b"Content-Type", b"Execution-Context", b"Signature-Input", b"Signature",
    ]  # fmt: skip
    [(urn, request, tokens)] = way.control.delivered
    assert (urn, request) == (AGENT_B, request_digest(flow.request))
    assert (tokens.execution_context, tokens.behavioral_evidence) == (("node.a",), ("bet.a",))
    assert way.control.drafts[0].action_parameters["evidence_by"] == "delivery"


async def test_no_permit_before_its_evidence_is_delivered(way: Way) -> None:
    with_evidence_at(way)
    given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked: list[Any] = []

    def later(agent_id: str, urn: str, request: str, tokens: Any, then: Any) -> asyncio.Future[None]:
        asked.append(then)
        return given

    way.control.deliver = later  # type: ignore[method-assign]
    flow = make_flow("POST", "/b/x", (b"Content-Type", b"application/json"), *COVERED, body=json.dumps(SEND).encode())
    task = asyncio.create_task(way.send(flow))
    while not asked:
        await asyncio.sleep(0)
    assert not permitted(flow)
    asked[0]("")
    given.set_result(None)
    await task
    assert permitted(flow)


@pytest.mark.parametrize("problem", ["its monitor cannot be reached", LictorError("the control process is gone")])
async def test_what_cannot_be_delivered_is_not_sent(way: Way, problem: Any) -> None:
    with_evidence_at(way)
    way.control.problem = problem
    flow = await way.post("/b/x", SEND, *COVERED)
    assert not permitted(flow)
    assert told(flow)["error"]["data"]["reason"] == "evidence_not_delivered"
    [outcome] = way.control.outcomes
    assert (outcome.outcome["status"], outcome.outcome["error"]) == (0, f"evidence_not_delivered: {problem}")


@pytest.mark.parametrize("decision", ["deny", "hold"])
async def test_what_is_denied_in_the_end_has_nothing_delivered(way: Way, decision: str) -> None:
    with_evidence_at(way)
    way.control.answer = lambda d: Receipt(0, 1.0, decision, "no", "w", "n")  # type: ignore[method-assign]
    assert not permitted(await way.post("/b/x", SEND, *COVERED))
    assert way.control.delivered == []


@pytest.mark.parametrize(
    ("headers", "reason"),
    [(COVERED, "evidence_not_deliverable"), ((CONTEXT, *COVERED[2:]), "signature_doubtful")],
)
async def test_a_signature_that_leaves_no_way(way: Way, headers: Any, reason: str) -> None:
    flow = await way.post("/b/x", SEND, *headers)
    assert not permitted(flow)
    assert told(flow)["error"]["data"]["reason"] == reason
    assert [(d.action_type, d.decision, d.reason) for d in way.control.drafts] == [("delegation", "deny", reason)]
    assert way.control.delivered == []


async def test_what_is_no_delegation_may_be_signed_as_it_likes(way: Way) -> None:
    flow = await way.send(make_flow("GET", "/open/x", CONTEXT, *COVERED[2:]))
    assert permitted(flow)
    assert "te" not in flow.request.headers


async def test_a_signed_delegation_is_read_before_it_is_judged(way: Way) -> None:
    """By GET too, since what it is known by has its body in it."""
    with_evidence_at(way)
    flow = make_flow("GET", "/b/message:send", *COVERED, body=b"body")
    await way.tunnel(flow)
    assert way.enforce.requestheaders(flow) is None
    assert way.control.drafts == []
    await run(way.enforce.request(flow))
    assert permitted(flow)
    assert way.control.delivered[0][1] == request_digest(flow.request)
