"""Who a server is: callers of asyncio learn it before they have sent anything."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from lictor.certs.contexts import client_context, listener_context
from lictor.certs.domain import TrustDomain
from lictor.certs.servers import ExpectedServer
from lictor.formats.errors import VerificationError
from lictor.proxy import loop


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("servers") / "trust", "s.test")
    made.add_verifier("v")
    made.add_monitor("m")
    made.add_agent("a")
    return made


def expected(trust: TrustDomain, accepted: str, domain: str = "s.test") -> ExpectedServer:
    return ExpectedServer(accepted, domain, trust.identity_ca, trust.crl)


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


@pytest.mark.parametrize("accepted", ["spiffe://s.test/verifier/v", "spiffe://s.test/verifier/*"])
def test_the_one_expected(trust: TrustDomain, accepted: str) -> None:
    found = expected(trust, accepted).check(der(trust.verifier("v").cert))
    assert found == "spiffe://s.test/verifier/v"


@pytest.mark.parametrize(
    ("accepted", "domain", "file", "what"),
    [
        ("spiffe://s.test/verifier/w", "s.test", "verifiers/v", "expected spiffe"),
        ("spiffe://s.test/verifier/*", "s.test", "monitors/m", "the server is spiffe://s.test/monitor/m"),
        ("spiffe://s.test/verifier/v/*", "s.test", "verifiers/v", "the server is"),
        ("spiffe://s.test/agent/*", "s.test", "agents/a", "expected serverAuth"),
        ("spiffe://s.test/verifier/*", "t.test", "verifiers/v", "of the trust domain s.test"),
    ],
)
def test_others(trust: TrustDomain, accepted: str, domain: str, file: str, what: str) -> None:
    with pytest.raises(VerificationError, match=what):
        expected(trust, accepted, domain).check(der(trust.path / file / "cert.pem"))


def test_a_revoked_one(tmp_path: Path) -> None:
    trust = TrustDomain.create(tmp_path / "trust", "s.test")
    files, one = trust.add_verifier("v"), expected(trust, "spiffe://s.test/verifier/v")
    (trust.path / "agents/v").symlink_to(files.directory)
    one.check(der(files.cert))
    trust.revoke_agent("v")
    with pytest.raises(VerificationError, match="is revoked"):
        one.check(der(files.cert))


def test_no_certificate(trust: TrustDomain) -> None:
    with pytest.raises(VerificationError, match="no certificate"):
        expected(trust, "spiffe://s.test/verifier/v").check(None)


@pytest.mark.parametrize("run", [asyncio.run, loop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(("name", "good"), [("v", True), ("w", False)])
def test_nothing_is_sent_to_another(trust: TrustDomain, name: str, good: bool, run: Callable[..., None]) -> None:
    run(meet(trust, name, good))


async def meet(trust: TrustDomain, name: str, good: bool) -> None:
    files, agent = trust.verifier("v"), trust.agent("a")
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read())
        writer.close()

    listening = listener_context(files.cert, files.key, trust.identity_ca)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=listening)
    port = server.sockets[0].getsockname()[1]
    context = client_context(trust.identity_ca, agent.cert, agent.key)
    expected(trust, f"spiffe://s.test/verifier/{name}").watch(context)

    async def call() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"secret")
        writer.close()
        await writer.wait_closed()

    if good:
        await call()
        while not got:
            await asyncio.sleep(0.01)
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="expected spiffe://s"):
            await call()
    server.close()
    assert b"".join(got) == (b"secret" if good else b"")
