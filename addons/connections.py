"""How many connections one caller, and all of them, may have open at one worker. What is beyond is closed at once.

That is no action, so it is no entry: it is reported once, until there is room again.
"""

from __future__ import annotations

import logging
from collections import Counter

from mitmproxy import connection

from ..formats.errors import VerificationError
from .identify import Identify

log = logging.getLogger(__name__)


class Connections:
    """Counts the connections of each caller. To stand behind `Identify` in the list of addons.

    The callers of a trust domain that is not `own` count as one: it names as many as it likes.
    """

    def __init__(self, identify: Identify, own: str, total: int, per_agent: int) -> None:
        self._identify = identify
        self._own = own
        self._total = total
        self._per_agent = per_agent
        self._owners: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._reported: set[str] = set()

    def client_connected(self, client: connection.Client) -> None:
        if client.error:
            return
        try:
            peer = self._identify.peer(client)
        except VerificationError as e:
            client.error = str(e)
            return
        agent = peer.spiffe_id if peer.trust_domain == self._own else peer.trust_domain
        if len(self._owners) >= self._total:
            self._refuse(client, "all callers", self._total)
        elif self._counts[agent] >= self._per_agent:
            self._refuse(client, agent, self._per_agent)
        else:
            self._owners[client.id] = agent
            self._counts[agent] += 1

    def _refuse(self, client: connection.Client, whose: str, limit: int) -> None:
        client.error = f"{limit} connections of {whose} are open already"
        if whose not in self._reported:
            self._reported.add(whose)
            log.warning("closing new connections: %s", client.error)

    def client_disconnected(self, client: connection.Client) -> None:
        agent = self._owners.pop(client.id, None)
        if agent is None:
            return
        self._counts[agent] -= 1
        if not self._counts[agent]:
            del self._counts[agent]
        self._reported -= {agent, "all callers"}
