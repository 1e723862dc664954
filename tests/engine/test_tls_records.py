"""TLS sessions over memory, by OpenSSL's own functions: what goes in on one side comes out on the other."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from mitmproxy import connection
from mitmproxy.proxy import events
from OpenSSL import SSL

from lictor.engine import tls_records


class TestTlsSessions:
    @pytest.fixture
    def sessions(self, pki: Any) -> tuple[SSL.Connection, SSL.Connection]:
        """A server's and a client's session, both established over memory."""
        certificate, key = pki.files("upstream")
        server_context = SSL.Context(SSL.TLS_SERVER_METHOD)
        server_context.use_certificate_file(str(certificate))
        server_context.use_privatekey_file(str(key))
        server, client = SSL.Connection(server_context), SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
        server.set_accept_state()
        client.set_connect_state()
        for _ in range(4):
            for one, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                if waiting := tls_records.pending(one._from_ssl):
                    other.bio_write(one.bio_read(waiting))
        return server, client

    def test_what_is_encrypted_together_is_read_in_order(self, sessions: tuple[Any, Any]) -> None:
        server, client = sessions
        big = bytes(range(256)) * 1000
        received = self.read(client, tls_records.encrypt(server, b"first") + tls_records.encrypt(server, big))
        assert received == b"first" + big

    def test_records_split_anywhere_are_read(self, sessions: tuple[Any, Any]) -> None:
        server, client = sessions
        records = tls_records.encrypt(server, b"x" * 40_000)
        received = b"".join(self.read(client, records[at : at + 1000]) for at in range(0, len(records), 1000))
        assert received == b"x" * 40_000

    def test_a_close_in_the_same_segment_as_data_is_seen(self, sessions: tuple[Any, Any]) -> None:
        server, client = sessions
        data = tls_records.encrypt(server, b"the last words")
        server.shutdown()
        data += server.bio_read(65535)
        tunnel = FakeTunnel(client)
        list(tls_records.receive_data(tunnel, data))  # type: ignore[arg-type]
        assert isinstance(tunnel.events[0], events.DataReceived)
        assert tunnel.events[0].data == b"the last words"
        assert isinstance(tunnel.events[1], events.ConnectionClosed)

    def test_nothing_is_sent_over_a_session_that_is_closed(self, sessions: tuple[Any, Any]) -> None:
        server, _ = sessions
        server.shutdown()
        server.bio_read(65535)
        assert tls_records.encrypt(server, b"too late") == b""

    @staticmethod
    def read(session: Any, data: bytes) -> bytes:
        tunnel = FakeTunnel(session)
        list(tls_records.receive_data(tunnel, data))  # type: ignore[arg-type]
        return b"".join(event.data for event in tunnel.events if isinstance(event, events.DataReceived))


class FakeTunnel:
    """As much of a TLSLayer as reading needs."""

    def __init__(self, session: Any) -> None:
        self.tls = session
        self.conn = connection.Server(address=None)
        self.conn.state = connection.ConnectionState.OPEN
        self.events: list[events.Event] = []

    def event_to_child(self, event: events.Event) -> Any:
        self.events.append(event)
        return iter(())

    def tls_interact(self) -> Any:
        return tls_records.interact(self)  # type: ignore[arg-type]
