"""TLS towards upstream servers: who is trusted, what is shown to them."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy.proxy import server_hooks

from lictor.engine.upstream_tls import UpstreamIdentity
from lictor.formats.errors import VerificationError


class TestUpstream:
    @pytest.mark.parametrize("name", ["upstream-of-other-ca", "upstream-of-other-name"])
    async def test_a_server_that_cannot_be_verified_gets_no_request(
        self, serve: Any, start_upstream: Any, pki: Any, name: str
    ) -> None:
        async with start_upstream(pki.server_context(name)) as up, serve() as running, running.client() as client:
            assert (await client.get(up.url)).status_code == 502
            assert bytes(up.received) == b""

    async def test_ca_and_client_certificate_are_chosen_by_authority(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        cert, key = pki.files("agent")
        async with (
            start_upstream(pki.server_context("upstream-of-other-ca", pki.ca_file)) as strict,
            start_upstream(pki.server_context("upstream")) as plain,
            serve(
                upstream=lambda host, port: (
                    UpstreamIdentity(pki.other_ca_file, cert, key)
                    if (host, port) == ("127.0.0.1", strict.port)
                    else None
                )
            ) as running,
            running.client() as client,
        ):
            assert (await client.get(strict.url)).status_code == 200
            assert (await client.get(plain.url)).status_code == 200
            assert strict.peer_certificates == [pki.issued["agent"].der]
            assert plain.peer_certificates == [None]

    async def test_a_ca_file_replaced_in_place_is_used_by_the_next_connection(
        self, serve: Any, start_upstream: Any, pki: Any, tmp_path: Path
    ) -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(pki.other_ca.pem)
        async with start_upstream(pki.server_context("upstream")) as up, serve(upstream_ca=ca) as running:
            async with running.client() as client:
                assert (await client.get(up.url)).status_code == 502
            ca.write_bytes(pki.ca.pem + b"\n")
            async with running.client() as client:
                assert (await client.get(up.url)).status_code == 200

    async def test_a_missing_client_certificate_file_refuses_the_request(
        self, serve: Any, start_upstream: Any, pki: Any, tmp_path: Path
    ) -> None:
        identity = UpstreamIdentity(client_cert=tmp_path / "absent.pem")
        async with (
            start_upstream(pki.server_context("upstream")) as up,
            serve(upstream=lambda host, port: identity) as running,
            running.client() as client,
        ):
            with contextlib.suppress(httpx.TransportError):
                assert (await client.get(up.url)).status_code == 502
            assert bytes(up.received) == b""

    async def test_nothing_listens(self, serve: Any) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"https://127.0.0.1:{unused.getsockname()[1]}/"
            async with serve() as running, running.client() as client:
                assert (await client.get(url)).status_code == 502

    async def test_the_monitor_does_not_connect_to_itself(self, serve: Any) -> None:
        async with serve() as running, running.client() as client:
            assert "this monitor itself" in (await client.get(f"http://localhost:{running.port}/")).text

    async def test_an_address_refused_in_server_connect_is_not_dialled(self, serve: Any, start_upstream: Any) -> None:
        class Refuse:
            def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
                data.server.error = "refused"

        async with start_upstream() as up, serve(Refuse()) as running, running.client() as client:
            assert (await client.get(up.url)).status_code == 502
            assert up.connections == 0

    async def test_a_server_that_is_not_accepted_gets_no_request(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        asked: list[bytes] = []

        def accept(der: bytes) -> None:
            asked.append(der)
            raise VerificationError("not this one")

        identity = UpstreamIdentity(accept=accept)
        async with (
            start_upstream(pki.server_context("upstream")) as up,
            serve(upstream=lambda host, port: identity) as running,
            running.client() as client,
        ):
            answer = await client.get(up.url)
            assert (answer.status_code, bytes(up.received)) == (502, b"")
            assert "refuse the server: not this one" in answer.text
            assert asked == [pki.issued["upstream"].der], "the leaf, and nothing above it"

    async def test_a_server_that_is_not_accepted_any_more_is_left(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        good = True

        def accept(der: bytes) -> None:
            if not good:
                raise VerificationError("no more")

        identity = UpstreamIdentity(accept=accept)
        async with (
            start_upstream(pki.server_context("upstream")) as up,
            start_upstream(pki.server_context("upstream")) as other,
            serve(upstream=lambda host, port: identity if port == up.port else None) as running,
            running.client() as client,
        ):
            assert [(await client.get(one.url)).status_code for one in (up, other, up)] == [200] * 3
            running.engine.look_at_servers()
            assert [(await client.get(one.url)).status_code for one in (up, other)] == [200] * 2
            good, seen = False, bytes(up.received)
            running.engine.look_at_servers()
            assert [(await client.get(one.url)).status_code for one in (up, other)] == [502, 200]
            assert bytes(up.received) == seen
