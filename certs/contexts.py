"""TLS contexts: TLS 1.3 only, both sides verified, OpenSSL's strict rules, our root alone or those of partners too."""

from __future__ import annotations

import ssl
from pathlib import Path
from tempfile import NamedTemporaryFile

from ..formats.errors import UsageError
from ..formats.keys import read_private
from .bundle import Bundle
from .partners import Partners


def listener_context(cert: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """The context of a listener: a client certificate of `ca` is required, and nothing is resumed.

    Without session tickets every connection shows its certificate anew: a revoked one cannot return on an old session.
    Raises UsageError naming the file that is wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    return _prepare(context, cert, key, ca)


def client_context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """The context of a client with the certificate `cert`; the server's name and its chain to `ca` are verified."""
    return _prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert, key, ca)


def _prepare(context: ssl.SSLContext, cert: Path, key: Path, ca: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Python versions differ in their defaults: no partial chains, so that only the root itself is an anchor.
    context.verify_flags = ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
    context.set_alpn_protocols(["http/1.1"])
    read_private(key)
    try:
        _load_chain(context, cert, key, ca)
    except OSError as e:
        raise UsageError(f"the certificate {cert} cannot be used with the key {key}: {e.strerror or e}") from None
    try:
        context.load_verify_locations(cafile=ca)
    except OSError as e:
        raise UsageError(f"the CA certificate {ca} cannot be used: {e.strerror or e}") from None
    return context


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path, ca: Path) -> None:
    """With the CA behind the certificate, OpenSSL need not look for it, and verify the chain, at every handshake."""
    chain = cert.read_bytes()
    if ca.is_file():
        chain += b"\n" + ca.read_bytes()
    with NamedTemporaryFile(suffix=".pem") as file:
        file.write(chain)
        file.flush()
        context.load_cert_chain(file.name, key)


def trust_partners(context: ssl.SSLContext, partners: Partners) -> None:
    """Complete handshakes with what partners' CAs have signed too, by the bundles that are in force at that time.

    A context cannot forget a CA, nor hold one to its own trust domain: look at who it is with `Identities`, always.
    """

    def take(bundle: Bundle) -> None:
        context.load_verify_locations(cadata=bundle.ca_pem.decode())

    partners.follow(take)
    if context.verify_mode is ssl.CERT_REQUIRED and context.protocol is ssl.PROTOCOL_TLS_SERVER:
        context.sni_callback = lambda session, name, of: partners.refresh()
