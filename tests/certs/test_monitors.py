"""What a monitor holds; above all that what mitmproxy mints with it is believed where it should be and nowhere else."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mitmproxy.certs import CertStore, CertStoreEntry
from OpenSSL import SSL

from lictor.certs.authority import read_certificate
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.formats.errors import UsageError


def mint(domain: TrustDomain, directory: Path, name: str) -> CertStoreEntry:
    """A leaf as mitmproxy makes it from a confdir that holds our file."""
    (directory / "mitmproxy-ca.pem").symlink_to(domain.monitor("north").interception)
    store = CertStore.from_store(directory, "mitmproxy", 2048)
    return store.get_cert(name, [x509.DNSName(name)])


def mitmproxy_server(entry: CertStoreEntry) -> SSL.Connection:
    """A server end built as mitmproxy's TlsConfig builds it."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    assert entry.chain_file is not None
    context.load_verify_locations(str(entry.chain_file), None)
    server = SSL.Connection(context)
    server.use_certificate(entry.cert.to_cryptography())
    server.use_privatekey(entry.privatekey)
    server.set_accept_state()
    return server


def meet(server: SSL.Connection, client: ssl.SSLContext, name: str) -> None:
    """A handshake in memory; raises the client's error."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(6):
        try:
            end.do_handshake()
            return
        except ssl.SSLWantReadError:
            pass
        server.bio_write(to_server.read())
        with pytest.raises(SSL.WantReadError):
            server.do_handshake()
        to_client.write(server.bio_read(65536))
    raise AssertionError("the handshake did not end")


@pytest.mark.parametrize("strict", [False, True])
def test_a_minted_leaf_verifies_with_the_root_as_only_anchor(domain: TrustDomain, tmp_path: Path, strict: bool) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(domain.interception_root)
    client.verify_flags = ssl.VerifyFlags.VERIFY_X509_STRICT if strict else ssl.VerifyFlags.VERIFY_DEFAULT
    meet(mitmproxy_server(mint(domain, tmp_path, "api.example")), client, "api.example")


def test_a_minted_leaf_is_for_its_name_only(domain: TrustDomain, tmp_path: Path) -> None:
    client = ssl.create_default_context(cafile=str(domain.interception_root))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        meet(mitmproxy_server(mint(domain, tmp_path, "api.example")), client, "other.example")


def test_a_minted_leaf_is_nothing_to_the_identity_ca(domain: TrustDomain, tmp_path: Path) -> None:
    client = ssl.create_default_context(cafile=str(domain.identity_ca))
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(mitmproxy_server(mint(domain, tmp_path, "api.example")), client, "api.example")


def test_the_intermediate_signs_servers_and_no_further_ca(domain: TrustDomain) -> None:
    cert = read_certificate(domain.monitor("north").interception)
    constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
    assert cert.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=30)


def test_names_of_a_monitor(domain: TrustDomain) -> None:
    cert = read_certificate(domain.monitor("north").cert)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "monitor.acme.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("host", ["", "*.example", "a b", "host:8080", "https://x", "-x", "ä.example", "a..b"])
def test_hosts_that_are_none(tmp_path: Path, host: str) -> None:
    trust = TrustDomain.create(tmp_path / "trust", "acme.example")
    with pytest.raises(UsageError, match="neither a DNS name nor an IP address"):
        trust.add_monitor("south", (host,))
    assert list((trust.path / "monitors").iterdir()) == []


def test_a_monitor_is_made_once(domain: TrustDomain) -> None:
    with pytest.raises(UsageError, match="exists already"):
        domain.add_monitor("north")


def test_renewal_changes_key_and_certificate_under_the_same_root(
    tmp_path: Path,
) -> None:
    trust = TrustDomain.create(tmp_path / "trust", "acme.example")
    trust.add_monitor("north")
    before = read_certificate(trust.monitor("north").interception)
    now = datetime.now(UTC)
    assert not trust.interception_due("north", now)
    assert trust.interception_due("north", now + timedelta(days=21))
    trust.renew_interception("north")
    after = x509.load_pem_x509_certificates(trust.monitor("north").interception.read_bytes())
    assert after[0].public_key() != before.public_key()
    after[0].verify_directly_issued_by(read_certificate(trust.interception_root))
    assert after[1].public_bytes(serialization.Encoding.PEM) == trust.interception_root.read_bytes()
    (tmp_path / "confdir").mkdir()
    client = ssl.create_default_context(cafile=str(trust.interception_root))
    meet(mitmproxy_server(mint(trust, tmp_path / "confdir", "api.example")), client, "api.example")


def test_a_verifier_holds_nothing_for_interception(tmp_path: Path) -> None:
    domain = TrustDomain.create(tmp_path / "trust", "acme.example")
    files = domain.add_verifier("v", ("verifier.acme.example",))
    assert str(files.spiffe_id) == "spiffe://acme.example/verifier/v"
    assert {path.name for path in files.directory.iterdir()} == {"cert.pem", "key.pem", "evidence.key", "evidence.pem"}
    assert stat.S_IMODE(files.directory.parent.stat().st_mode) == 0o700
    assert domain.verifier("v") == files
    keys = EvidenceKeys(domain.identity_ca.read_bytes())
    kid = keys.add_jwk(evidence_jwk(files.evidence_cert.read_bytes()))
    assert keys.resolve(kid, str(files.spiffe_id))
    with pytest.raises(UsageError, match="the verifier v exists already"):
        domain.add_verifier("v")
    with pytest.raises(UsageError, match=r"there is no verifier w in .*there: v"):
        domain.verifier("w")
    with pytest.raises(UsageError, match="there is no monitor v"):
        domain.monitor("v")
