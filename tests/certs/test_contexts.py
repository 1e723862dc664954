"""The handshake: who is let in, who is not, and what the client checks of the monitor."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lictor.certs.authority import CLIENT_AUTH, Issuer, issue, new_key, pem
from lictor.certs.contexts import client_context, listener_context
from lictor.certs.domain import TrustDomain
from lictor.certs.identity import peer_identity
from lictor.formats.errors import UsageError
from lictor.formats.keys import write_private

Handshake = Callable[..., tuple[ssl.SSLObject, ssl.SSLObject]]


def listener(domain: TrustDomain) -> ssl.SSLContext:
    files = domain.monitor("north")
    return listener_context(files.cert, files.key, domain.identity_ca)


def agent(domain: TrustDomain) -> ssl.SSLContext:
    files = domain.agent("alice")
    return client_context(domain.identity_ca, files.cert, files.key)


def trusting(domain: TrustDomain, credentials: tuple[Path, Path] | None) -> ssl.SSLContext:
    """A client that trusts the monitor and shows whatever it was given."""
    context = ssl.create_default_context(cafile=str(domain.identity_ca))
    if credentials is not None:
        context.load_cert_chain(*credentials)
    return context


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "monitor.acme.example"])
def test_an_agent_and_its_monitor_meet(domain: TrustDomain, handshake: Handshake, name: str) -> None:
    client, server = handshake(listener(domain), agent(domain), name)
    der = server.getpeercert(binary_form=True)
    assert der is not None
    assert str(peer_identity(der, "acme.example", datetime.now(UTC))) == "spiffe://acme.example/agent/alice"
    assert client.version() == server.version() == "TLSv1.3"
    assert client.selected_alpn_protocol() == "http/1.1"


def test_a_monitor_is_let_in_by_another(domain: TrustDomain, handshake: Handshake) -> None:
    files = domain.monitor("north")
    handshake(listener(domain), client_context(domain.identity_ca, files.cert, files.key), "localhost")


@pytest.mark.parametrize(
    "kind",
    ["expired", "not yet valid", "other CA", "serverAuth only", "a CA's certificate", "evidence certificate"],
)
def test_the_listener_refuses(
    domain: TrustDomain, client: Callable[[str], Any], handshake: Handshake, tmp_path: Path, kind: str
) -> None:
    shown = trusting(domain, client(kind).write(tmp_path))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(listener(domain), shown, "localhost")


def test_the_listener_refuses_a_client_without_certificate(domain: TrustDomain, handshake: Handshake) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)peer did not return a certificate"):
        handshake(listener(domain), trusting(domain, None), "localhost")


def test_the_listener_refuses_the_monitors_evidence_certificate(domain: TrustDomain, handshake: Handshake) -> None:
    files = domain.monitor("north")
    shown = trusting(domain, (files.evidence_cert, files.evidence_key))
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(listener(domain), shown, "localhost")


@pytest.mark.parametrize("signed_by", ["intermediate", "interception root"])
def test_the_interception_keys_make_no_identities(
    domain: TrustDomain, handshake: Handshake, tmp_path: Path, signed_by: str
) -> None:
    """A leaf that looks like an agent's, minted with a key that workers hold (or its root's), opens nothing."""
    raw = domain.monitor("north").interception.read_bytes()
    certs = x509.load_pem_x509_certificates(raw)
    if signed_by == "intermediate":
        issuer = Issuer(certs[0], load_pem_private_key(raw, None))  # type: ignore[arg-type]
    else:
        issuer = Issuer.load(domain.interception_root, domain.path / "interception-root.key")
    key = new_key()
    names = [x509.UniformResourceIdentifier("spiffe://acme.example/agent/alice")]
    leaf = issue(issuer, key.public_key(), subject="alice", usages=[CLIENT_AUTH], names=names, days=1)
    cert = tmp_path / "client.pem"
    cert.write_bytes(pem(leaf) + b"".join(pem(one) for one in certs))
    write_private(tmp_path / "client.key", key)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(listener(domain), trusting(domain, (cert, tmp_path / "client.key")), "localhost")


def test_the_listener_speaks_nothing_older_than_tls_1_3(domain: TrustDomain, handshake: Handshake) -> None:
    old = agent(domain)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(listener(domain), old, "localhost")


def test_the_listener_hands_out_no_session(domain: TrustDomain, handshake: Handshake) -> None:
    client, server = handshake(listener(domain), agent(domain), "localhost")
    server.write(b"x")
    assert client.read(1) == b"x"
    assert client.session is None or not client.session.has_ticket


def test_the_client_refuses_another_name(domain: TrustDomain, handshake: Handshake) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(listener(domain), agent(domain), "elsewhere.example")


def test_the_client_refuses_a_monitor_of_another_ca(domain: TrustDomain, handshake: Handshake, tmp_path: Path) -> None:
    other = TrustDomain.create(tmp_path / "other", "acme.example")
    other.add_monitor("north")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed|signature failure"):
        handshake(listener(other), agent(domain), "localhost")


def test_the_client_refuses_an_agent_as_monitor(domain: TrustDomain, handshake: Handshake) -> None:
    files = domain.agent("alice")
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(listener_context(files.cert, files.key, domain.identity_ca), agent(domain), "localhost")


def test_errors_name_the_file(domain: TrustDomain, tmp_path: Path) -> None:
    files = domain.monitor("north")
    with pytest.raises(UsageError, match=r"missing\.pem"):
        listener_context(tmp_path / "missing.pem", files.key, domain.identity_ca)
    with pytest.raises(UsageError, match=r"missing-ca\.pem"):
        listener_context(files.cert, files.key, tmp_path / "missing-ca.pem")
    with pytest.raises(UsageError, match=r"missing\.key"):
        listener_context(files.cert, tmp_path / "missing.key", domain.identity_ca)
    with pytest.raises(UsageError, match=r"agents/alice/key\.pem"):
        listener_context(files.cert, domain.agent("alice").key, domain.identity_ca)


def test_a_key_open_to_others_is_refused(domain: TrustDomain, tmp_path: Path) -> None:
    files = domain.agent("alice")
    copy = tmp_path / "key.pem"
    copy.write_bytes(files.key.read_bytes())
    copy.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        client_context(domain.identity_ca, files.cert, copy)
