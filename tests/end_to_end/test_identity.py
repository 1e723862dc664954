"""No identity, no service: whoever does not show a good client certificate of this trust domain gets nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from end_to_end.place import Place
from end_to_end.wire import Wire, head
from end_to_end.world import Monitor, Outside, Server, binding, target, until

from lictor.certs.authority import CLIENT_AUTH, SERVER_AUTH, Issuer, create_root, issue, new_key, pem, sign_crl
from lictor.certs.domain import TrustDomain
from lictor.formats.keys import write_private

AGENT = "spiffe://test.internal/agent/default"


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(Server(outside)) as server:
        monitor = share_monitor(
            "identity",
            {"main": binding(data_source_access=["urn:test:data"])},
            target("urn:test:data", "data_source", f"https://localhost:{server.port}/**"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, server)


@dataclass
class Minted:
    """A certificate and how it is wrong."""

    names: tuple[str, ...] = (AGENT,)
    usages: tuple[Any, ...] = (CLIENT_AUTH,)
    issuer: str = "identity-ca"
    days: float = 1
    started: timedelta = timedelta(0)
    said: str | None = None
    """What the monitor's output says of it; None: TLS itself refuses it, before there is a connection to speak of."""


WRONG = {
    "expired": Minted(days=1, started=timedelta(days=-2)),
    "not yet valid": Minted(days=3, started=timedelta(days=1)),
    "of another CA": Minted(issuer="other"),
    "of the interception root": Minted(issuer="interception-root"),
    "of the interception key": Minted(issuer="interception"),
    "serverAuth only": Minted(usages=(SERVER_AUTH,)),
    "two URI names": Minted(names=(AGENT, "spiffe://test.internal/agent/other"), said="2 URI names"),
    "no URI name": Minted(names=(), said="0 URI names"),
    "URI of another scheme": Minted(names=("https://test.internal/agent/default",), said="not an identity"),
    "other trust domain": Minted(names=("spiffe://other.internal/agent/default",), said="other.internal"),
}


def mint(minted: Minted, domain: TrustDomain, monitor: Monitor, folder: Path) -> tuple[Path, Path]:
    if minted.issuer == "other":
        issuer = create_root("other", days=2, path_length=0)
    elif minted.issuer == "interception":
        bundle = domain.monitor(monitor.name).interception
        issuer = Issuer.load(bundle, bundle)
    else:
        issuer = Issuer.load(domain.path / f"{minted.issuer}.pem", domain.path / f"{minted.issuer}.key")
    key_ = new_key()
    cert = issue(
        issuer,
        key_.public_key(),
        subject="default",
        usages=minted.usages,
        names=[x509.UniformResourceIdentifier(n) for n in minted.names],
        days=minted.days,
        now=datetime.now(UTC) + minted.started,
    )
    chain = pem(cert) + (pem(issuer.cert) if minted.issuer != "identity-ca" else b"")
    (folder / "cert.pem").write_bytes(chain)
    write_private(folder / "key.pem", key_)
    return folder / "cert.pem", folder / "key.pem"


def served(place: Place, context: ssl.SSLContext) -> bool:
    """Whether anything at all is answered."""
    try:
        with Wire(place.monitor, context) as wire:
            return bool(wire.connect(place.at))
    except (OSError, EOFError):
        return False


@pytest.mark.parametrize("name", WRONG)
def test_wrong_certificate(place: Place, domain: TrustDomain, tmp_path: Path, name: str) -> None:
    minted, monitor = WRONG[name], place.monitor
    said, since, seen = len(monitor.output()), len(monitor.entries()), place.server.seen
    assert not served(place, monitor.caller_context(*mint(minted, domain, monitor, tmp_path)))
    if minted.said is not None:
        until(lambda: minted.said in monitor.output()[said:])
    assert served(place, monitor.agent_context()), "the control: a good certificate is served"
    assert place.server.seen == seen
    assert monitor.entries()[since:] == []


def test_mint_makes_good_certificates_too(place: Place, domain: TrustDomain, tmp_path: Path) -> None:
    """So that the ones above are refused for what is wrong with them."""
    assert served(place, place.monitor.caller_context(*mint(Minted(), domain, place.monitor, tmp_path)))


def test_no_certificate(place: Place) -> None:
    assert not served(place, place.monitor.caller_context())


@pytest.mark.parametrize(
    "data", [b"CONNECT localhost:1 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0" * 99]
)
def test_plaintext(place: Place, data: bytes) -> None:
    seen = place.server.seen
    with socket.create_connection(("127.0.0.1", place.monitor.port), timeout=15) as plain:
        plain.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := plain.recv(1000):
                answer += more
    assert b"HTTP/" not in answer
    assert place.server.seen == seen


def test_tls_1_2_is_refused(place: Place) -> None:
    context = place.monitor.agent_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not served(place, context)


def test_a_header_names_nobody(place: Place) -> None:
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at).request("GET", "/x", "X-Agent-Id: spiffe://test.internal/agent/root")
    assert place.monitor.wait_for(lambda e: "outcome_of" in e)["agent_id"] == AGENT


def test_revoked_while_connected(place: Place, domain: TrustDomain) -> None:
    """The connection ends by itself, no request on it is served any more, and no new one is taken."""
    domain.add_agent("short-lived")
    context = place.monitor.agent_context("short-lived")
    with Wire(place.monitor, context) as busy, Wire(place.monitor, context) as idle:
        assert busy.tunnel(place.at).request("GET", "/before").status == 200
        idle.tunnel(place.at)
        said, seen = len(place.monitor.output()), place.server.seen
        domain.revoke_agent("short-lived")
        with pytest.raises((EOFError, OSError)):
            busy.request("GET", "/after")
        assert idle.read_rest() == b""
    assert not served(place, context)
    until(lambda: "agent/short-lived is revoked" in place.monitor.output()[said:])
    assert place.server.seen == seen
    assert served(place, place.monitor.agent_context())


def test_revoked_in_the_middle_of_a_response(place: Place, domain: TrustDomain, monkeypatch: Any) -> None:
    domain.add_agent("reader")

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"x" * 1000)

    monkeypatch.setattr(place.server, "answer", answer)
    since = len(place.monitor.entries())
    with Wire(place.monitor, place.monitor.agent_context("reader")) as wire:
        wire.tunnel(place.at).send(head("GET", "/endless", f"Host: {place.at}"))
        assert wire.read_head()[0] == 200
        domain.revoke_agent("reader")
        assert len(wire.read_rest()) < 1_000_000_000
    outcome = place.monitor.outcome(since)
    assert (outcome["complete"], outcome["error"]) == (False, "revoked")


@pytest.mark.parametrize("what", ["missing", "garbage", "signed by another CA"])
def test_revocation_list_that_cannot_be_believed(
    place: Place, domain: TrustDomain, what: str, request: pytest.FixtureRequest
) -> None:
    good = domain.crl.read_bytes()
    request.addfinalizer(lambda: until(lambda: served(place, place.monitor.agent_context())))
    request.addfinalizer(lambda: domain.crl.write_bytes(good))
    if what == "missing":
        domain.crl.unlink()
    elif what == "garbage":
        domain.crl.write_bytes(b"-----BEGIN X509 CRL-----\n")
    else:
        domain.crl.write_bytes(sign_crl(create_root("other", days=2, path_length=0), [], number=9, days=1))
    assert not served(place, place.monitor.agent_context())
