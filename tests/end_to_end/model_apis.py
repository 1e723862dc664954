"""A test double of two model APIs: it speaks their wire, streams included, and thinks of nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from end_to_end.world import Outside

WORDS = ["Lorem", " ipsum", " dolor — ", "sit", ' "usage" ', "amet\n"] * 20
TEXT = "".join(WORDS)
TOKENS = (11, len(WORDS))
CACHED = 1000
"""Input that the Anthropic side says it took from its cache, beside the 11 of `TOKENS`."""


class ModelApis:
    """Serves both APIs with TLS on `port`, and without on `plain_port`; keeps what it was asked."""

    def __init__(self, outside: Outside) -> None:
        self.requests: list[web.Request] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(outside.cert, outside.key)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._started.wait(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(middlewares=[self._middleware])
        app.router.add_post("/v1/chat/completions", _chat)
        app.router.add_post("/v1/responses", _responses)
        app.router.add_post("/v1/embeddings", _embeddings)
        app.router.add_get("/v1/models", _models)
        app.router.add_post("/v1/files", _files)
        app.router.add_post("/v1/messages", _messages)
        app.router.add_post("/v1/messages/count_tokens", _count_tokens)
        runner = web.AppRunner(app)
        await runner.setup()
        secure, plain = (
            web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context),
            web.TCPSite(runner, "127.0.0.1", 0),
        )
        await secure.start()
        await plain.start()
        self.port, self.plain_port = (address[1] for address in runner.addresses)
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Keys are asked for, JSON is compressed for who wants that, errors have the makers' form."""
        self.requests.append(request)
        if not {"test-key", "Bearer test-key"} & {request.headers.get(n, "") for n in ("authorization", "x-api-key")}:
            return web.json_response({"error": {"type": "authentication_error", "message": "no key"}}, status=401)
        response: web.StreamResponse = await handler(request)
        if not response.prepared and "gzip" in request.headers.get("accept-encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response


async def _stream(request: web.Request, events: AsyncIterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
    )
    await response.prepare(request)
    async for event in events:
        await response.write(event)
    return response


def _typed(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


async def _chat(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    usage = {"prompt_tokens": TOKENS[0], "completion_tokens": TOKENS[1], "total_tokens": sum(TOKENS)}
    common = {"id": "chatcmpl-1", "created": 1, "model": f"{asked['model']}-2026-01-01"}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": TEXT, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return web.json_response({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
    counted = bool((asked.get("stream_options") or {}).get("include_usage"))

    async def events() -> AsyncIterator[bytes]:
        chunk = {**common, "object": "chat.completion.chunk", **({"usage": None} if counted else {})}
        for delta in [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS), {}]:
            choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
            yield b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"
            await asyncio.sleep(0)
        if counted:
            yield b"data: " + json.dumps({**chunk, "choices": [], "usage": usage}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    return await _stream(request, events())


async def _responses(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": TOKENS[0], "output_tokens": TOKENS[1], "total_tokens": sum(TOKENS), **details}
    common = {"id": "resp_1", "object": "response", "created_at": 1, "model": asked["model"], "tools": []}
    common |= {"tool_choice": "auto", "parallel_tool_calls": True, "error": None, "metadata": {}}
    whole = {**common, "status": "completed", "output": [item], "usage": usage}
    if not asked.get("stream"):
        return web.json_response(whole)

    async def events() -> AsyncIterator[bytes]:
        begun = {**common, "status": "in_progress", "output": [], "usage": None}
        at = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
        said: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
            {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
            *({"type": "response.output_text.delta", **at, "delta": word, "logprobs": []} for word in WORDS),
            {"type": "response.output_text.done", **at, "text": TEXT, "logprobs": []},
            {"type": "response.completed", "response": whole},
        ]
        for number, event in enumerate(said):
            yield _typed({**event, "sequence_number": number})

    return await _stream(request, events())


async def _embeddings(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    packed = base64.b64encode(struct.pack("<3f", 0.5, -1.0, 2.0)).decode()
    data = [{"object": "embedding", "index": 0, "embedding": packed}]
    usage = {"prompt_tokens": TOKENS[0], "total_tokens": TOKENS[0]}
    return web.json_response({"object": "list", "model": asked["model"], "data": data, "usage": usage})


async def _models(request: web.Request) -> web.StreamResponse:
    if "anthropic-version" in request.headers:
        model = {"type": "model", "id": "claude-test", "display_name": "Test", "created_at": "2026-01-01T00:00:00Z"}
        return web.json_response({"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]})
    model = {"id": "gpt-test", "object": "model", "created": 1, "owned_by": "test"}
    return web.json_response({"object": "list", "data": [model]})


async def _files(request: web.Request) -> web.StreamResponse:
    return web.json_response({"id": "file-1", "object": "file", "bytes": 1, "purpose": "batch"})


async def _messages(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    usage = {"input_tokens": TOKENS[0], "cache_read_input_tokens": CACHED, "output_tokens": TOKENS[1]}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
    if not asked.get("stream"):
        content = [{"type": "text", "text": TEXT}]
        return web.json_response({**message, "content": content, "stop_reason": "end_turn", "usage": usage})

    async def events() -> AsyncIterator[bytes]:
        begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        yield _typed({"type": "message_start", "message": begun})
        yield _typed({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        yield _typed({"type": "ping"})
        for word in WORDS:
            delta = {"type": "text_delta", "text": word}
            yield _typed({"type": "content_block_delta", "index": 0, "delta": delta})
            await asyncio.sleep(0)
        yield _typed({"type": "content_block_stop", "index": 0})
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        yield _typed({"type": "message_delta", "delta": ended, "usage": {"output_tokens": TOKENS[1]}})
        yield _typed({"type": "message_stop"})

    return await _stream(request, events())


async def _count_tokens(request: web.Request) -> web.StreamResponse:
    return web.json_response({"input_tokens": TOKENS[0]})
