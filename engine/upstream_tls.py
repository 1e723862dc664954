"""TLS towards upstream servers and, inside tunnels, towards agents.

Upstream certificates are always verified, for the name judged. Which CA is trusted and which client certificate is
shown is decided per authority; a file replaced in place is picked up with the next connection. HTTP/2 is spoken with an
agent that offers it, and with a server only on behalf of such an agent.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy import connection, tls
from mitmproxy.addons import tlsconfig
from OpenSSL import SSL
from OpenSSL.crypto import X509

from ..formats.errors import LictorError, UsageError
from .agent_tls import AgentTls

log = logging.getLogger(__name__)

HTTP1 = (b"http/1.1",)
HTTP2 = (b"h2", b"http/1.1")
CONTEXTS_MAX = 256


@dataclass(frozen=True, slots=True)
class UpstreamIdentity:
    """How one authority is met, in PEM files. `ca` replaces the default roots.

    `accept` looks at the server's own certificate (DER) besides: it raises LictorError for one that will not do.
    """

    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    accept: Callable[[bytes], None] | None = None


UpstreamLookup = Callable[[str, int], UpstreamIdentity | None]


class UpstreamTls(tlsconfig.TlsConfig):
    """Supplies the TLS contexts. mitmproxy's addon makes the certificates that agents are shown."""

    name = "tlsconfig"
    request = None  # type: ignore[assignment]  # mitmproxy's answers CRL downloads here; ours are not served by the proxy

    def __init__(self, default_ca: Path | None, lookup: UpstreamLookup) -> None:
        self._default_ca = default_ca or Path(certifi.where())
        self._lookup = lookup
        self._contexts: dict[object, SSL.Context] = {}
        self._agents: AgentTls | None = None

    def tls_clienthello(self, tls_clienthello: tls.ClientHelloData) -> None:
        """The agent's handshake never waits for a server: nothing goes upstream before the first request is judged."""
        tls_clienthello.establish_server_tls_first = False
        tls_clienthello.ignore_connection = False

    def tls_start_client(self, tls_start: tls.TlsData) -> None:
        """Start TLS with an agent, in the first of the protocols it offers that is spoken here; or else in HTTP/1.1."""
        if tls_start.is_dtls:
            raise ValueError("expected TLS over TCP")
        if self._agents is None:
            self._agents = AgentTls(self.certstore)
        chosen = next((offer for offer in tls_start.conn.alpn_offers if offer in HTTP2), b"")
        tls_start.ssl_conn = self._agents.session(self.get_cert(tls_start.context), chosen)

    def tls_start_server(self, tls_start: tls.TlsData) -> None:
        """Start verified TLS with a server. A context that cannot be made refuses the connection."""
        if tls_start.ssl_conn is not None:
            return
        server = tls_start.conn
        if not isinstance(server, connection.Server) or not server.address or tls_start.is_dtls:
            raise ValueError("expected TLS over TCP to a server with an address")
        host, port = server.address[0], server.address[1]
        if server.sni is None:
            server.sni = host
        identity = self._lookup(server.sni, port) or UpstreamIdentity()
        session = SSL.Connection(self.context(identity))
        _expect_name(session, server.sni)
        server.alpn_offers = offered(tls_start.context.client)
        session.set_alpn_protos(list(server.alpn_offers))
        session.set_connect_state()
        tls_start.ssl_conn = session

    def context(self, identity: UpstreamIdentity) -> SSL.Context:
        """The context for an identity, made again when a file has changed.

        Raises:
            UsageError: a file is missing or is not what it should be.
        """
        files = (identity.ca or self._default_ca, identity.client_cert, identity.client_key)
        key = (*(_stamp(path) for path in files), identity.accept)
        found = self._contexts.get(key)
        if found is None:
            found = upstream_context(*files, identity.accept)
            if len(self._contexts) >= CONTEXTS_MAX:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[key] = found
        return found

    def still_accepted(self, server: connection.Server) -> bool:
        """Whether a server that is connected to would be connected to now."""
        if not server.certificate_list or server.address is None:
            return True
        identity = self._lookup(server.sni or server.address[0], server.address[1])
        if identity is None or identity.accept is None:
            return True
        try:
            identity.accept(server.certificate_list[0].to_cryptography().public_bytes(Encoding.DER))
        except LictorError as e:
            log.warning("the connection to a server is closed: %s", e)
            return False
        return True


def offered(client: connection.Client) -> tuple[bytes, ...]:
    """What a server is offered. HTTP/2 costs more than HTTP/1.1 and gains nothing for who asks one thing at a time."""
    return HTTP2 if client.alpn == b"h2" else HTTP1


def upstream_context(
    ca: Path, client_cert: Path | None, client_key: Path | None, accept: Callable[[bytes], None] | None = None
) -> SSL.Context:
    """A client context that verifies; the handshake fails where `accept` does.

    Raises:
        UsageError: a file is missing or is not what it should be; the text names the files.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION)
    context.set_verify(SSL.VERIFY_PEER, _leaf_check(accept) if accept is not None else None)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    try:
        context.load_verify_locations(str(ca))
    except SSL.Error as error:
        raise UsageError(f"{ca}: expected PEM certificates of the CAs to trust upstream") from error
    if client_cert is not None:
        key = client_key or client_cert
        try:
            context.use_certificate_chain_file(str(client_cert))
            context.use_privatekey_file(str(key))
            context.check_privatekey()
        except SSL.Error as error:
            raise UsageError(f"{client_cert}, {key}: expected a PEM certificate and its private key") from error
    return context


class _NotAccepted(SSL.Error):
    """Ends a handshake; mitmproxy shows it as `OpenSSL …`."""

    def __repr__(self) -> str:
        return f"was told to refuse the server: {self}"


def _leaf_check(accept: Callable[[bytes], None]) -> Callable[[SSL.Connection, X509, int, int, int], bool]:
    def check(_: SSL.Connection, certificate: X509, error: int, depth: int, good: int) -> bool:
        if good and depth == 0:
            try:
                accept(certificate.to_cryptography().public_bytes(Encoding.DER))
            except LictorError as e:
                raise _NotAccepted(str(e)) from None
        return bool(good)

    return check


def _stamp(path: Path | None) -> tuple[Path, int, int] | None:
    if path is None:
        return None
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: expected a readable PEM file, found {error.strerror}") from error
    return path, state.st_mtime_ns, state.st_size


def _expect_name(session: SSL.Connection, name: str) -> None:
    # pyOpenSSL has no public way to set the expected name, so this goes by its bindings, as mitmproxy does.
    lib: Any = SSL._lib  # type: ignore[attr-defined]
    param = lib.SSL_get0_param(session._ssl)
    lib.X509_VERIFY_PARAM_set_hostflags(param, tlsconfig.DEFAULT_HOSTFLAGS)
    try:
        packed = ipaddress.ip_address(name).packed
    except ValueError:
        host = name.encode("idna")
        session.set_tlsext_host_name(host)
        done = lib.X509_VERIFY_PARAM_set1_host(param, host, len(host))
    else:
        done = lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed))
    if done != 1:
        raise ValueError("OpenSSL did not take the expected server name")
