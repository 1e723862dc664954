"""Sessions in which agents are shown certificates made for them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cryptography import x509
from mitmproxy import certs
from OpenSSL import SSL

from lictor.engine.agent_tls import AgentTls


@pytest.fixture
def store(pki: Any) -> certs.CertStore:
    return certs.CertStore.from_store(pki.path / "confdir", "mitmproxy", 2048)


def greet(server: SSL.Connection, name: str, ca: Any, offers: list[bytes]) -> SSL.Connection:
    """The client's session, after the handshake, which verifies the server."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER)
    context.load_verify_locations(str(ca))
    client = SSL.Connection(context)
    client.set_tlsext_host_name(name.encode())
    if offers:
        client.set_alpn_protos(offers)
    client.set_connect_state()
    for _ in range(3):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65535))
    return client


def test_an_agent_is_shown_the_certificate_and_its_chain(pki: Any, store: certs.CertStore) -> None:
    agents = AgentTls(store)
    for name in ("one.example", "two.example", "one.example"):
        entry = store.get_cert(name, [x509.DNSName(name)])
        client = greet(agents.session(entry, b""), name, pki.interception_file, [])
        shown = client.get_peer_cert_chain(as_cryptography=True)
        assert shown == [entry.cert.to_cryptography(), pki.interception.cert]


@pytest.mark.parametrize("alpn", [b"h2", b"http/1.1", b""])
def test_the_protocol_is_the_one_that_was_chosen(pki: Any, store: certs.CertStore, alpn: bytes) -> None:
    entry = store.get_cert("one.example", [x509.DNSName("one.example")])
    server = AgentTls(store).session(entry, alpn)
    client = greet(server, "one.example", pki.interception_file, [b"h2", b"http/1.1"])
    assert client.get_alpn_proto_negotiated() == alpn
