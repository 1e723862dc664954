"""Which models a request to a model API is about, and what it is when it is about none."""

from typing import Any

import pytest
from classified import JSON, request

from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import classify, needs_body
from lictor.bindings.facts import Classified, RequestFacts, Unclassifiable
from lictor.bindings.jsonrpc import MAX_BATCH
from lictor.bindings.model import ActionType
from lictor.bindings.target import Target
from lictor.formats.errors import UsageError

OPENAI = Target("urn:example:model:o", "model", ("https://o.example/**",), "openai")
ANTHROPIC = Target("urn:example:model:a", "model", ("https://a.example/**",), "anthropic")
CATALOG = Catalog([OPENAI, ANTHROPIC])


def actions(facts: RequestFacts) -> list[str]:
    """The fragments of the targets."""
    found = classify(CATALOG, facts)
    assert {action.type for action in found} == {ActionType.MODEL_INFERENCE}
    return [action.target.partition("#")[2] for action in found]


def one(facts: RequestFacts, **reads: Any) -> Classified:
    (action,) = classify(CATALOG, facts, **reads)
    return action


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("o.example/v1/chat/completions", {"model": "gpt-5-mini", "messages": []}, "models/gpt-5-mini"),
        ("o.example/v1/completions", {"model": "m"}, "models/m"),
        ("o.example/v1/responses", {"model": "m", "stream": True}, "models/m"),
        ("o.example/v1/responses/input_tokens", {"model": "m"}, "models/m"),
        ("o.example/v1/responses/compact", {"model": "m"}, "models/m"),
        ("o.example/v1/embeddings", {"model": "m"}, "models/m"),
        ("o.example/v1/images/generations", {"model": "m"}, "models/m"),
        ("o.example/v1/audio/speech", {"model": "m"}, "models/m"),
        ("o.example/v1/moderations", {"model": "m"}, "models/m"),
        ("o.example/openai/v1/responses", {"model": "m"}, "models/m"),
        ("o.example/api/paas/v4/chat/completions", {"model": "m"}, "models/m"),
        ("o.example/v1beta/openai/chat/completions", {"model": "m"}, "models/m"),
        ("o.example/chat/completions", {"model": "m"}, "models/m"),
        ("o.example/openai/deployments/d-1/chat/completions", {"messages": []}, "models/d-1"),
        ("o.example/openai/deployments/d-1/chat/completions", {"model": "d-1"}, "models/d-1"),
        ("a.example/v1/messages", {"model": "claude-x"}, "models/claude-x"),
        ("a.example/anthropic/v1/messages", {"model": "claude-x"}, "models/claude-x"),
        ("a.example/v1/messages/count_tokens", {"model": "claude-x"}, "models/claude-x"),
        ("a.example/v1/complete", {"model": "claude-x"}, "models/claude-x"),
    ],
)
def test_an_inference_is_an_action_on_its_model(path: str, body: dict[str, Any], expected: str) -> None:
    action = one(request(path, body))
    assert action.target == f"{(OPENAI if path[0] == 'o' else ANTHROPIC).urn}#{expected}"
    assert action.parameters["model"] == expected.removeprefix("models/")
    assert action.parameters["operation"] in path
    assert one(request(path, body), reads="body").content == {"method": "POST", "body": body}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ft:gpt-5:org::x", "models/ft:gpt-5:org::x"),
        ("meta/llama-4@2", "models/meta/llama-4@2"),
        ("a b#c*é%2F", "models/a%20b%23c%2A%C3%A9%252F"),
        (" m", "models/%20m"),
        ("M", "models/M"),
    ],
)
def test_a_name_stands_in_the_target_as_it_was_sent(name: str, expected: str) -> None:
    assert actions(request("o.example/v1/chat/completions", {"model": name})) == [expected]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "o.example/v1/models", ""),
        ("GET", "o.example/v1/models/gpt-5", ""),
        ("GET", "a.example/v1/models", ""),
        ("DELETE", "o.example/v1/models/ft:mine", "/v1/models/ft:mine"),
        ("POST", "o.example/v1/models", "/v1/models"),
        ("GET", "o.example/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "o.example/v1/files", "/v1/files"),
        ("POST", "o.example/v1/batches", "/v1/batches"),
        ("POST", "o.example/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs"),
        ("POST", "o.example/v1/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
        ("GET", "o.example/v1/organization/usage/completions", "/v1/organization/usage/completions"),
        ("POST", "o.example/v1/organization/usage/completions", "/v1/organization/usage/completions"),
        ("POST", "o.example/v1/messages", "/v1/messages"),
        ("POST", "o.example/v1/v1/chat/completions", "/v1/v1/chat/completions"),
        ("POST", "o.example/v1/chat%2Fcompletions", "/v1/chat%2Fcompletions"),
        ("POST", "o.example/V1/chat/completions", "/V1/chat/completions"),
        ("POST", "o.example/v1/chat/completions/", "/v1/chat/completions/"),
        ("POST", "o.example/other/chat/completions", "/other/chat/completions"),
        ("POST", "o.example/openai/deployments/a%2Fb/chat/completions", "/openai/deployments/a%2Fb/chat/completions"),
        ("POST", "a.example/v1/messages/batches", "/v1/messages/batches"),
        ("POST", "a.example/v1/sessions", "/v1/sessions"),
        ("POST", "a.example/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_what_names_no_model_is_an_action_on_its_path(method: str, path: str, expected: str) -> None:
    assert actions(request(path, {"model": "allowed"}, method=method)) == [expected]


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}, {"prompt": {"id": "pmpt_1"}}])
def test_where_the_provider_chooses_the_model_the_path_is_judged(body: dict[str, Any]) -> None:
    assert actions(request("o.example/v1/responses", body)) == ["/v1/responses"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"fallbacks": [{"model": "b"}, {"model": "c"}]}, ["models/b", "models/c"]),
        ({"fallbacks": ["b", "m"]}, ["models/b"]),
        ({"fallbacks": "default"}, ["models/default"]),
        ({"models": ["b", "c"]}, ["models/b", "models/c"]),
        ({"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "b"}]}, ["models/b"]),
        ({"tools": [{"type": "image_generation", "svg": {"model": "b"}}]}, ["models/b"]),
        ({"moderation": {"model": "b", "policy": {"input": {"mode": "score"}}}}, ["models/b"]),
        ({"tools": [{"name": "f", "input_schema": {"properties": {"model": {"default": "b"}}, "model": "b"}}]}, []),
        ({"tools": [{"type": "function", "function": {"parameters": {"model": "b"}}}]}, []),
        ({"metadata": {"model": "b"}}, []),
        ({"messages": [{"role": "user", "content": "model", "model": "b"}]}, []),
    ],
)
def test_every_model_that_the_provider_may_use_is_an_action(more: dict[str, Any], expected: list[str]) -> None:
    body = {"model": "m", **more}
    for path in ("a.example/v1/messages", "o.example/v1/chat/completions"):
        assert actions(request(path, body)) == ["models/m", *expected]
    named_only_besides = {name: value for name, value in body.items() if name != "model"}
    assert actions(request("o.example/v1/responses", named_only_besides))[0] == "/v1/responses"


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("o.example/v1/chat/completions", {"model": "m", "Model": "n"}, "ambiguous_member"),
        ("o.example/v1/chat/completions", {"model": "m", "TOOLS": []}, "ambiguous_member"),
        ("o.example/v1/chat/completions", b'{"model":"m","model":"n"}', "unparsable_body"),
        ("o.example/v1/chat/completions", b"model=m", "unparsable_body"),
        ("o.example/v1/chat/completions", [{"model": "m"}], "unparsable_body"),
        ("o.example/v1/chat/completions", b"", "unparsable_body"),
        ("o.example//v1/chat/completions", {"model": "m"}, "ambiguous_path"),
        ("o.example/v1//chat/completions", {"model": "m"}, "ambiguous_path"),
        ("o.example/v1/chat/completions", {"model": ["m"]}, "ambiguous_model"),
        ("o.example/v1/chat/completions", {"model": "m" * 2000}, "bad_name"),
        ("o.example/openai/deployments/d/chat/completions", {"model": "e"}, "ambiguous_model"),
        ("o.example/v1/chat/completions", {"model": "m", "models": [f"{n}" for n in range(MAX_BATCH)]}, "bad_batch"),
    ],
)
def test_what_could_mean_two_models_is_refused(path: str, body: Any, reason: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, request(path, body))
    assert caught.value.reason == reason


def test_a_compressed_body_is_refused() -> None:
    facts = request("o.example/v1/responses", {"model": "m"}, headers=(JSON, ("content-encoding", "gzip")))
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, facts)
    assert caught.value.reason == "encoded_body"


def test_the_body_is_read_where_it_may_name_a_model() -> None:
    assert needs_body(OPENAI, "POST")
    assert not needs_body(OPENAI, "GET")
    with pytest.raises(UsageError):
        Catalog([Target("urn:example:x", "tool", ("https://x.example/**",), "openai")])
