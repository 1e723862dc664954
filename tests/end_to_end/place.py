"""Where most modules of this folder play: one monitor in front of one server. And a server for what is no HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import Any

from end_to_end.world import Monitor


@dataclass
class Place:
    """`server` is whatever has a port."""

    monitor: Monitor
    server: Any

    @property
    def at(self) -> str:
        """The server's authority."""
        return f"localhost:{self.server.port}"


class RawServer:
    """A TCP server on a free port; each connection is taken in a thread of its own."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self.take, args=(connection,), daemon=True).start()

    def take(self, connection: socket.socket) -> None:
        """What to do with a connection."""
        raise NotImplementedError

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
