"""The whole log for auditors, over real TLS: what they get, who they are, and that the ledger never waits for them."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from end_to_end.world import free_port

from lictor.certs.bundle import make_bundle
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.evidence import export
from lictor.evidence.export import export_lines
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.proxy.config import load
from lictor.proxy.outside import exporting
from lictor.proxy.outside.api import Api
from lictor.verifier.log import verify_lines

ORIGIN = "export.test/monitor/one"
AUDITORS = '[api]\nauditors = ["spiffe://export.test/agent/auditor", "spiffe://export.test/agent/more/*"]\n'


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("export") / "trust", "export.test")
    made.add_monitor("one")
    for agent in ("auditor", "auditors", "more"):
        made.add_agent(agent)
    return made


class Served:
    """A ledger of which the API serves the whole."""

    def __init__(self, ledger: Ledger, path: Path, domain: TrustDomain, port: int) -> None:
        self.ledger, self.path, self.domain, self.port = ledger, path, domain, port

    async def add(self, count: int) -> None:
        for number in range(count):
            self.ledger.add({"agent_id": f"spiffe://{ORIGIN}", "action_type": "x", "behaviors": [], "n": number})
        await self.ledger.commit()

    def lines(self) -> bytes:
        with closing(SqliteReader(self.path)) as reader:
            return b"".join(export_lines(reader))

    async def open(
        self, agent: str = "auditor", encoding: str = "gzip", of: TrustDomain | None = None
    ) -> aiohttp.ClientResponse:
        files = (of or self.domain).agent(agent)
        context = ssl.create_default_context(cafile=str(self.domain.identity_ca))
        context.load_cert_chain(files.cert, files.key)
        connector = aiohttp.TCPConnector(socket_factory=_little_room)
        self.session = aiohttp.ClientSession(connector=connector, auto_decompress=False, read_bufsize=1024)
        url = f"https://127.0.0.1:{self.port}/export"
        return await self.session.get(url, ssl=context, headers={"Accept-Encoding": encoding})

    async def get(self, agent: str = "auditor", encoding: str = "gzip") -> tuple[int, bytes]:
        answer = await self.open(agent, encoding)
        async with self.session, answer:
            data = await answer.read()
            return answer.status, gzip.decompress(data) if answer.headers.get("Content-Encoding") else data


def _little_room(address: Any) -> socket.socket:
    """A socket that takes little before it is read."""
    made = socket.socket(address[0], address[1])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    return made


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path, domain: TrustDomain) -> AsyncIterator[Serve]:
    made: list[tuple[Api, Ledger]] = []

    async def start(count: int, more: str = AUDITORS) -> Served:
        port = free_port()
        (tmp_path / "bindings").mkdir()
        path = tmp_path / "lictor.toml"
        path.write_text(
            f'[monitor]\nname = "one"\n[listen]\negress = "127.0.0.1:1"\napi = "127.0.0.1:{port}"\n'
            f'[identity]\ntrust = "{domain.path}"\n[bindings]\ndirectory = "bindings"\n[ledger]\npath = "l.db"\n{more}'
        )
        config = load(path)
        signer = KeySigner.from_file(config.monitor_dir / "evidence.key")
        ledger = Ledger.open(SqliteStore(config.ledger.path), ORIGIN, signer)
        ledger.put_document("key", signer.kid, evidence_jwk((config.monitor_dir / "evidence.pem").read_bytes()))
        api = Api(config, dict)
        made.append((api, ledger))
        served = Served(ledger, config.ledger.path, domain, port)
        await served.add(count)
        await api.start("127.0.0.1", port)
        return served

    yield start
    for api, ledger in made:
        await api.stop()
        await ledger.close()


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_an_auditor_gets_the_evidence_file(serve: Serve, encoding: str) -> None:
    served = await serve(1200)
    status, data = await served.get(encoding=encoding)
    assert (status, data) == (200, served.lines())
    report = verify_lines(data.splitlines(keepends=True), served.domain.identity_ca.read_bytes())
    assert (report.verdict, report.entries) == ("intact", 1200)


@pytest.mark.parametrize(("agent", "more"), [("auditors", AUDITORS), ("more", AUDITORS), ("auditor", "")])
async def test_nobody_else_gets_it(serve: Serve, agent: str, more: str) -> None:
    served = await serve(1, more)
    assert await served.get(agent) == (403, b"the whole log is for auditors (api.auditors)\n")


async def test_it_is_of_one_moment_while_the_log_goes_on(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BLOCK", 10)
    served = await serve(300)
    before = served.lines()
    answer = await served.open(encoding="identity")
    await served.add(500)
    async with served.session, answer:
        assert await answer.read() == before
    assert (await served.get())[1] == served.lines()


async def test_an_auditor_who_does_not_read_holds_nothing_and_is_let_go(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open read transaction would keep the write-ahead log from being cleared."""
    monkeypatch.setattr(export, "BLOCK", 10)
    monkeypatch.setattr(exporting, "PAUSE_S", 0)
    monkeypatch.setattr(exporting, "STALLED_S", 2)
    served = await serve(0)
    for _ in range(40):
        served.ledger.add({"filling": "x" * 500_000})
    await served.ledger.commit()
    answer = await served.open(encoding="identity")
    assert answer.status == 200
    session = served.session
    assert (await served.get())[0] == 503, "it is still under way"
    await served.add(1)
    assert await served.ledger.scrub(), "nothing is in the way"
    async with asyncio.timeout(20):
        while (await served.get())[0] == 503:
            await asyncio.sleep(0.1)
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
    await session.close()


async def test_a_few_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "EXPORTS", 0)
    served = await serve(1)
    answer = await served.open()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    await served.session.close()
    monkeypatch.setattr(exporting, "EXPORTS", 1)
    assert [(await served.get())[0] for _ in range(2)] == [200, 200]


async def test_the_auditors_of_a_partner_have_one_turn_together(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names as many as it likes; own auditors, each with a turn of its own, get theirs meanwhile."""
    monkeypatch.setattr(exporting, "PAUSE_S", 0)
    partner = TrustDomain.create(tmp_path / "partner", "partner.example")
    for name in ("one", "two"):
        partner.add_agent(name)
    bundle = tmp_path / "partner.json"
    bundle.write_text(json.dumps(make_bundle(partner)))
    named = '"spiffe://partner.example/agent/*", "spiffe://export.test/agent/auditor"'
    federation = f'[[federation]]\ntrust_domain = "partner.example"\nbundle = "{bundle}"\n'
    served = await serve(0, f"[api]\nauditors = [{named}]\n{federation}")
    for _ in range(40):
        served.ledger.add({"filling": "x" * 500_000})
    await served.ledger.commit()
    one = await served.open("one", "identity", partner)
    first = served.session
    two = await served.open("two", "identity", partner)
    assert (one.status, two.status) == (200, 503)
    await served.session.close()
    assert (await served.open("auditor", "identity")).status == 200
    await served.session.close()
    await first.close()


async def test_what_is_erased_meanwhile_breaks_it_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BLOCK", 10)
    monkeypatch.setattr(exporting, "PAUSE_S", 0.02)
    served = await serve(300)
    answer = await served.open(encoding="identity")
    await served.ledger.erase(290)
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
    await served.session.close()
    status, data = await served.get()
    assert (status, data) == (200, served.lines())
    assert data.count(b'{"erased":') == 290


@pytest.mark.parametrize("auditor", ["auditor", "spiffe://", "spiffe://a/*/b", "spiffe://a/b*", "*"])
async def test_auditors_that_are_no_pattern_are_refused(serve: Serve, auditor: str) -> None:
    with pytest.raises(UsageError, match="auditors"):
        await serve(0, f'[api]\nauditors = ["{auditor}"]\n')
