"""Who waits for whom, in values. With sockets and memory: end_to_end/test_http2_upstream.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection

from lictor.engine.http2_windows import Windows
from lictor.engine.peer import Peer


class End:
    """An HTTP/2 end; `stuck` are the streams of which data waits here."""

    def __init__(self, conn: connection.Connection, streams: dict[int, Any]) -> None:
        self.conn, self.http = conn, SimpleNamespace(streams=streams)
        self.unread: dict[int, int] = {}
        self.waiting: set[int] = set()
        self.acknowledged: list[tuple[int, int]] = []
        self.flushed = 0

    def http_id(self, stream_id: int) -> int | None:
        return stream_id if stream_id < 100 else None

    def stuck(self, http_id: int) -> bool:
        return http_id in self.waiting

    def all_stuck(self) -> set[int]:
        return self.waiting

    def acknowledge(self, stream_id: int) -> None:
        self.acknowledged.append((stream_id, self.unread.pop(stream_id)))

    def flush(self) -> None:
        self.flushed += 1


class World:
    def __init__(self, *, server_speaks_2: bool = True) -> None:
        self.client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
        self.server = connection.Server(address=("a.example", 443))
        context = SimpleNamespace(client=self.client, server=self.server)
        self.stream = SimpleNamespace(context=context, stream_id=1, _paused=None)
        self.streams = {1: self.stream}
        self.peers = {self.client: Peer(), self.server: Peer()}
        self.windows = Windows(self.peers)
        self.front, self.back = End(self.client, self.streams), End(self.server, self.streams)
        self.windows.add(self.front)  # type: ignore[arg-type]
        if server_speaks_2:
            self.windows.add(self.back)  # type: ignore[arg-type]

    def opened(self, end: End) -> bool:
        """Whether what came in on stream 1 of this end is acknowledged."""
        end.unread[1] = 5
        self.windows.balance()
        return end.acknowledged == [(1, 5)] and end.flushed > 0


@pytest.mark.parametrize("side", ["front", "back"])
def test_what_has_been_passed_on_is_acknowledged(side: str) -> None:
    world = World()
    assert world.opened(getattr(world, side))


@pytest.mark.parametrize("side", ["front", "back"])
def test_what_waits_is_not_and_is_later(side: str) -> None:
    world = World()
    end, other = (world.front, world.back) if side == "front" else (world.back, world.front)
    other.waiting.add(1)
    assert not world.opened(end)
    other.waiting.clear()
    world.peers[other.conn].blocked = True
    assert not world.opened(end)
    world.peers[other.conn].blocked = False
    world.stream._paused = object()
    assert not world.opened(end)
    world.stream._paused = None
    assert world.opened(end)


def test_a_stream_that_is_over_holds_nothing_back() -> None:
    world = World()
    world.back.waiting.add(1)
    world.streams.clear()
    assert world.opened(world.front)
    world.front.acknowledged.clear()
    world.front.unread[101] = 7
    world.windows.balance()
    assert world.front.acknowledged == [(101, 7)]


@pytest.mark.parametrize("direction", ["download", "upload"])
def test_a_socket_of_http1_is_choked_while_its_data_waits(direction: str) -> None:
    world = World(server_speaks_2=False)
    if direction == "upload":  # the other way round: the client speaks HTTP/1.1
        world = World()
        world.windows = Windows(world.peers)
        world.windows.add(world.back)  # type: ignore[arg-type]
    end, source = (world.front, world.server) if direction == "download" else (world.back, world.client)
    end.waiting.add(1)
    world.windows.balance()
    assert world.peers[source].choked
    end.waiting.clear()
    world.windows.balance()
    assert not world.peers[source].choked


def test_a_server_of_http1_is_not_read_while_its_stream_waits_and_only_that_one() -> None:
    """It may wait long, for somebody's decision."""
    world = World(server_speaks_2=False)
    other = connection.Server(address=("a.example", 443))
    world.peers[other] = Peer()
    world.stream._paused = object()
    world.windows.balance()
    assert [peer.choked for peer in world.peers.values()] == [False, True, False]
    world.stream._paused = None
    world.windows.balance()
    assert not any(peer.choked for peer in world.peers.values())


def test_ends_whose_connection_is_gone_are_left_out() -> None:
    world = World()
    assert world.peers[world.server].windowed
    del world.peers[world.server], world.peers[world.client]
    world.windows.balance()
    assert not world.windows
