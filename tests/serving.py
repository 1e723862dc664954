"""A Verifier's service over real TLS, every answer of which is held against openapi.json."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
from end_to_end.world import free_port

from lictor.certs.domain import TrustDomain
from lictor.verifier.service import ear
from lictor.verifier.service.api import openapi
from lictor.verifier.service.asking import verify
from lictor.verifier.service.config import load
from lictor.verifier.service.http import Service

AGENT = "spiffe://v.test/agent/good"


def write_config(folder: Path, domain: TrustDomain, more: str = "", port: int = 0) -> Path:
    path = folder / "verifier.toml"
    path.write_text(
        f'name = "v"\nlisten = "127.0.0.1:{port or free_port()}"\ntrust = "{domain.path}"\nregister = "r.db"\n{more}'
    )
    return path


def conforms(method: str, path: str, status: int, kind: str, body: bytes) -> None:
    """Raises unless openapi.json has such an answer."""
    document = openapi()
    said = document["paths"][path][method.lower()]["responses"][str(status)]["content"]
    (expected,) = said
    assert kind.partition(";")[0] == expected
    value = json.loads(body) if expected == "application/json" else body.decode()
    schema = {**said[expected]["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


@dataclass
class Served:
    domain: TrustDomain
    port: int

    def context(self, who: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.domain.identity_ca))
        if who is not None:
            kind, name = who.split("/")
            directory = self.domain.path / f"{kind}s" / name
            context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
        return context

    async def call(
        self, method: str, path: str, body: Any = None, who: str | None = "agent/good", template: str = ""
    ) -> tuple[int, bytes]:
        """Every answer is held against openapi.json."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{self.port}{path}"
            async with session.request(method, url, data=data, ssl=self.context(who)) as answer:
                found = await answer.read()
                conforms(method, template or path, answer.status, answer.headers["Content-Type"], found)
                return answer.status, found

    async def push(self, *tokens: str, keys: list[Any], who: str = "monitor/one") -> Any:
        status, body = await self.call("POST", "/evidence", {"keys": keys, "bets": tokens}, who)
        return json.loads(body)["verdicts"] if status == 200 else (status, body.decode())

    async def ask(self, *agents: str, **more: str) -> ear.Result:
        _, token = await self.call("POST", "/appraise", {"agents": agents or [AGENT], **more})
        _, jwks = await self.call("GET", "/jwks.json")
        return self.verified(token, jwks, agents or (AGENT,), more.get("nonce"))

    def verified(
        self,
        token: bytes,
        jwks: bytes,
        agents: tuple[str, ...],
        nonce: str | None,
        window: tuple[float, float] | None = None,
    ) -> ear.Result:
        ca = self.domain.identity_ca.read_bytes()
        return verify(token.decode(), jwks, ca, "spiffe://v.test/verifier/v", agents, time.time(), nonce, window)


@asynccontextmanager
async def serving(folder: Path, domain: TrustDomain, more: str = "") -> AsyncIterator[Served]:
    """A service that runs meanwhile; `more` is for its configuration."""
    config = load(write_config(folder, domain, more))
    service, ready = Service(config), asyncio.Event()
    running = asyncio.create_task(service.run(ready.set))
    await asyncio.wait({running, asyncio.ensure_future(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert not running.done(), running.result()
    yield Served(domain, config.listen[1])
    service.stop()
    await running
