"""Fetching a log from a server that may serve anything, in any time, without end."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lictor.certs.contexts import client_context, listener_context
from lictor.certs.domain import TrustDomain
from lictor.certs.servers import ExpectedServer
from lictor.evidence.export import FORMAT
from lictor.formats.canonical import canonical
from lictor.formats.errors import LictorError, UsageError, VerificationError
from lictor.verifier import fetching
from lictor.verifier.fetching import Unreachable, check_url, fetch

NAME = "fetch.test"
OK = b"HTTP/1.1 200 OK\r\n"
MOST = 1 << 20
Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]


def header(origin: str = f"{NAME}/monitor/one") -> bytes:
    return canonical({"lictor": FORMAT, "origin": origin, "checkpoint": "n", "first_seq": 0, "count": 9}) + b"\n"


FILE = header() + b'{"key":{}}\n' * 5


def body(data: bytes, head: str = "") -> bytes:
    return OK + f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def packed(data: bytes) -> bytes:
    return body(data, "Content-Encoding: gzip\r\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\nw\x1b\n[31mhy\n"
SLOW_NO = b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("fetching") / "trust", NAME)
    made.add_monitor("one")
    made.add_verifier("main")
    made.add_agent("auditor")
    return made


@asynccontextmanager
async def serving(domain: TrustDomain, talk: Talk, identity: str = "monitors/one") -> AsyncIterator[str]:
    files = domain.path / identity
    context = listener_context(files / "cert.pem", files / "key.pem", domain.identity_ca)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await talk(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def said(*parts: bytes) -> Talk:
    """Sends these and ends the connection."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    return talk


def forever(start: bytes, again: bytes, pause: float = 0) -> Talk:
    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)

    return talk


async def fetched(domain: TrustDomain, url: str, **more: Any) -> tuple[str, bytes]:
    files = domain.agent("auditor")
    context = client_context(domain.identity_ca, files.cert, files.key)
    expected = ExpectedServer(f"spiffe://{NAME}/monitor/*", NAME, domain.identity_ca, domain.crl)
    out = io.BytesIO()
    monitor = await fetch(url, context, expected, out, MOST, **more)
    return monitor, out.getvalue()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(body(FILE), id="plain"),
        pytest.param(packed(gzip.compress(FILE)), id="gzip"),
        pytest.param(CHUNKED + b"".join(chunk(bytes([octet])) for octet in FILE) + b"0\r\n\r\n", id="octet by octet"),
    ],
)
async def test_what_is_served_is_written(domain: TrustDomain, answer: bytes) -> None:
    told: list[tuple[int, int]] = []
    async with serving(domain, said(answer)) as url:
        monitor, data = await fetched(domain, url, progress=lambda *done: told.append(done))
    assert (monitor, data) == (f"spiffe://{NAME}/monitor/one", FILE)
    assert told[-1] == (6, 9)


async def test_a_long_file_unpacks_whole(domain: TrustDomain) -> None:
    data = header() + b'{"ect":"x"}\n' * 60_000
    async with serving(domain, said(packed(gzip.compress(data)))) as url:
        assert (await fetched(domain, url))[1] == data


@pytest.mark.parametrize(
    ("talk", "error", "message"),
    [
        pytest.param(said(body(b"")), VerificationError, "no evidence file", id="nothing"),
        pytest.param(said(body(b"hello\n")), VerificationError, "no evidence file", id="something else"),
        pytest.param(said(body(b"SQLite format 3\x00\n")), VerificationError, "no evidence file", id="a ledger"),
        pytest.param(
            said(body(header(f"{NAME}/monitor/two"))), VerificationError, "serves the log of", id="another's log"
        ),
        pytest.param(said(body(header("x" * 60_000))), VerificationError, "serves the log of", id="a long origin"),
        pytest.param(forever(CHUNKED, chunk(b"x" * 999)), VerificationError, "no evidence file", id="endless line"),
        pytest.param(
            forever(CHUNKED + chunk(FILE), chunk(b"x" * 9999)), Unreachable, "more than 1048576", id="never ends"
        ),
        pytest.param(said(packed(gzip.compress(FILE + bytes(1 << 26)))), Unreachable, "more than 1048576", id="a bomb"),
        pytest.param(said(packed(gzip.compress(FILE)[:-9])), Unreachable, "ended in the middle", id="gzip cut off"),
        pytest.param(said(packed(gzip.compress(FILE) + b"x")), Unreachable, "after the end", id="more after gzip"),
        pytest.param(said(packed(FILE)), Unreachable, "broke off", id="no gzip"),
        pytest.param(said(body(FILE, "Content-Encoding: br\r\n")), Unreachable, "encoding 'br'", id="brotli"),
        pytest.param(said(CHUNKED + chunk(FILE)), Unreachable, "broke off", id="cut off between chunks"),
        pytest.param(said(body(FILE)[:-1]), Unreachable, "broke off", id="an octet too few"),
        pytest.param(said(CHUNKED + b"zz\r\n"), Unreachable, "broke off", id="no chunk"),
        pytest.param(said(b"hello\r\n\r\n"), Unreachable, "broke off", id="no HTTP"),
        pytest.param(forever(OK, b"X: y\r\n" * 1000), Unreachable, "cannot be reached|in time", id="endless head"),
        pytest.param(forever(OK + b"X: ", b"y" * 5000), Unreachable, "cannot be reached", id="endless field"),
        pytest.param(said(REDIRECT), Unreachable, "answers 302", id="elsewhere"),
        pytest.param(said(REFUSED), Unreachable, r"answers 403: w  \[31mhy$", id="refused, in red"),
        pytest.param(said(b""), Unreachable, "broke off", id="hangs up"),
    ],
)
async def test_what_is_served_wrongly(domain: TrustDomain, talk: Talk, error: type[LictorError], message: str) -> None:
    async with serving(domain, talk) as url:
        with pytest.raises(error, match=message) as caught:
            await fetched(domain, url)
        assert url in str(caught.value)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        pytest.param(forever(OK + b"X: ", b"y", 0.05), "in time", id="head octet by octet"),
        pytest.param(forever(b"", b""), "in time", id="nothing at all"),
        pytest.param(forever(CHUNKED + chunk(FILE), chunk(b"x"), 0.05), "too slow", id="body octet by octet"),
        pytest.param(forever(CHUNKED + chunk(FILE), b"", 0.05), "too slow|in time", id="stops in the middle"),
        pytest.param(forever(SLOW_NO, b"", 0.05), "in time", id="says no slowly"),
    ],
)
async def test_who_is_slow_is_given_up(
    domain: TrustDomain, monkeypatch: pytest.MonkeyPatch, talk: Talk, message: str
) -> None:
    monkeypatch.setattr(fetching, "HEAD_S", 0.5)
    monkeypatch.setattr(fetching, "STRETCH_S", 0.3)
    async with serving(domain, talk) as url:
        with pytest.raises(Unreachable, match=message):
            await fetched(domain, url)


async def test_a_bomb_is_never_in_memory(domain: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(fetching._Received, "take", lambda self, data: taken.append(len(data)))
    monkeypatch.setattr(fetching._Received, "finish", lambda self: None)
    async with serving(domain, said(packed(gzip.compress(bytes(1 << 24))))) as url:
        await fetched(domain, url)
    assert (sum(taken), max(taken)) == (1 << 24, 1 << 16)


async def test_only_a_monitor_is_asked(domain: TrustDomain) -> None:
    asked = []

    async def talk(writer: asyncio.StreamWriter) -> None:
        asked.append(writer)

    async with serving(domain, talk, "verifiers/main") as url:
        with pytest.raises(Unreachable, match=r"verifier/main, expected spiffe://fetch.test/monitor/\*"):
            await fetched(domain, url)
    assert asked == [], "it got no request"


async def test_who_is_busy_is_asked_again(domain: TrustDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BUSY_S", 0)
    asked = 0

    async def talk(writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        await said(busy if asked != 3 else body(FILE))(writer)

    async with serving(domain, talk) as url:
        assert (await fetched(domain, url))[1] == FILE
        with pytest.raises(Unreachable, match="busy"):
            await fetched(domain, url)
    assert asked == 3 + fetching.BUSY_ASKED


async def test_nobody_there(domain: TrustDomain) -> None:
    with pytest.raises(Unreachable, match=r"https://127\.0\.0\.1:1 cannot be reached"):
        await fetched(domain, "https://127.0.0.1:1")


@pytest.mark.parametrize(
    "url",
    [
        "http://h:1",
        "https://h",
        "https://h:0",
        "https://h:x",
        "https://:1",
        "https://h:1/x",
        "https://h:1?x",
        "ftp://h:1",
    ],
)
def test_what_is_no_url_of_an_api(url: str) -> None:
    assert check_url("https://h:1/") == check_url("https://h:1") == "https://h:1"
    with pytest.raises(UsageError, match="https://HOST:PORT"):
        check_url(url)
