import pytest
from classified import one, request

from lictor.bindings.facts import RequestFacts
from lictor.bindings.model import ActionType


@pytest.mark.parametrize(
    ("facts", "type_", "target"),
    [
        (request("t.example/plain"), ActionType.TOOL_CALL, "urn:example:tool:plain"),
        (request("d.example/v1/a/b", method="GET"), ActionType.DATA_SOURCE_ACCESS, "urn:example:ds:rows"),
        (request("m.example/v1/chat"), ActionType.MODEL_INFERENCE, "urn:example:model:m"),
        (request("d.example/v2/a", method="GET"), ActionType.HTTP_REQUEST, "https://d.example/v2/a"),
        (request("elsewhere.example/"), ActionType.HTTP_REQUEST, "https://elsewhere.example/"),
        (
            RequestFacts("GET", "http", "::1", 8080, "/x", "secret=1"),
            ActionType.HTTP_REQUEST,
            "http://[::1]:8080/x",
        ),
    ],
)
def test_by_url(facts: RequestFacts, type_: ActionType, target: str) -> None:
    action = one(facts)
    assert (action.type, action.target, action.rpc) == (type_, target, False)
    assert action.parameters == {"method": facts.method}
