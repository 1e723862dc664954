"""TLS towards agents inside tunnels: the context is made once, with the chain, and so is what OpenSSL reads.

mitmproxy gives its context a file to find the chain in, so that OpenSSL looks for it, and verifies it, at every
handshake; and it writes and reads again the certificate and the key for every session.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mitmproxy import certs
from mitmproxy.addons import tlsconfig
from mitmproxy.net import tls
from OpenSSL import SSL, crypto

CERTIFICATES_KEPT = 1024
MIN_VERSION = tls.Version.TLS1_2


class AgentTls:
    """Sessions with certificates of one store, all of which have one chain."""

    def __init__(self, store: certs.CertStore) -> None:
        self._context = tls.create_client_proxy_context(
            method=tls.Method.TLS_SERVER_METHOD,
            min_version=MIN_VERSION,
            max_version=tls.Version.UNBOUNDED,
            cipher_list=tlsconfig._default_ciphers(MIN_VERSION),
            ecdh_curve=None,
            chain_file=None,
            request_client_cert=False,
            alpn_select_callback=tlsconfig.alpn_select_callback,
            extra_chain_certs=tuple(store.default_chain_certs),
            dhparams=store.dhparams,
        )
        self._certificate = lru_cache(CERTIFICATES_KEPT)(crypto.X509.from_cryptography)
        self._key = lru_cache(1)(crypto.PKey.from_cryptography_key)

    def session(self, entry: certs.CertStoreEntry, alpn: bytes) -> SSL.Connection:
        """A session as server with this certificate, in which the protocol `alpn` is agreed on (b"": none)."""
        session = SSL.Connection(self._context)
        _use(session, self._certificate(entry.cert.to_cryptography()), self._key(entry.privatekey))
        session.set_app_data(tlsconfig.AppData(client_alpn=alpn, server_alpn=None, http2=False))
        session.set_accept_state()
        return session


def _use(session: SSL.Connection, certificate: Any, key: Any) -> None:
    # pyOpenSSL's own methods take cryptography's objects only, which they turn into these.
    lib: Any = SSL._lib  # type: ignore[attr-defined]
    used = lib.SSL_use_certificate(session._ssl, certificate._x509), lib.SSL_use_PrivateKey(session._ssl, key._pkey)
    if used != (1, 1):
        raise ValueError("OpenSSL did not take the certificate made for the agent, or its key")
