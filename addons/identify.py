"""Who is calling: the client certificate of the listener's TLS, checked when it connects and again at every request."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Collection

from mitmproxy import connection
from mitmproxy.proxy.mode_specs import ReverseMode

from ..certs.identities import Identities, Identity
from ..formats.errors import LictorError, VerificationError

log = logging.getLogger(__name__)


class Identify:
    """Keeps the peer of each client connection. No identity, no service: the connection is closed.

    Partners' monitors call at the ingress listener; a proxy for agents is there for its own trust domain alone.
    """

    def __init__(
        self,
        peer_certificate: Callable[[connection.Client], bytes | None],
        identities: Identities,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._peer_certificate = peer_certificate
        self._identities = identities
        self._now = now
        self._peers: dict[str, tuple[connection.Client, Identity]] = {}

    def client_connected(self, client: connection.Client) -> None:
        try:
            self._peers[client.id] = (client, self._identify(client))
        except LictorError as e:
            log.warning("refused a connection from %s: %s", client.peername, e)
            client.error = str(e)

    def client_disconnected(self, client: connection.Client) -> None:
        self._peers.pop(client.id, None)

    def _identify(self, client: connection.Client) -> Identity:
        der = self._peer_certificate(client)
        if der is None:
            raise VerificationError("the connection has no client certificate")
        own = not isinstance(client.proxy_mode, ReverseMode)
        return self._identities.client(der, self._now(), own=own)

    def peer(self, client: connection.Client) -> Identity:
        """The caller on this connection, still good now. Raises VerificationError."""
        found = self._peers.get(client.id)
        if found is None:
            raise VerificationError("the connection has no identity")
        self._identities.refresh(found[1].trust_domain)
        self._identities.check(found[1], self._now())
        return found[1]

    def connections_of(self, agents: Collection[str]) -> list[connection.Client]:
        """The open connections of these agents."""
        return [client for client, peer in self._peers.values() if peer.spiffe_id in agents]

    def no_longer_good(self) -> list[connection.Client]:
        """The open connections whose certificate is revoked or expired by now."""
        for trust_domain in {peer.trust_domain for _, peer in self._peers.values()}:
            self._identities.refresh(trust_domain)
        return [client for client, peer in self._peers.values() if not self._is_good(peer)]

    def _is_good(self, peer: Identity) -> bool:
        try:
            self._identities.check(peer, self._now())
        except VerificationError as e:
            log.warning("ending a connection: %s", e)
            return False
        return True
