"""The official clients of two model APIs, unchanged, through `lictor exec` and a running monitor.

What answers is a test double of the two APIs. The clients ask it through the monitor and directly: they get the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from end_to_end.model_apis import CACHED, TEXT, TOKENS, ModelApis
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, binding, target, until

OPENAI, ANTHROPIC = "urn:test:model:openai", "urn:test:model:anthropic"
LIMITED = {"stated": sum(TOKENS) + 1, "unstated": sum(TOKENS) + 1}
"""Budgets of tokens: one call does not use them up if it says what it used, and otherwise it does."""
OPENAI_CLIENT = """
import asyncio, json, sys, openai

MESSAGES = [{"role": "user", "content": "go on"}]

def sync(client):
    yield client.chat.completions.create(model="gpt-test", messages=MESSAGES).model_dump()
    with client.chat.completions.create(model="gpt-test", messages=MESSAGES, stream=True,
                                        stream_options={"include_usage": True}) as stream:
        yield [chunk.model_dump() for chunk in stream]
    with client.chat.completions.create(model="gpt-test", messages=MESSAGES, stream=True) as stream:
        yield [chunk.model_dump() for chunk in stream]
    yield client.responses.create(model="gpt-test", input="go on").model_dump(warnings=False)
    with client.responses.create(model="gpt-test", input="go on", stream=True) as stream:
        yield [event.model_dump(warnings=False) for event in stream]
    yield client.embeddings.create(model="embed-test", input="x").model_dump()
    yield [model.model_dump() for model in client.models.list()]

async def asynchronous(client):
    async with client:
        yield (await client.chat.completions.create(model="gpt-test", messages=MESSAGES)).model_dump()
        async with await client.responses.create(model="gpt-test", input="go on", stream=True) as stream:
            yield [event.model_dump(warnings=False) async for event in stream]

def refused(client):
    for ask in (lambda: client.chat.completions.create(model="gpt-forbidden", messages=MESSAGES),
                lambda: client.files.create(file=b"{}", purpose="batch")):
        try:
            ask()
        except openai.PermissionDeniedError as e:
            yield str(e)

async def collect(results):
    return [one async for one in results]

url, plain = sys.argv[1:]
direct = {"base_url": plain, "api_key": "test-key"}
print(json.dumps({
    "monitored": [*sync(openai.OpenAI(base_url=url, api_key="test-key")),
                  *asyncio.run(collect(asynchronous(openai.AsyncOpenAI(base_url=url, api_key="test-key"))))],
    "direct": [*sync(openai.OpenAI(**direct, http_client=openai.DefaultHttpxClient(trust_env=False))),
               *asyncio.run(collect(asynchronous(openai.AsyncOpenAI(
                   **direct, http_client=openai.DefaultAsyncHttpxClient(trust_env=False)))))],
    "refused": [*refused(openai.OpenAI(base_url=url, api_key="test-key"))],
}))
"""
ANTHROPIC_CLIENT = """
import asyncio, json, sys, anthropic, httpx2

ASKED = {"model": "claude-test", "max_tokens": 50, "messages": [{"role": "user", "content": "go on"}]}

def sync(client):
    yield client.messages.create(**ASKED).model_dump()
    with client.messages.create(**ASKED, stream=True) as stream:
        yield [event.model_dump() for event in stream]
    with client.messages.stream(**ASKED) as stream:
        yield ["".join(stream.text_stream), stream.get_final_message().model_dump()]
    yield client.messages.count_tokens(model="claude-test", messages=ASKED["messages"]).model_dump()
    yield [model.model_dump(mode="json") for model in client.models.list()]

async def asynchronous(client):
    async with client:
        yield (await client.messages.create(**ASKED)).model_dump()
        async with await client.messages.create(**ASKED, stream=True) as stream:
            yield [event.model_dump() async for event in stream]

def refused(client):
    for ask in (lambda: client.messages.create(**{**ASKED, "model": "claude-forbidden"}),
                lambda: client.beta.messages.create(**ASKED, fallbacks=[{"model": "claude-forbidden"}])):
        try:
            ask()
        except anthropic.PermissionDeniedError as e:
            yield str(e)

async def collect(results):
    return [one async for one in results]

url, plain = (argument.removesuffix("/v1") for argument in sys.argv[1:])
direct = {"base_url": plain, "api_key": "test-key"}
print(json.dumps({
    "monitored": [*sync(anthropic.Anthropic(base_url=url, api_key="test-key")),
                  *asyncio.run(collect(asynchronous(anthropic.AsyncAnthropic(base_url=url, api_key="test-key"))))],
    "direct": [*sync(anthropic.Anthropic(**direct, http_client=httpx2.Client(trust_env=False))),
               *asyncio.run(collect(asynchronous(anthropic.AsyncAnthropic(
                   **direct, http_client=httpx2.AsyncClient(trust_env=False)))))],
    "refused": [*refused(anthropic.Anthropic(base_url=url, api_key="test-key"))],
}))
"""


@dataclass
class Place:
    apis: ModelApis
    monitor: Monitor

    def run(self, script: str, host: str) -> dict[str, Any]:
        """What the client's script prints; `host` says which target it is for."""
        command = [sys.executable, "-m", "lictor", "exec", "--agent", "default", "-c", str(self.monitor.config), "--"]
        urls = [f"https://{host}:{self.apis.port}/v1", f"http://127.0.0.1:{self.apis.plain_port}/v1"]
        done = subprocess.run(
            [*command, sys.executable, "-c", script, *urls],
            env=os.environ | {"HOME": str(self.monitor.path)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def ended(self, urn: str) -> list[tuple[str, dict[str, Any]]]:
        """Fragment and outcome of each action that was let out, in the order of the log, once all have ended."""

        def look() -> list[tuple[str, dict[str, Any]]]:
            entries = self.monitor.entries()
            outcomes = {e["outcome_of"]: e["outcome"] for e in entries if "outcome_of" in e}
            taken = [e for e in entries if e.get("action_target", "").startswith(urn) and e.get("decision") == "allow"]
            taken = [e for e in taken if "outcome_of" not in e]
            if not all(e["seq"] in outcomes for e in taken):
                return []
            return [(e["action_target"].partition("#")[2], outcomes[e["seq"]]) for e in taken]

        return until(look)


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(ModelApis(outside)) as apis:
        models = [f"{OPENAI}#models/{name}" for name in ("gpt-test", "embed-test", *LIMITED)]
        rules = binding(model_inference=[OPENAI, *models, ANTHROPIC, f"{ANTHROPIC}#models/claude-test"])
        rules["expected_behaviors"] += [
            {
                "behavior_id": f"tokens-of-{name}",
                "observable_actions": ["model_inference"],
                "targets": [f"{OPENAI}#models/{name}"],
                "compliance_criteria": {"type": "budget", "per": "day", "tokens": limit},
            }
            for name, limit in LIMITED.items()
        ]
        monitor = share_monitor(
            "models",
            {"main": rules},
            target(OPENAI, "model", f"https://localhost:{apis.port}/v1/**", protocol="openai")
            + target(ANTHROPIC, "model", f"https://127.0.0.1:{apis.port}/v1/**", protocol="anthropic"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(apis, monitor)


def usage(model: str, into: int = TOKENS[0], out: int = TOKENS[1]) -> dict[str, Any]:
    return {"model": model, "input_tokens": into, "output_tokens": out}


def test_openai(place: Place) -> None:
    found = place.run(OPENAI_CLIENT, "localhost")
    assert found["monitored"] == found["direct"]
    assert found["monitored"][0]["choices"][0]["message"]["content"] == TEXT
    assert len(found["refused"]) == 2
    for text in found["refused"]:
        assert text.startswith("Error code: 403 - refused by lictor: ")
    gpt = [("models/gpt-test", usage("gpt-test"))]
    unstated = [("models/gpt-test", None)]
    embedded = [("models/embed-test", usage("embed-test", out=0)), ("", usage("", 0, 0))]
    ended = [one for one in place.ended(OPENAI) if one[0].removeprefix("models/") not in LIMITED]
    assert [
        (where, outcome.get("usage")) for where, outcome in ended
    ] == gpt * 2 + unstated + gpt * 2 + embedded + gpt * 2
    assert [outcome.get("usage_unknown", False) for _, outcome in ended] == [n == 2 for n in range(9)]
    denied = [e["action_target"] for e in place.monitor.entries() if e.get("decision") == "deny"]
    assert {f"{OPENAI}#models/gpt-forbidden", f"{OPENAI}#/v1/files"} <= set(denied)


@pytest.mark.parametrize(("model", "options", "calls"), [("stated", {"include_usage": True}, 2), ("unstated", {}, 1)])
def test_a_budget_ends_by_what_streams_state_and_sooner_without(
    place: Place, model: str, options: dict[str, Any], calls: int
) -> None:
    asked = {"model": model, "messages": [], "stream": True, "stream_options": options}
    with Wire(place.monitor) as wire:
        wire.tunnel(f"localhost:{place.apis.port}")
        for _ in range(calls):
            before = len(place.monitor.entries())
            answer = wire.post_json("/v1/chat/completions", asked, "Authorization: Bearer test-key")
            assert answer.status == 200
            assert place.monitor.outcome(before)["status"] == 200
        answer = wire.post_json("/v1/chat/completions", asked, "Authorization: Bearer test-key")
        assert (answer.status, answer.json()["reason"]) == (403, "budget_exhausted")


def test_anthropic(place: Place) -> None:
    found = place.run(ANTHROPIC_CLIENT, "127.0.0.1")
    assert found["monitored"] == found["direct"]
    assert found["monitored"][0]["content"][0]["text"] == TEXT == found["monitored"][2][0]
    assert len(found["refused"]) == 2
    assert all("refused by lictor: " in text for text in found["refused"])
    claude = [("models/claude-test", usage("claude-test", TOKENS[0] + CACHED))]
    free = [("models/claude-test", usage("claude-test", 0, 0)), ("", usage("", 0, 0))]
    ended = [(where, outcome.get("usage")) for where, outcome in place.ended(ANTHROPIC)]
    assert ended == claude * 3 + free + claude * 2
