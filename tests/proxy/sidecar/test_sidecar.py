"""The sidecar before a TLS server that stands for the monitor: real sockets, real certificates."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lictor.certs.contexts import client_context, listener_context
from lictor.certs.domain import TrustDomain
from lictor.proxy.sidecar import sidecar as module
from lictor.proxy.sidecar.sidecar import MonitorAddress, Sidecar

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WAIT_S = 10


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("sidecar") / "trust", "acme.example")
    made.add_agent("alice")
    made.add_monitor("north")
    made.add_monitor("south")
    return made


@contextlib.asynccontextmanager
async def monitor(handler: Handler, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A TLS server; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listener(trust: TrustDomain, name: str = "north") -> ssl.SSLContext:
    files = trust.monitor(name)
    return listener_context(files.cert, files.key, trust.identity_ca)


def sidecar(
    trust: TrustDomain, port: int, problems: list[str] | None = None, *, host: str = "127.0.0.1", name: str = "north"
) -> Sidecar:
    files = trust.agent("alice")
    context = client_context(trust.identity_ca, files.cert, files.key)
    address = MonitorAddress(host, port, "acme.example", name or None)
    return Sidecar("alice", address, context, (problems if problems is not None else []).append)


def request(side: Sidecar, path: str = "/", token: str | None = None) -> bytes:
    credentials = f"lictor:{token or urlsplit(side.url).password}".encode()
    return (
        f"GET http://api.example{path} HTTP/1.1\r\nHost: api.example\r\n"
        f"Proxy-Authorization: Basic {base64.b64encode(credentials).decode()}\r\n\r\n"
    ).encode()


async def connect(side: Sidecar) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", side.port)


async def exchange(side: Sidecar, sent: bytes) -> bytes:
    """All that comes back until the sidecar closes."""
    reader, writer = await connect(side)
    async with asyncio.timeout(WAIT_S):
        writer.write(sent)
        received = await reader.read()
        writer.close()
    return received


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back the head that it got, then closes."""
    writer.write(await reader.readuntil(b"\r\n\r\n"))
    await writer.drain()


async def test_the_monitor_meets_the_agent_and_not_the_token(trust: TrustDomain) -> None:
    seen = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("ssl_object").getpeercert()["subjectAltName"])
        await answer_once(reader, writer)

    async with monitor(look, listener(trust)) as port, sidecar(trust, port) as side:
        received = await exchange(side, request(side, "/x"))
        token = urlsplit(side.url).password
    assert seen == [(("URI", "spiffe://acme.example/agent/alice"),)]
    assert received == b"GET http://api.example/x HTTP/1.1\r\nHost: api.example\r\n\r\n"
    assert token is not None
    assert len(token) >= 43, "256 bits"


async def test_each_run_has_its_own_token(trust: TrustDomain) -> None:
    async with sidecar(trust, 1) as one, sidecar(trust, 1) as two:
        assert urlsplit(one.url).password != urlsplit(two.url).password


@pytest.mark.parametrize("sent", [b"GET http://api.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n", None])
async def test_without_the_token_nothing_reaches_the_monitor(trust: TrustDomain, sent: bytes | None) -> None:
    connections = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)

    async with monitor(count, listener(trust)) as port, sidecar(trust, port) as side:
        received = await exchange(side, sent or request(side, token="guess"))
    assert received.startswith(b"HTTP/1.1 407 ")
    assert connections == []


async def test_a_body_of_a_refused_request_does_not_cost_it_its_answer(trust: TrustDomain) -> None:
    head = b"POST http://api.example/ HTTP/1.1\r\nContent-Length: 300000\r\n\r\n"
    async with sidecar(trust, 1) as side:
        assert (await exchange(side, head + b"x" * 300_000)).startswith(b"HTTP/1.1 407 ")


async def test_the_answer_to_a_refused_client_ends_at_once(trust: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 10 * WAIT_S)
    async with sidecar(trust, 1) as side:
        assert (await exchange(side, b"GET http://api.example/ HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 407 ")


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00", b"\x05\x01\x00"])
async def test_tls_and_socks_get_a_clear_answer_at_once(trust: TrustDomain, first: bytes) -> None:
    async with sidecar(trust, 1) as side:
        received = await exchange(side, first)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"The proxy URL starts with http://" in received


async def test_a_head_that_does_not_come_is_not_waited_for(trust: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_S", 0.1)
    async with sidecar(trust, 1) as side:
        assert await exchange(side, b"GET http://api.example/ HTTP/1.1\r\nHost:") == b""


async def test_bytes_go_both_ways_unchanged_with_what_came_after_the_head(trust: TrustDomain) -> None:
    body = bytes(range(256)) * 4096
    async with monitor(echo, listener(trust)) as port, sidecar(trust, port) as side:
        reader, writer = await connect(side)
        writer.write(request(side) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Proxy-Authorization" not in head
        assert await reader.readexactly(len(body)) == body
        writer.close()


async def test_a_reader_that_stops_stops_the_writer(trust: TrustDomain) -> None:
    """Back-pressure: neither side's bytes pile up in the sidecar."""
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        while sent < 64 << 20:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    async with monitor(pour, listener(trust)) as port, sidecar(trust, port) as side:
        _, writer = await connect(side)
        writer.write(request(side))
        before = -1
        while sent == 0 or before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < 32 << 20
        writer.transport.abort()


async def test_the_end_of_the_monitor_is_the_end_for_the_client(trust: TrustDomain) -> None:
    async with monitor(answer_once, listener(trust)) as port, sidecar(trust, port) as side:
        assert await exchange(side, request(side))


async def test_a_client_that_finished_sending_still_gets_its_answer(trust: TrustDomain) -> None:
    got_end = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await got_end.wait()
        writer.write(b"late answer")
        await writer.drain()

    async with monitor(late, listener(trust)) as port, sidecar(trust, port) as side:
        reader, writer = await connect(side)
        writer.write(request(side))
        writer.write_eof()
        asyncio.get_running_loop().call_later(0.2, got_end.set)
        assert await reader.read() == b"late answer"
        writer.close()


async def test_a_client_that_went_away_frees_the_monitor(trust: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALF_CLOSED_S", 0.1)
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x")
        await reader.read()
        ended.set()

    async with monitor(wait, listener(trust)) as port, sidecar(trust, port) as side:
        reader, writer = await connect(side)
        writer.write(request(side))
        assert await reader.readexactly(1) == b"x"
        writer.close()
        async with asyncio.timeout(WAIT_S):
            await ended.wait()


async def test_no_monitor_502_that_names_the_mend_and_is_told_once(trust: TrustDomain) -> None:
    problems: list[str] = []
    async with sidecar(trust, 1, problems) as side:
        for _ in range(2):
            received = await exchange(side, request(side))
            assert received.startswith(b"HTTP/1.1 502 lictor exec: monitor unreachable\r\n")
            assert b"127.0.0.1:1 cannot be reached: Connection refused. Start it with lictor up" in received
    assert len(problems) == 1


@pytest.mark.parametrize("who", ["another monitor", "another trust domain", "an agent", "no TLS", "old TLS"])
async def test_what_is_not_the_monitor_gets_nothing(trust: TrustDomain, tmp_path: Path, who: str) -> None:
    seen: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(100))

    context: ssl.SSLContext | None = listener(trust)
    match who:
        case "another monitor":
            context = listener(trust, "south")
        case "another trust domain":
            other = TrustDomain.create(tmp_path / "other", "acme.example")
            other.add_monitor("north")
            context = listener(other)
        case "an agent":
            files = trust.agent("alice")
            context = listener_context(files.cert, files.key, trust.identity_ca)
        case "no TLS":
            context = None
        case "old TLS":
            assert context is not None
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    problems: list[str] = []
    async with monitor(take, context) as port, sidecar(trust, port, problems) as side:  # type: ignore[arg-type]
        received = await exchange(side, request(side))
    assert received.startswith(b"HTTP/1.1 502 ")
    assert len(problems) == 1
    if who in ("no TLS", "old TLS"):
        assert b"TLS" in received
    else:
        assert b"not the monitor that lictor exec expects" in received
    assert not any(b"api.example" in data for data in seen)


async def test_any_monitor_of_the_trust_domain_when_no_name_is_known(trust: TrustDomain) -> None:
    async with monitor(answer_once, listener(trust, "south")) as port, sidecar(trust, port, name="") as side:
        assert (await exchange(side, request(side))).startswith(b"GET ")


async def test_the_address_must_be_a_name_of_the_monitor(trust: TrustDomain) -> None:
    """127.0.0.2 is the same machine and not in the certificate."""
    problems: list[str] = []
    async with monitor(answer_once, listener(trust)) as port:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.2", port, ssl=listener(trust))
        async with server, sidecar(trust, port, problems, host="127.0.0.2") as side:
            received = await exchange(side, request(side))
    assert b"IP address mismatch" in received


async def test_a_certificate_that_the_monitor_refuses(trust: TrustDomain, tmp_path: Path) -> None:
    """In TLS 1.3 the client learns it only after its handshake: from a connection that ends without an answer."""
    files = trust.monitor("north")
    other = TrustDomain.create(tmp_path / "other", "acme.example")
    context = listener_context(files.cert, files.key, other.identity_ca)
    problems: list[str] = []
    async with monitor(echo, context) as port, sidecar(trust, port, problems) as side:
        received = await exchange(side, request(side))
    assert received.startswith(b"HTTP/1.1 502 lictor exec: monitor gave no answer")
    assert b"expired or revoked: see lictor agent list" in received


async def test_leaving_ends_open_connections_and_complains_of_none(trust: TrustDomain) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with monitor(echo, listener(trust)) as port:
        async with sidecar(trust, port) as side:
            reader, writer = await connect(side)
            writer.write(request(side))
            await reader.readuntil(b"\r\n\r\n")
            port_of_sidecar = side.port
        async with asyncio.timeout(WAIT_S):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port_of_sidecar)
    assert complaints == []


async def test_leaving_does_not_wait_for_a_client_that_reads_nothing(trust: TrustDomain) -> None:
    ended = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    writer.write(bytes(1 << 16))
                    await writer.drain()
        ended.set()

    async with monitor(pour, listener(trust)) as port, asyncio.timeout(WAIT_S):
        async with sidecar(trust, port) as side:
            _, writer = await connect(side)
            writer.write(request(side))
            await ended.wait()
        writer.transport.abort()


async def test_a_slow_reader_gets_everything_after_the_monitor_has_closed(trust: TrustDomain) -> None:
    size = 3 << 20

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bytes(size))
        await writer.drain()

    async with monitor(pour, listener(trust)) as port, sidecar(trust, port) as side:
        reader, writer = await connect(side)
        writer.write(request(side))
        received = 0
        async with asyncio.timeout(WAIT_S):
            while chunk := await reader.read(1 << 16):
                received += len(chunk)
                await asyncio.sleep(0.01)
        assert received == size
        writer.close()
