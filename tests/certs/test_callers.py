"""Listeners over mutual TLS: whom they let in, of this trust domain and of partners, looked at with every request."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from lictor.certs import callers as callers_module
from lictor.certs.authority import CLIENT_AUTH, Issuer, issue, new_key, pem
from lictor.certs.bundle import make_bundle
from lictor.certs.callers import CALLER, Callers
from lictor.certs.contexts import client_context
from lictor.certs.domain import TrustDomain
from lictor.certs.listener import Listener
from lictor.certs.partners import Federated
from lictor.formats.keys import write_private

OWN, PARTNER = "own.example", "partner.example"


@dataclass
class World:
    folder: Path
    domains: dict[str, TrustDomain]

    def listener(self, *partners: Federated) -> Listener:
        own = self.domains[OWN]
        files = own.monitor("m")
        return Listener("listen.test", files.cert, files.key, own.identity_ca, own.crl, OWN, partners)

    def export(self) -> Federated:
        path = self.folder / "bundle.json"
        path.write_text(json.dumps(make_bundle(self.domains[PARTNER])))
        return Federated(PARTNER, path)

    def caller(self, ca: str, uri: str) -> ssl.SSLContext:
        path, key = self.domains[ca].path, new_key()
        issuer = Issuer.load(path / "identity-ca.pem", path / "identity-ca.key")
        names = [x509.UniformResourceIdentifier(uri)]
        cert = issue(issuer, key.public_key(), subject="x", usages=[CLIENT_AUTH], names=names, days=1)
        files = self.folder / "caller.pem", self.folder / "caller.key"
        files[0].write_bytes(pem(cert))
        files[1].unlink(missing_ok=True)
        write_private(files[1], key)
        return client_context(self.domains[OWN].identity_ca, *files)


@pytest.fixture
def world(tmp_path: Path) -> World:
    domains = {name: TrustDomain.create(tmp_path / name, name) for name in (OWN, PARTNER)}
    for domain in domains.values():
        domain.add_monitor("m")
    return World(tmp_path, domains)


async def call(listener: Listener, context: ssl.SSLContext, between: Callable[[], object]) -> list[tuple[int, str]]:
    """Two requests on one connection, with something between them; what is answered to them."""
    callers = Callers(listener, 1024)

    async def say(request: web.Request) -> web.Response:
        return web.Response(text=request[CALLER])

    callers.app.router.add_get("/", say)
    await callers.start("127.0.0.1", 0)
    assert callers._server is not None
    port = callers._server.sockets[0].getsockname()[1]

    def ask() -> list[tuple[int, str]]:
        connection, answers = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=15), []
        for action in (between, lambda: None):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answers.append((answer.status, answer.read().decode().strip()))
            action()
        connection.close()
        return answers

    try:
        return await asyncio.to_thread(ask)
    finally:
        await callers.stop()


async def test_partners_where_they_are_let_in(world: World) -> None:
    uri = f"spiffe://{PARTNER}/monitor/x"
    listener, context = world.listener(world.export()), world.caller(PARTNER, uri)
    assert await call(listener, context, lambda: None) == [(200, uri)] * 2
    with pytest.raises((ssl.SSLError, OSError)):
        await call(world.listener(), context, lambda: None)


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ((f"spiffe://{PARTNER}/monitor/x",), 200),
        ((f"spiffe://{PARTNER}/monitor/*",), 200),
        ((), 403),
        ((f"spiffe://{PARTNER}/monitor/xx", f"spiffe://{PARTNER}/monitor"), 403),
    ],
)
async def test_partners_that_are_named(world: World, named: tuple[str, ...], status: int) -> None:
    listener = replace(world.listener(world.export()), named=named)
    answers = await call(listener, world.caller(PARTNER, f"spiffe://{PARTNER}/monitor/x"), lambda: None)
    assert answers[0][0] == status
    ours = await call(listener, world.caller(OWN, f"spiffe://{OWN}/monitor/x"), lambda: None)
    assert ours[0][0] == 200, "it is about partners alone"


@pytest.mark.parametrize(
    ("ca", "uri", "said"),
    [
        (PARTNER, f"spiffe://{OWN}/monitor/m", "not signed by the identity CA of own"),
        (OWN, f"spiffe://{PARTNER}/monitor/m", "not signed by the identity CA of partner"),
        (PARTNER, "spiffe://third.example/monitor/m", "of the trust domain third"),
    ],
)
async def test_who_names_another_domain(world: World, ca: str, uri: str, said: str) -> None:
    answers = await call(world.listener(world.export()), world.caller(ca, uri), lambda: None)
    assert [status for status, _ in answers] == [403] * 2
    assert said in answers[0][1]


async def test_a_partner_that_is_revoked_is_refused_at_its_next_request(world: World) -> None:
    listener, partner = world.listener(world.export()), world.domains[PARTNER]
    files = partner.monitor("m")
    context = client_context(world.domains[OWN].identity_ca, files.cert, files.key)

    def revoke() -> None:
        partner.revoke_monitor("m")
        world.export()

    assert await call(listener, context, revoke) == [
        (200, f"spiffe://{PARTNER}/monitor/m"),
        (403, f"the certificate of spiffe://{PARTNER}/monitor/m is revoked"),
    ]


async def test_a_connection_that_brings_no_request_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is let in can hold no room that way; one that asks keeps its connection."""
    monkeypatch.setattr(callers_module, "SILENT_S", 1.0)
    listener = world.listener()
    callers = Callers(listener, 1024)
    callers.app.router.add_get("/", lambda request: web.Response())
    await callers.start("127.0.0.1", 0)
    assert callers._server is not None
    port = callers._server.sockets[0].getsockname()[1]
    context = world.caller(OWN, f"spiffe://{OWN}/agent/a")
    half = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    asking = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    half[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    asking[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await asking[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await asyncio.wait_for(half[0].read(), 15) == b"", "ended without an answer"
    asking[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await asking[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert callers._silent == {}
    asking[1].close()
    await callers.stop()


@pytest.mark.parametrize("bound", ["CONNECTIONS_OF_ONE", "CONNECTIONS"])
async def test_nobody_holds_all_connections(world: World, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Counted once the handshake is done, requests or not; partners count together, since they name themselves."""
    monkeypatch.setattr(callers_module, bound, 3)
    callers = Callers(world.listener(world.export()), 1024)
    callers.app.router.add_get("/", lambda request: web.Response())
    await callers.start("127.0.0.1", 0)
    assert callers._server is not None
    port = callers._server.sockets[0].getsockname()[1]

    async def open_(ca: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = world.caller(ca, f"spiffe://{ca}/{name}")
        return await asyncio.open_connection("127.0.0.1", port, ssl=context)

    async def asks(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
        try:
            connection[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return (await asyncio.wait_for(connection[0].readline(), 15)).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False

    hog = [await open_(OWN, "agent/a") for _ in range(4)]
    assert await hog[3][0].read() == b"", "ended at once"
    others = [await open_(OWN, "agent/b"), *[await open_(PARTNER, f"monitor/{n}") for n in range(4)]]
    served = [await asks(one) for one in others]
    assert served == ([True] * 4 + [False] if bound == "CONNECTIONS_OF_ONE" else [False] * 5)
    hog[0][1].close()
    await hog[0][1].wait_closed()
    while not await asks(again := await open_(OWN, "agent/a")):
        again[1].close()
    for _, writer in (*hog, *others, again):
        writer.close()
    await callers.stop()
