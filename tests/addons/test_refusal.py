"""A refusal explains itself in every form, can be authenticated, and tells nothing of what is allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lictor.addons.refusal import JSONRPC_REFUSED, Refusal
from lictor.bindings.model import BehaviorResult

REFUSAL = Refusal(
    "spiffe://x.test/monitor/m",
    "not_in_allowlist",
    "Use a tool that is approved for you.",
    "tool_call",
    "urn:t#tools/x",
    7,
    BehaviorResult("urn:policy", "1.0.0", "digest", "tools", "fail"),
    ("bet.one", "bet.two"),
)


def test_problem_details() -> None:
    response = REFUSAL.response()
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem = json.loads(response.content or b"")
    assert problem == {
        "type": "urn:lictor:refusal:not_in_allowlist",
        "title": "Refused by the runtime monitor",
        "status": 403,
        "detail": "Use a tool that is approved for you.",
        "reason": "not_in_allowlist",
        "monitor": "spiffe://x.test/monitor/m",
        "action_type": "tool_call",
        "action_target": "urn:t#tools/x",
        "policy_id": "urn:policy",
        "behavior_id": "tools",
        "entry": 7,
    }


def test_proxy_status_and_evidence() -> None:
    headers = REFUSAL.response().headers
    assert headers["proxy-status"] == 'lictor-m; error=http_request_denied; details="not_in_allowlist; entry 7"'
    assert headers.get_all("behavioral-evidence") == ["bet.one", "bet.two"]


def test_what_could_not_be_recorded_names_no_entry() -> None:
    refusal = Refusal("spiffe://x.test/monitor/m", "monitor_error", "no")
    assert "entry" not in refusal.problem()
    assert "entry" not in refusal.response().headers["proxy-status"]
    assert "behavioral-evidence" not in refusal.response().headers


@pytest.mark.parametrize(
    ("reason", "status", "error"),
    [
        ("default_deny", 403, "http_request_denied"),
        ("a reason that is new", 403, "http_request_denied"),
        ("name_mismatch", 400, "http_request_error"),
        ("unparsable_body", 400, "http_request_error"),
        ("unreadable_request", 400, "http_request_error"),
        ("body_too_large", 413, "http_request_error"),
        ("head_too_large", 431, "http_request_error"),
        ("misdirected_request", 421, "http_request_error"),
        ("too_many_frames", 400, "http_request_error"),
        ("monitor_error", 503, "proxy_internal_error"),
        ("overloaded", 503, "proxy_internal_error"),
    ],
)
def test_status(reason: str, status: int, error: str) -> None:
    refusal = Refusal("spiffe://x.test/monitor/m", reason, "hint")
    assert (refusal.status, refusal.error_type) == (status, error)
    assert refusal.response().status_code == status


@pytest.mark.parametrize("id_", [1, "a", 2**80, -1.5, ""])
def test_jsonrpc_id_comes_back_as_it_was(id_: Any) -> None:
    response = REFUSAL.jsonrpc([id_], batch=False)
    answer = json.loads(response.content or b"")
    assert answer["id"] == id_
    assert answer["error"]["code"] == JSONRPC_REFUSED
    assert answer["error"]["data"]["entry"] == 7
    assert response.status_code == 403
    assert response.headers.get_all("behavioral-evidence") == ["bet.one", "bet.two"]


def test_jsonrpc_batch() -> None:
    answers = json.loads(REFUSAL.jsonrpc([1, 2], batch=True).content or b"")
    assert [a["id"] for a in answers] == [1, 2]
    assert len(json.loads(REFUSAL.jsonrpc([1], batch=True).content or b"")) == 1


@pytest.mark.parametrize("text", ["line\r\nInjected: yes", "tab\t", "é", "\0", "x" * 5000])
def test_nothing_breaks_out_of_the_status_line_or_a_header(text: str) -> None:
    """Most clients show only the phrase of a refused CONNECT; hints can quote what the agent sent."""
    response = Refusal("spiffe://x.test/monitor/m", "doubtful_name", text).response()
    assert len(response.data.reason) <= 400
    assert all(32 <= octet < 127 for octet in response.data.reason)
    for name, value in response.headers.fields:
        assert b"\n" not in name + value


def test_the_phrase_says_what_happened() -> None:
    assert REFUSAL.response().reason == (
        "Forbidden: lictor refused (not_in_allowlist, entry 7). Use a tool that is approved for you."
    )


def test_clients_of_models_find_the_sentence_where_they_look() -> None:
    refusal = Refusal(
        "spiffe://x.test/monitor/m", "not_in_allowlist", "Use another model.", "model_inference", "urn:m#models/x"
    )
    problem = json.loads(refusal.response().content or b"")
    assert problem["error"] == {
        "type": "refused",
        "code": "not_in_allowlist",
        "message": "refused by lictor: Use another model.",
    }
    assert problem["detail"] == "Use another model."


def test_grpc_callers_get_a_status_of_theirs_and_the_evidence() -> None:
    response = REFUSAL.grpc()
    assert (response.status_code, response.content) == (200, b"")
    assert (response.headers["content-type"], response.headers["grpc-status"]) == ("application/grpc", "7")
    assert response.headers["grpc-message"].startswith("Forbidden: lictor refused (not_in_allowlist, entry 7).")
    assert response.headers.get_all("behavioral-evidence") == ["bet.one", "bet.two"]
    assert "http_request_denied" in response.headers["proxy-status"]


def test_what_a_hint_quotes_does_not_break_out_of_the_grpc_message() -> None:
    message = Refusal("spiffe://x.test/monitor/m", "doubtful_name", "100 %\r\nx: y").grpc().headers["grpc-message"]
    assert "100 %25??x: y" in message
