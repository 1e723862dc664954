from __future__ import annotations

import json
from typing import Any

import pytest

from lictor.addons.request_ids import RequestIds, open_answers
from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import classify
from lictor.bindings.facts import RequestFacts, Unclassifiable
from lictor.bindings.target import Target

URN = "urn:example:tool:calc"
TARGET = Target(URN, "tool", ("https://c.example/mcp",), "mcp")
IDS = RequestIds(b"key", "spiffe://e.example/agent/a", URN, "s1")


@pytest.mark.parametrize("id_", [0, -1, 2**70, "", "x", 'a"b\\', "\u2028é", "lictor.x.y", "x" * 1000])
def test_a_sealed_id_opens_to_the_servers_own(id_: Any) -> None:
    sealed = IDS.sealed(id_)
    assert json.dumps(sealed) == f'"{sealed}"', "every JSON writer spells it alike"
    opened = IDS.opened(sealed)
    assert opened is not None
    assert json.loads(opened) == id_


@pytest.mark.parametrize(
    "other",
    [
        RequestIds(b"other", IDS.agent_id, IDS.urn, IDS.session),
        RequestIds(IDS.key, "spiffe://e.example/agent/b", IDS.urn, IDS.session),
        RequestIds(IDS.key, IDS.agent_id, "urn:example:tool:other", IDS.session),
        RequestIds(IDS.key, IDS.agent_id, IDS.urn, "s2"),
    ],
    ids=["key", "agent", "target", "session"],
)
def test_a_seal_is_for_one_agent_one_target_and_one_session(other: RequestIds) -> None:
    assert other.opened(IDS.sealed(7)) is None


@pytest.mark.parametrize(
    "text", [7, None, "7", "lictor..", "lictor.", IDS.sealed(7)[:-1], IDS.sealed(7) + "A", "x" * 9]
)
def test_what_was_never_sealed(text: Any) -> None:
    assert IDS.opened(text) is None


def opened(body: bytes) -> bytes:
    headers = (("content-type", "application/json"),)
    facts = RequestFacts("POST", "https", "c.example", 443, "/mcp", "", headers, body)
    return open_answers(IDS.key, IDS.agent_id, IDS.session, classify(Catalog([TARGET]), facts), body)


def answer(id_: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "result": {"x": [1.50, 10**30]}}


def test_only_the_id_of_an_answer_changes() -> None:
    body = json.dumps([answer(IDS.sealed(7)), answer(IDS.sealed("a")), {"jsonrpc": "2.0", "id": 1, "method": "ping"}])
    expected = body.replace(f'"{IDS.sealed(7)}"', "7").replace(f'"{IDS.sealed("a")}"', '"a"')
    assert opened(body.encode()) == expected.encode()


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([answer(7)], id="not sealed"),
        pytest.param([answer(IDS.sealed(7)), answer(7)], id="one not sealed"),
        pytest.param([answer(IDS.sealed(7)), answer(IDS.sealed(7))], id="twice"),
        pytest.param([{**answer(IDS.sealed(7)), "result": IDS.sealed(7)}], id="said elsewhere too"),
    ],
)
def test_any_other_answer_is_refused(messages: list[Any]) -> None:
    with pytest.raises(Unclassifiable) as caught:
        opened(json.dumps(messages).encode())
    assert caught.value.reason == "unasked_answer"


def test_a_request_stays_as_it_is() -> None:
    body = b'{"jsonrpc":"2.0","id":7,"method":"ping"}'
    assert opened(body) is body
