"""The API over real TLS: what it serves, to whom, how long it may be kept, and that it never shows what it must not."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from end_to_end.world import free_port

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.evidence.store import CheckpointRow
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note
from lictor.proxy.config import Config, load
from lictor.proxy.outside.api import Api, served_checkpoint

COUNT = 300


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("api") / "trust", "api.test")
    made.add_monitor("one")
    for agent in ("good", "revoked"):
        made.add_agent(agent)
    return made


@dataclass
class Served:
    config: Config
    domain: TrustDomain
    ledger: Ledger
    api: Api
    port: int

    def context(self, agent: str | None = "good", domain: TrustDomain | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.domain.identity_ca))
        if agent is not None:
            files = (domain or self.domain).agent(agent)
            context.load_cert_chain(files.cert, files.key)
        return context

    async def get(self, path: str, agent: str = "good", **headers: str) -> tuple[int, dict[str, str], bytes]:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            url = f"https://127.0.0.1:{self.port}{path}"
            async with session.get(url, ssl=self.context(agent), headers=headers) as answer:
                return answer.status, dict(answer.headers), await answer.read()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path, domain: TrustDomain) -> AsyncIterator[Serve]:
    made: list[Served] = []

    async def start(more: str = "", count: int = COUNT) -> Served:
        port = free_port()
        (tmp_path / "bindings").mkdir()
        path = tmp_path / "lictor.toml"
        path.write_text(
            f'[monitor]\nname = "one"\n[listen]\negress = "127.0.0.1:1"\napi = "127.0.0.1:{port}"\n'
            f'[identity]\ntrust = "{domain.path}"\n[bindings]\ndirectory = "bindings"\n[ledger]\npath = "l.db"\n{more}'
        )
        config = load(path)
        signer = KeySigner.from_file(config.monitor_dir / "evidence.key")
        ledger = Ledger.open(SqliteStore(config.ledger.path), "api.test/monitor/one", signer)
        ledger.put_document("key", signer.kid, evidence_jwk((config.monitor_dir / "evidence.pem").read_bytes()))
        for number in range(count):
            ledger.add({"n": number})
        await ledger.commit()
        api = Api(config, lambda: {"more": "said"})
        await api.start("127.0.0.1", port)
        made.append(Served(config, domain, ledger, api, port))
        return made[-1]

    yield start
    for served in made:
        await served.api.stop()
        await served.ledger.close()


async def test_what_is_served_and_how_long_it_may_be_kept(serve: Serve) -> None:
    served = await serve("[api]\nentries = true\n")
    forever = "max-age=31536000, immutable"
    for path, kind, keep, octets in [
        ("/tile/0/000", "application/octet-stream", f"public, {forever}", 8192),
        ("/tile/0/001.p/44", "application/octet-stream", f"public, {forever}", 44 * 32),
        ("/tile/1/000.p/1", "application/octet-stream", f"public, {forever}", 32),
        ("/tile/entries/001.p/44", "application/octet-stream", f"private, {forever}", None),
        ("/checkpoint", "text/plain; charset=utf-8", "max-age=1", None),
        ("/jwks.json", "application/jwk-set+json; charset=utf-8", "max-age=60", None),
        ("/healthz", "application/json; charset=utf-8", "no-store", None),
    ]:
        status, headers, body = await served.get(path)
        assert (path, status, headers["Content-Type"], headers["Cache-Control"]) == (path, 200, kind, keep)
        assert octets is None or len(body) == octets
    _, _, note = await served.get("/checkpoint")
    assert parse_note(note.decode()).text.startswith(f"api.test/monitor/one\n{COUNT}\n")
    _, _, health = await served.get("/healthz")
    assert json.loads(health) == {"status": "ok", "size": COUNT, "more": "said"}


async def test_the_keys_lead_to_the_ca(serve: Serve) -> None:
    served = await serve()
    _, _, body = await served.get("/jwks.json")
    keys = EvidenceKeys(served.domain.identity_ca.read_bytes())
    kid = keys.add_jwk(json.loads(body)["keys"][0])
    assert keys.resolve(kid, "spiffe://api.test/monitor/one")


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/002",
        "/tile/0/001",
        "/tile/0/001.p/45",
        "/tile/1/000",
        "/tile/0/x000/000",
        "/tile/64/000",
        "/tile/0/000/",
        "/tile/0/000.p/256",
        "/tile/..%2f..%2fl.db",
        "/tile/",
        "/tile/0/%30%30%30x",
        "/",
        "/l.db",
        "/metrics",
    ],
)
async def test_what_is_not_there(serve: Serve, path: str) -> None:
    served = await serve("[api]\nentries = true\n")
    assert (await served.get(path))[0] == 404


async def test_entries_are_served_only_where_that_is_configured(serve: Serve) -> None:
    served = await serve()
    status, _, body = await served.get("/tile/entries/000")
    assert (status, body) == (403, b"entries are not served here (api.entries)\n")


async def test_entries_come_compressed_to_who_can_read_that(serve: Serve) -> None:
    served = await serve("[api]\nentries = true\n")
    _, headers, plain = await served.get("/tile/entries/000", **{"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in headers
    _, headers, packed = await served.get("/tile/entries/000", **{"Accept-Encoding": "gzip"})
    assert (headers["Content-Encoding"], headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "CONNECT"])
async def test_it_is_read_only(serve: Serve, method: str) -> None:
    served = await serve()
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"https://127.0.0.1:{served.port}/checkpoint", ssl=served.context()) as answer,
    ):
        assert answer.status in (400, 404, 405)


async def test_nobody_without_a_good_certificate(serve: Serve, domain: TrustDomain, tmp_path: Path) -> None:
    served = await serve()
    stranger = TrustDomain.create(tmp_path / "stranger", "api.test")
    stranger.add_agent("good")
    for context in (served.context(None), served.context("good", stranger)):
        async with aiohttp.ClientSession() as session:
            with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
                await session.get(f"https://127.0.0.1:{served.port}/checkpoint", ssl=context)
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await session.get(f"http://127.0.0.1:{served.port}/checkpoint")


async def test_a_revoked_certificate_ends_at_the_next_request(serve: Serve, domain: TrustDomain) -> None:
    served = await serve()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=served.context("revoked"))) as session:
        url = f"https://127.0.0.1:{served.port}/checkpoint"
        async with session.get(url) as answer:
            assert answer.status == 200
        domain.revoke_agent("revoked")
        async with session.get(url) as answer:
            text = f"the certificate of {domain.agent('revoked').spiffe_id} is revoked\n"
            assert (answer.status, await answer.text()) == (403, text)


async def test_a_cosigned_checkpoint_is_served_before_a_newer_one(serve: Serve) -> None:
    served = await serve("[witnessing]\nquorum = 2\n", count=3)
    reader = SqliteReader(served.config.ledger.path)
    head = reader.last_checkpoint()
    assert served_checkpoint(reader, 2) == head
    for row in (CheckpointRow(1, "one", 3), CheckpointRow(2, "two", 2), CheckpointRow(3, "three", 1)):
        served.ledger.put_checkpoint(row)
    await served.ledger.commit()
    assert [row.size for row in reader.cosigned()] == [3, 2, 1]
    assert [served_checkpoint(reader, quorum) for quorum in (1, 2, 3, 4)] == ["three", "two", "one", head]
    served.ledger.put_checkpoint(CheckpointRow(3, "three with fewer", 0))
    served.ledger.put_checkpoint(CheckpointRow(2, "two with more", 3))
    await served.ledger.commit()
    assert [row.note for row in reader.cosigned()] == ["three", "two with more"]
    assert (await served.get("/checkpoint"))[2] == b"two with more"
    reader.close()


async def test_too_much_at_once_is_refused_and_the_ledger_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve()
    monkeypatch.setattr("lictor.proxy.outside.api.WAITING", 0)
    status, headers, _ = await served.get("/checkpoint")
    assert (status, headers["Retry-After"]) == (503, "1")
    served.ledger.add({"n": "one more"})
    await served.ledger.commit()


async def test_connections_are_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve()
    monkeypatch.setattr("lictor.certs.callers.CONNECTIONS", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=served.context())
    writer.write(b"GET /checkpoint HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await served.get("/checkpoint")
    writer.close()


async def test_a_port_in_use_is_named(serve: Serve) -> None:
    served = await serve()
    other = Api(served.config, dict)
    with pytest.raises(UsageError, match=f"listen.api: 127.0.0.1:{served.port}"):
        await other.start("127.0.0.1", served.port)
    await other.stop()


async def test_what_the_monitor_says_of_itself(serve: Serve) -> None:
    """The newest; nothing while there is none."""
    served = await serve()
    status, _, body = await served.get("/monitor")
    assert (status, body) == (404, b"the monitor has not described itself yet\n")
    for number in range(2):
        served.ledger.put_document("description", f"d{number}", {"token": f"a.{number}.c"})
    await served.ledger.commit()
    status, headers, body = await served.get("/monitor")
    assert (status, headers["Content-Type"], body) == (200, "application/monitor-description+jwt", b"a.1.c")
