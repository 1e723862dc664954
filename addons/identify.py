"""Who is calling: the client certificate of the listener's TLS, checked when it connects and again at every request."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cryptography import x509
from mitmproxy import connection

from ..certs.identity import peer_identity
from ..certs.revocation import RevocationList
from ..formats.errors import LictorError, VerificationError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """An authenticated caller."""

    spiffe_id: str
    serial: int
    expires: float


class Identify:
    """Keeps the peer of each client connection. No identity, no service: the connection is closed."""

    def __init__(
        self,
        peer_certificate: Callable[[connection.Client], bytes | None],
        trust_domain: str,
        revoked: RevocationList,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._peer_certificate = peer_certificate
        self._trust_domain = trust_domain
        self._revoked = revoked
        self._now = now
        self._peers: dict[str, tuple[connection.Client, Peer]] = {}

    def client_connected(self, client: connection.Client) -> None:
        try:
            self._peers[client.id] = (client, self._identify(client))
        except LictorError as e:
            log.warning("refused a connection from %s: %s", client.peername, e)
            client.error = str(e)

    def client_disconnected(self, client: connection.Client) -> None:
        self._peers.pop(client.id, None)

    def _identify(self, client: connection.Client) -> Peer:
        self._revoked.refresh()
        der = self._peer_certificate(client)
        if der is None:
            raise VerificationError("the connection has no client certificate")
        identity = peer_identity(der, self._trust_domain, self._now())
        certificate = x509.load_der_x509_certificate(der)
        peer = Peer(str(identity), certificate.serial_number, certificate.not_valid_after_utc.timestamp())
        self._check(peer)
        return peer

    def _check(self, peer: Peer) -> None:
        if self._revoked.is_revoked(peer.serial):
            raise VerificationError(f"the certificate of {peer.spiffe_id} is revoked")
        if self._now().timestamp() >= peer.expires:
            raise VerificationError(f"the certificate of {peer.spiffe_id} has expired")

    def peer(self, client: connection.Client) -> Peer:
        """The caller on this connection, still good now. Raises VerificationError."""
        found = self._peers.get(client.id)
        if found is None:
            raise VerificationError("the connection has no identity")
        self._revoked.refresh()
        self._check(found[1])
        return found[1]

    def connections_of(self, agents: Collection[str]) -> list[connection.Client]:
        """The open connections of these agents."""
        return [client for client, peer in self._peers.values() if peer.spiffe_id in agents]

    def no_longer_good(self) -> list[connection.Client]:
        """The open connections whose certificate is revoked or expired by now."""
        self._revoked.refresh()
        return [client for client, peer in self._peers.values() if not self._is_good(peer)]

    def _is_good(self, peer: Peer) -> bool:
        try:
            self._check(peer)
        except VerificationError as e:
            log.warning("ending a connection: %s", e)
            return False
        return True
