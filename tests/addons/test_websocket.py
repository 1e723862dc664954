"""Each message is judged and recorded before it passes; the first that is denied ends the connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from flows import FakeControl, make_flow, run
from mitmproxy import flow as mitm_flow
from mitmproxy import http
from mitmproxy.websocket import WebSocketData

from lictor.addons.exchange import Exchange, attach
from lictor.addons.identify import Identify
from lictor.addons.open_exchanges import OpenExchanges
from lictor.addons.outcome import Outcome
from lictor.addons.upgrade import Upgrade
from lictor.addons.websocket import NOT_PASSED_ON, WebSocket
from lictor.bindings.catalog import Catalog
from lictor.bindings.facts import Classified
from lictor.bindings.model import ActionType
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding
from lictor.engine.problem import Problem
from lictor.engine.websocket_layer import Batch, Message
from lictor.evidence.entry import Receipt
from lictor.formats.errors import LictorError, VerificationError

AGENT = "spiffe://x.test/agent/a"
URL = "https://api.example/chat"


def policy(*behaviors: dict[str, Any]) -> Policy:
    document = {
        "policy_id": "urn:test:policy",
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {"behavior_id": f"b{i}", "observable_actions": ["websocket_message"], **behavior}
            for i, behavior in enumerate(behaviors)
        ],
    }
    return Policy([load_binding(json.dumps(document).encode(), "test")], Catalog(()))


ALL = policy({"compliance_criteria": {"type": "allowlist", "values": [URL]}})
NO_SECRETS = policy(
    {"compliance_criteria": {"type": "allowlist", "values": [URL]}},
    {"compliance_criteria": {"type": "pattern", "forbidden": {"": "secret"}}},
)


class Known:
    """An `Identify` that knows everybody, until it does not."""

    revoked = False

    def peer(self, client: object) -> None:
        if self.revoked:
            raise VerificationError("revoked")


class Socket:
    """One open WebSocket of an agent."""

    def __init__(self, control: FakeControl, rules: Policy = ALL) -> None:
        self.control, self.known, self.cut = control, Known(), list[Any]()
        self.open = OpenExchanges(lambda: rules, self.cut.append, control.withdraw)
        identify: Identify = self.known  # type: ignore[assignment]
        self.outcome = Outcome(control, self.open)
        self.addon = WebSocket(lambda: rules, identify, control, self.outcome, self.open)
        self.flow = make_flow("GET", "/chat")
        self.exchange = Exchange(AGENT, False, "https", "api.example", 443, "/chat", "", salt=b"salt")
        self.exchange.upgrade = Upgrade("key", ())
        self.exchange.classified = (Classified(ActionType.HTTP_REQUEST, URL),)
        self.exchange.receipts = (Receipt(70, 1.0, "allow", "allowed", "w", "n"),)
        self.exchange.permit = ("https", "api.example", 443)
        attach(self.flow, self.exchange)

    async def say(self, *messages: Message) -> Batch:
        """What the layer does: ask, pass on up to the first that does not pass, and say so."""
        batch = Batch(None, self.flow, list(messages))  # type: ignore[arg-type]
        await run(self.addon.websocket_messages(batch))
        for message in messages:
            if not message.passes:
                break
            message.sent = True
        batch.done()
        return batch

    def outcomes(self) -> list[tuple[int, bool, Any]]:
        return [(o.outcome_of, o.outcome["complete"], o.outcome.get("error")) for o in self.control.outcomes]

    def end(self, by_client: bool | None, code: int) -> dict[str, Any]:
        self.flow.websocket = WebSocketData(closed_by_client=by_client, close_code=code)
        self.addon.websocket_end(self.flow)
        found: dict[str, Any] = self.control.outcomes[-1].outcome
        return found


def text(content: str, outgoing: bool = True) -> Message:
    return Message(outgoing, "text", content.encode())


async def test_what_is_recorded_of_a_message(control: FakeControl) -> None:
    socket = Socket(control)
    await socket.say(text("hello"), Message(False, "binary", b"\x00\xff"))
    out, back = control.drafts
    assert (out.agent_id, out.action_type, out.action_target, out.decision) == (
        AGENT,
        "websocket_message",
        URL,
        "allow",
    )
    assert {k: v for k, v in out.action_parameters.items() if k != "digest"} == {
        "direction": "out",
        "opcode": "text",
        "bytes": 5,
        "upgrade": 70,
    }
    assert (back.action_parameters["direction"], back.action_parameters["opcode"]) == ("in", "binary")
    assert out.action_parameters["digest"].startswith("hmac-sha-256:")
    assert "hello" not in repr(control.drafts)
    assert [(o.outcome["request_bytes"], o.outcome["response_bytes"]) for o in control.outcomes] == [(5, 0), (0, 2)]


async def test_a_workflow_is_that_of_the_upgrade(control: FakeControl) -> None:
    socket = Socket(control)
    socket.flow.request.headers["Execution-Context"] = "a.b.c"
    socket.flow.request.headers["traceparent"] = "00-1-2-01"
    await socket.say(text("hello"))
    assert (control.drafts[0].execution_context, control.drafts[0].traceparent) == (("a.b.c",), "00-1-2-01")


async def test_nothing_passes_before_all_receipts_are_in(control: FakeControl, monkeypatch: Any) -> None:
    socket, waiting = Socket(control), []

    def record(draft: Any, then: Any, held: Any = None) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append((draft, then, future))
        return future

    monkeypatch.setattr(control, "record_action", record)
    messages = [text("one"), text("two")]
    asking = asyncio.ensure_future(socket.say(*messages))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(waiting) == 2, "they are recorded together"
    assert not any(m.passes for m in messages)
    for number, (_, then, future) in enumerate(waiting):
        assert not any(m.passes for m in messages)
        then(Receipt(number, 1.0, "allow", "allowed", "w", "n"))
        future.set_result(None)
    await asking
    assert all(m.passes for m in messages)


async def test_the_first_denied_message_is_the_last(control: FakeControl) -> None:
    """What comes after it is not judged, since it does not exist any more."""
    socket = Socket(control, NO_SECRETS)
    messages = [text("one"), text("a secret", outgoing=False), text("three")]
    batch = await socket.say(*messages)
    assert [m.passes for m in messages] == [True, False, False]
    assert [(d.decision, d.reason) for d in control.drafts] == [("allow", "allowed"), ("deny", "forbidden_pattern")]
    assert (batch.refusal, batch.code) == ("lictor refused (forbidden_pattern, entry 1)", 1008)
    assert socket.outcomes() == [(0, True, None)]
    ended = socket.end(None, 1008)
    assert (ended["complete"], ended["error"], ended["closed_by"]) == (False, "forbidden_pattern", "monitor")
    assert (ended["messages_out"], ended["messages_in"]) == (1, 0)


async def test_denied_by_the_control_process(control: FakeControl, monkeypatch: Any) -> None:
    """Those after it were recorded as let out, and their outcome says that they were not passed on."""
    socket = Socket(control)
    first = control.answer

    def answer(draft: Any) -> Any:
        receipt = first(draft)
        assert isinstance(receipt, Receipt)
        return Receipt(1, 1.0, "deny", "rate_exceeded", "w", "n") if receipt.seq == 1 else receipt

    monkeypatch.setattr(control, "answer", answer)
    messages = [text("one"), text("two"), text("three")]
    batch = await socket.say(*messages)
    assert [m.passes for m in messages] == [True, False, False]
    assert socket.outcomes() == [(0, True, None), (2, False, NOT_PASSED_ON)]
    assert batch.refusal == "lictor refused (rate_exceeded, entry 1)"


async def test_a_denial_here_is_not_undone_by_a_receipt(control: FakeControl, monkeypatch: Any) -> None:
    socket = Socket(control, NO_SECRETS)
    monkeypatch.setattr(control, "answer", lambda draft: Receipt(0, 1.0, "allow", "allowed", "w", "n"))
    message = text("secret")
    await socket.say(message)
    assert not message.passes


async def test_not_recorded_not_passed_on(control: FakeControl, monkeypatch: Any) -> None:
    socket = Socket(control)
    monkeypatch.setattr(control, "answer", lambda draft: LictorError("no answer"))
    message = text("one")
    batch = await socket.say(message)
    assert (message.passes, batch.refusal, batch.code) == (False, "lictor refused (monitor_error)", 1013)
    assert control.outcomes == []


@pytest.mark.parametrize(
    ("said", "denied"),
    [
        ("no JSON, a secret", True),
        ('{"a": ["secret"]}', True),
        ('{"a": "\\u0073ecret"}', True),
        ('{"a": 1, "a": "\\u0073ecret"}', True),  # not read alike by all
        ('\ufeff [NaN, "\\u0073ecret"]', True),
        ("hello {there}", False),
        ('{"a": "open"}', False),
    ],
)
async def test_criteria_see_text_and_json(control: FakeControl, said: str, denied: bool) -> None:
    message = text(said)
    await Socket(control, NO_SECRETS).say(message)
    assert message.passes is not denied


async def test_content_is_not_read_where_nobody_asks(control: FakeControl, monkeypatch: Any) -> None:
    monkeypatch.setattr("lictor.addons.websocket.strict_json.loads", lambda data: pytest.fail("read"))
    await Socket(control).say(text("{}"))


@pytest.mark.parametrize("reason", ["message_too_large", "bad_frame"])
async def test_what_is_no_message_is_a_denied_one(control: FakeControl, reason: str) -> None:
    socket = Socket(control)
    message = Message(True, "binary", b"x", 1009, Problem(reason, "why"))
    await socket.say(text("one"), message)
    assert not message.passes
    assert [(d.decision, d.reason) for d in control.drafts] == [("allow", "allowed"), ("deny", reason)]
    assert "digest" not in control.drafts[1].action_parameters


async def test_a_reason_of_a_close_is_a_message(control: FakeControl) -> None:
    socket = Socket(control, NO_SECRETS)
    open_, secret = Message(True, "close", b"bye", 1000), Message(True, "close", b"secret", 1000)
    await socket.say(open_)
    await socket.say(secret)
    assert (open_.passes, secret.passes) == (True, False)
    assert control.drafts[0].action_parameters["close_code"] == 1000
    assert socket.exchange.upgrade is not None
    assert socket.exchange.upgrade.messages_out == 0


@pytest.mark.parametrize("what", ["no exchange", "no upgrade", "no permit", "refused", "revoked"])
async def test_nothing_passes_on_what_was_not_let_out(control: FakeControl, what: str) -> None:
    socket = Socket(control)
    if what == "no exchange":
        socket.flow.metadata.clear()
    elif what == "no upgrade":
        socket.exchange.upgrade = None
    elif what == "no permit":
        socket.exchange.permit = None
    elif what == "refused":
        socket.exchange.refused = True
    else:
        socket.known.revoked = True
    message = text("one")
    await socket.say(message)
    assert not message.passes
    assert control.drafts == []


@pytest.mark.parametrize(
    ("by_client", "code", "expected"),
    [
        (True, 1000, (True, None, "client")),
        (False, 4001, (True, None, "server")),
        (False, 1005, (True, None, "server")),
        (True, 1006, (False, "the connection ended without a close", "client")),
        (None, 1008, (False, "monitor_error", "monitor")),
    ],
)
async def test_the_end(control: FakeControl, by_client: bool | None, code: int, expected: Any) -> None:
    socket = Socket(control)
    await socket.say(text("hello"), text("you", outgoing=False))
    ended = socket.end(by_client, code)
    assert (ended["complete"], ended.get("error"), ended["closed_by"]) == expected
    assert (ended["status"], ended["close_code"]) == (101, code)
    assert (ended["messages_out_bytes"], ended["messages_in_bytes"]) == (5, 3)
    assert len(socket.open) == 0


async def test_the_end_that_the_rules_made(control: FakeControl) -> None:
    socket = Socket(control)
    socket.open.enter(socket.flow, socket.exchange)
    socket.open.end((socket.flow.client_conn,), "policy_changed")
    ended = socket.end(True, 1006)
    assert (ended["error"], ended["closed_by"]) == ("policy_changed", "monitor")


async def test_the_answer_of_an_upgrade_is_not_its_outcome(control: FakeControl) -> None:
    socket = Socket(control)
    socket.flow.response = http.Response.make(101)
    socket.flow.websocket = WebSocketData()
    socket.outcome.response(socket.flow)
    assert control.outcomes == []


async def test_a_switch_that_nobody_asked_for(control: FakeControl) -> None:
    socket = Socket(control)
    socket.exchange.upgrade = None
    socket.flow.response = http.Response.make(101)
    socket.addon.responseheaders(socket.flow)
    assert socket.flow.error is not None
    assert socket.flow.error.msg == mitm_flow.Error.KILLED_MESSAGE


async def test_an_ordinary_answer_is_left_alone(control: FakeControl) -> None:
    socket = Socket(control)
    socket.flow.response = http.Response.make(426)
    socket.addon.responseheaders(socket.flow)
    assert socket.flow.error is None
