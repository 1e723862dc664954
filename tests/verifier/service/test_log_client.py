"""Connections to a log: who answers is looked at each time, and what was given up asks nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from end_to_end.world import free_port

from lictor.certs.contexts import listener_context
from lictor.certs.domain import TrustDomain
from lictor.verifier.service.config import load
from lictor.verifier.service.log_client import LogClient
from lictor.verifier.service.tiles import Unchecked

NAME = "spiffe://w.test/monitor/one"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("client") / "trust", "w.test")
    made.add_verifier("v")
    for name in ("one", "two"):
        made.add_monitor(name)
    return made


@asynccontextmanager
async def serving(domain: TrustDomain, who: str, port: int, handler: Any) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    files = domain.monitor(who)
    context = listener_context(files.cert, files.key, domain.identity_ca)
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
def client(tmp_path: Path, domain: TrustDomain) -> Iterator[LogClient]:
    path = tmp_path / "verifier.toml"
    path.write_text(f'name = "v"\nlisten = "127.0.0.1:1"\ntrust = "{domain.path}"\nregister = "r.db"\n')
    made = LogClient(NAME, f"https://127.0.0.1:{free_port()}", load(path).listener)
    yield made
    made._close()


async def get(client: LogClient) -> bytes:
    return await asyncio.to_thread(client._get, "/x", 100)


async def test_who_answers_is_looked_at_on_every_connection(client: LogClient, domain: TrustDomain) -> None:
    """Another monitor of the same host takes the place of the one that ended the connection with its answer."""
    port = client._address[1]

    async def close(request: web.Request) -> web.StreamResponse:
        answer = web.Response(text="hello")
        answer.force_close()
        return answer

    async with serving(domain, "one", port, close):
        assert [await get(client), await get(client)] == [b"hello"] * 2
    async with serving(domain, "two", port, close):
        with pytest.raises(Unchecked, match=r"the server is spiffe:.*/two"):
            await get(client)


async def test_what_is_given_up_while_it_connects_asks_nothing(
    client: LogClient, domain: TrustDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is no connection yet that could be ended; and what comes later is not asked either."""
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text="hello")

    check = client._server.check
    monkeypatch.setattr(client._server, "check", lambda der: (client.abort(), check(der))[1])
    async with serving(domain, "one", client._address[1], answer):
        for _ in range(2):
            with pytest.raises(Unchecked, match="given up"):
                await get(client)
        assert asked == []
        monkeypatch.setattr(client._server, "check", check)
        client.begin()
        assert await get(client) == b"hello"


async def test_an_answer_without_end_is_not_read_to_its_end(client: LogClient, domain: TrustDomain) -> None:
    async def much(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 101)

    async with serving(domain, "one", client._address[1], much):
        with pytest.raises(Unchecked, match="more than 100 octets"):
            await get(client)
