import pytest
from classified import CATALOG, JSON, MCP, one, request, rpc

from lictor.bindings.classification import classify
from lictor.bindings.facts import Unclassifiable


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param((("content-encoding", "gzip"),), "encoded_body", id="compressed"),
        pytest.param(
            (("content-encoding", "identity"), ("content-encoding", "br")), "encoded_body", id="compressed twice"
        ),
        pytest.param((("content-type", "application/json; charset=utf-16"),), "unparsable_body", id="UTF-16"),
        pytest.param((("content-type", 'application/json;Charset="UTF-7"'),), "unparsable_body", id="UTF-7 in quotes"),
        pytest.param(
            (("content-type", "application/json;charset*=utf-7"),), "unparsable_body", id="extended parameter"
        ),
        pytest.param((JSON, ("content-type", "text/plain")), "unparsable_body", id="two content types"),
    ],
)
def test_encoding_that_hides_the_body(headers: tuple[tuple[str, str], ...], reason: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, request("t.example/mcp", rpc("ping"), headers=headers))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "value", ["application/json", 'application/json; charset="utf-8"', "application/json;charset=UTF-8"]
)
def test_encoding_that_is_plain(value: str) -> None:
    headers = (("content-type", value), ("content-encoding", "identity"))
    assert one(request("t.example/mcp", rpc("ping"), headers=headers)).target == MCP.urn
