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


PUSH = "https://collect.example/in?token=1"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", rpc("message/send", message={}, configuration={"pushNotificationConfig": {"url": PUSH}})),
        ("", rpc("SendMessage", message={}, configuration={"taskPushNotificationConfig": {"url": PUSH}})),
        ("", rpc("SendMessage", message={}, configuration={"task_push_notification_config": {"URL": PUSH}})),
        ("", rpc("tasks/pushNotificationConfig/set", taskId="1", pushNotificationConfig={"url": PUSH})),
        ("", rpc("CreateTaskPushNotificationConfig", taskId="1", url=PUSH)),
        ("v1/message:send", {"message": {}, "configuration": {"pushNotificationConfig": {"url": PUSH}}}),
        ("v1/tasks/1/pushNotificationConfigs", {"config": {"pushNotificationConfig": {"url": PUSH}}}),
        ("tenant/tasks/1/pushNotificationConfigs", {"taskId": "1", "url": PUSH}),
    ],
)
def test_a_push_notification_url_is_an_action_of_its_own(path: str, body: Any) -> None:
    action, push = classify(CATALOG, request(f"b.example/{path}", body), "body")
    assert action.catalog_target is AGENT
    assert (push.type, push.target, push.rpc) == (ActionType.HTTP_REQUEST, "https://collect.example/in", False)
    assert push.parameters == {"method": "POST", "push_notification": True}
    assert action.content is not None
    assert {"params", "body"} & set(action.content)


def test_urls_inside_of_a_message_are_content() -> None:
    one(request("b.example/", rpc("SendMessage", message={"parts": [{"url": "not a url"}]}, metadata={"url": "x"})))
    one(request("b.example/", rpc("SendMessage", message={}, configuration={"url": ""})))


@pytest.mark.parametrize("url", ["not a url", "ftp://a.example/", "https://u@a.example/", "https://0x7f.1/", 5, {}])
def test_a_push_notification_url_that_is_not_certain(url: Any) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, request("b.example/", rpc("CreateTaskPushNotificationConfig", url=url)))
    assert caught.value.reason == "bad_push_url"


def test_too_many_push_notification_urls() -> None:
    urls = [{"url": f"https://a.example/{n}"} for n in range(9)]
    with pytest.raises(Unclassifiable, match="9 URLs"):
        classify(CATALOG, request("b.example/", rpc("SendMessage", configuration=urls)))


GRPC = (("content-type", "application/grpc+proto"),)
FRAME = b"\x00\x00\x00\x00\x02hi"


@pytest.mark.parametrize("service", ["lf.a2a.v1.A2AService", "a2a.v1.A2AService"])
def test_a2a_by_grpc(service: str) -> None:
    sent = one(request(f"b.example/{service}/SendStreamingMessage", FRAME, headers=GRPC))
    assert (sent.type, sent.target) == (ActionType.DELEGATION, AGENT.urn)
    asked = one(request(f"b.example/{service}/GetTask", FRAME, headers=GRPC))
    assert (asked.type, asked.target) == (ActionType.HTTP_REQUEST, f"https://b.example/{service}/GetTask")


def test_json_that_calls_itself_grpc_is_read_as_json() -> None:
    body = rpc("message/send", message={})
    (action,) = classify(CATALOG, request("b.example/a2a.v1.A2AService/GetTask", body, headers=GRPC))
    assert action.type == ActionType.DELEGATION
    with pytest.raises(Unclassifiable):
        classify(CATALOG, request("b.example/a2a.v1.A2AService/GetTask", FRAME))


def test_a2a_batch() -> None:
    actions = classify(CATALOG, request("b.example/", [rpc("tasks/get"), rpc("message/send")]))
    assert [action.type for action in actions] == [ActionType.HTTP_REQUEST, ActionType.DELEGATION]
