"""Who must wait for whom on a client connection that speaks HTTP/2 on either side.

HTTP/2 has a window for each stream: what came in on one is acknowledged, and so more of it let in, only once the other
side has taken it. Its sockets are read on, since windows are opened there. A socket of HTTP/1.1 has no such window: it
is not read while what came from it waits here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from mitmproxy.connection import Client, Connection
from mitmproxy.proxy.layers.http import HttpLayer, HttpStream

from .peer import Peer


class End(Protocol):
    """One HTTP/2 connection, of the client or to a server (`http2_streams`)."""

    conn: Connection
    http: HttpLayer
    unread: dict[int, int]

    def http_id(self, stream_id: int) -> int | None: ...
    def stuck(self, http_id: int) -> bool: ...
    def all_stuck(self) -> Iterable[int]: ...
    def acknowledge(self, stream_id: int) -> None: ...
    def flush(self) -> None: ...


class Windows:
    """The HTTP/2 ends of one client connection and of its upstream connections."""

    def __init__(self, peers: Mapping[Connection, Peer]) -> None:
        self._peers = peers
        self._ends: dict[Connection, End] = {}

    def __bool__(self) -> bool:
        return bool(self._ends)

    def add(self, end: End) -> None:
        """An end begins. It is left out again once its connection is gone."""
        self._ends[end.conn] = end
        if (peer := self._peers.get(end.conn)) is not None:
            peer.windowed = True

    def balance(self) -> None:
        """Open the windows of what has been passed on, and say which peers are `choked`."""
        for connection, end in list(self._ends.items()):
            if connection not in self._peers:
                del self._ends[connection]
            elif end.unread:
                for stream_id in list(end.unread):
                    if not self._waits(end, stream_id):
                        end.acknowledge(stream_id)
                end.flush()
        choked = {self._source(end, found) for end in self._ends.values() for found in end.all_stuck()}
        for end in self._ends.values():
            if isinstance(end.conn, Client):  # what a stream waits for must not stop the others
                choked.update(found.context.server for found in end.http.streams.values() if found._paused)
        for connection, peer in self._peers.items():
            peer.choked = connection in choked

    def _waits(self, end: End, stream_id: int) -> bool:
        """Whether what came in on a stream has not left this process yet."""
        http_id = end.http_id(stream_id)
        stream = None if http_id is None else end.http.streams.get(http_id)
        if stream is None:
            return False
        if stream._paused:
            return True
        sink = self._other(stream, end)
        peer, other = self._peers.get(sink), self._ends.get(sink)
        return peer is not None and (peer.blocked or (other is not None and other.stuck(stream.stream_id)))

    def _source(self, end: End, http_id: int) -> Any:
        stream = end.http.streams.get(http_id)
        return None if stream is None else self._other(stream, end)

    @staticmethod
    def _other(stream: HttpStream, end: End) -> Connection:
        client: Connection = stream.context.client
        return stream.context.server if end.conn is client else client
