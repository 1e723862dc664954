from typing import Any

import pytest
from classified import AGENT, CATALOG, one, request, rpc

from lictor.bindings.classification import classify
from lictor.bindings.facts import RequestFacts, Unclassifiable
from lictor.bindings.model import ActionType


@pytest.mark.parametrize("method", ["message/send", "message/stream", "SendMessage", "SendStreamingMessage"])
def test_a2a_delegation_by_json_rpc(method: str) -> None:
    action = one(request("b.example/", rpc(method, message={"role": "user"})))
    assert (action.type, action.target, action.rpc_id) == (ActionType.DELEGATION, AGENT.urn, 7)
    assert action.parameters == {"method": "POST", "rpc_method": method}


@pytest.mark.parametrize(
    "path",
    [
        "message:send",
        "v1/message:send",
        "v1/message:stream",
        "tenant/message:send",
        "v1/message:send/",
        "v1%2Fmessage:send",
    ],
)
def test_a2a_delegation_by_path(path: str) -> None:
    action = one(request(f"b.example/{path}", {"message": {}}))
    assert (action.type, action.target, action.rpc) == (ActionType.DELEGATION, AGENT.urn, False)


@pytest.mark.parametrize(
    ("facts", "is_rpc"),
    [
        (request("b.example/.well-known/agent-card.json", method="GET"), False),
        (request("b.example/v1/tasks/1:cancel", {}), False),
        (request("b.example/v1/tasks/1:cancel", b""), False),
        (request("b.example/", rpc("tasks/get", id="1")), True),
        (request("b.example/", rpc("GetTask", id="1")), True),
    ],
)
def test_a2a_everything_else_is_http(facts: RequestFacts, is_rpc: bool) -> None:
    action = one(facts)
    assert (action.type, action.target) == (ActionType.HTTP_REQUEST, f"https://b.example{facts.path}")
    assert (action.rpc, action.catalog_target) == (is_rpc, AGENT)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"method": "message/send", "id": 1}, id="no version"),
        pytest.param({"Method": "message/send", "id": 1}, id="method in another case"),
        pytest.param({**rpc("tasks/get"), "METHOD": "message/send"}, id="two methods"),
        pytest.param(b'{"jsonrpc":"2.0","method":"tasks/get","method":"message/send"}', id="method twice"),
        pytest.param(b"hello", id="not JSON"),
    ],
)
def test_a2a_body_that_is_not_certain(body: Any) -> None:
    with pytest.raises(Unclassifiable):
        classify(CATALOG, request("b.example/", body))


def test_a2a_delegation_by_path_needs_json() -> None:
    for body in (b"", b"[]", b'{"message":1,"message":2}'):
        with pytest.raises(Unclassifiable):
            classify(CATALOG, request("b.example/v1/message:send", body))


def test_a2a_batch() -> None:
    actions = classify(CATALOG, request("b.example/", [rpc("tasks/get"), rpc("message/send")]))
    assert [action.type for action in actions] == [ActionType.HTTP_REQUEST, ActionType.DELEGATION]
