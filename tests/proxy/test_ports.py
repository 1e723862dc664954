"""An address that is in use is told before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lictor.formats.errors import UsageError
from lictor.proxy.ports import check_free


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken


def test_port_in_use(listening: socket.socket) -> None:
    """Also one that would let itself be shared, such as another monitor's."""
    port = listening.getsockname()[1]
    with pytest.raises(UsageError, match=f"listen.egress: 127.0.0.1:{port}.*choose another port"):
        check_free("egress", ("127.0.0.1", port))


def test_free_port_stays_free(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    listening.close()
    for _ in range(2):
        check_free("egress", ("127.0.0.1", port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
def test_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(UsageError, match=r"listen\.api"):
        check_free("api", (host, 8443))
