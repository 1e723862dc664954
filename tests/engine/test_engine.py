"""The engine, with real sockets, under both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy import ctx, http

from lictor.engine.engine import REQUIRED_OPTIONS, Engine, EngineOptions, Listener, bound_socket
from lictor.formats.errors import UsageError


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_requests_pass_and_share_one_upstream_connection(
    serve: Any, start_upstream: Any, pki: Any, tls: bool
) -> None:
    async with start_upstream(pki.server_context("upstream") if tls else None) as up, serve() as running:
        async with running.client() as client:
            for _ in range(3):
                answer = await client.get(up.url + "/a?b=c")
                assert (answer.status_code, answer.text) == (200, "hello")
        assert up.connections == 1
        assert up.received.count(b"GET /a?b=c HTTP/1.1\r\n") == 3


async def test_the_hooks_of_an_https_request_run_in_the_documented_order(
    serve: Any, start_upstream: Any, pki: Any, seen: Any
) -> None:
    async with start_upstream(pki.server_context("upstream")) as up, serve(seen) as running, running.client() as client:
        await client.get(up.url)
    assert [name for name in seen.names if not name.endswith("disconnected")] == [
        "client_connected",
        "next_layer",
        "http_connect",
        "http_connected",
        "next_layer",
        "tls_clienthello",
        "tls_start_client",
        "tls_established_client",
        "next_layer",
        "requestheaders",
        "request",
        "server_connect",
        "server_connected",
        "tls_start_server",
        "tls_established_server",
        "responseheaders",
        "response",
    ]
    assert sorted(name for name in seen.names if name.endswith("disconnected")) == [
        "client_disconnected",
        "server_disconnected",
    ]


class TestWhoMayConnect:
    @pytest.mark.parametrize("certificate", [None, "stranger"], ids=["no certificate", "certificate of another CA"])
    async def test_a_client_without_our_certificate_is_refused(
        self, serve: Any, certificate: str | None, seen: Any
    ) -> None:
        async with serve(seen) as running, running.client(certificate) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("http://127.0.0.1:9/")
        assert seen.names == []

    async def test_plaintext_is_closed_without_a_byte(self, serve: Any, seen: Any) -> None:
        async with serve(seen) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await reader.read()
            writer.close()
        assert b"HTTP" not in answer
        assert seen.names == []

    async def test_the_certificate_of_the_outer_tls_is_known_in_every_hook(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        known: list[bytes | None] = []

        class Identify:
            def look(self, flow: http.HTTPFlow) -> None:
                known.append(running.engine.peer_certificate(flow.client_conn))

            http_connect = requestheaders = request = response = look

        async with (
            start_upstream(pki.server_context("upstream")) as up,
            serve(Identify()) as running,
            running.client() as client,
        ):
            await client.get(up.url)
        assert known == [pki.issued["agent"].der] * 4


class TestRefusingToRun:
    async def test_a_port_in_use_is_named(self, pki: Any) -> None:
        with socket.socket() as used:
            used.bind(("127.0.0.1", 0))
            used.listen()
            port = used.getsockname()[1]
            context = pki.server_context("listener", pki.ca_file)
            engine = Engine([Listener("127.0.0.1", port, "regular", context)], [], EngineOptions(pki.path / "confdir"))
            with pytest.raises(UsageError, match=f"127.0.0.1:{port}: the port is in use"):
                await engine.run()

    def test_without_sharing_a_port_shared_by_others_is_in_use(self) -> None:
        with bound_socket("127.0.0.1", 0, True) as first:
            first.listen()
            port = first.getsockname()[1]
            bound_socket("127.0.0.1", port, True).close()
            with pytest.raises(UsageError, match="in use"):
                bound_socket("127.0.0.1", port, False)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("ssl_insecure", True),
            ("rawtcp", True),
            ("http2", True),
            ("connection_strategy", "eager"),
            ("validate_inbound_headers", False),
            ("ignore_hosts", ["example.com"]),
            ("allow_hosts", ["example.com"]),
            ("tcp_hosts", ["example.com"]),
        ],
    )
    async def test_an_unsafe_option_is_named(self, serve: Any, option: str, value: object) -> None:
        class Meddle:
            def running(self) -> None:
                ctx.options.update(**{option: value})

        with pytest.raises(UsageError, match=f"option {option}: expected"):
            async with serve(Meddle()):
                pass

    async def test_an_option_changed_later_does_not_reach_connections(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        class Meddle:
            def client_connected(self, client: Any) -> None:
                ctx.options.update(validate_inbound_headers=False)

        async with start_upstream() as up, serve(Meddle()) as running:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", running.port, ssl=pki.proxy_context(), server_hostname="127.0.0.1"
            )
            smuggled = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            writer.write(b"POST %s/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" % up.url.encode() + smuggled)
            assert b" 400 " in await reader.readuntil(b"\r\n")
            writer.close()
            assert up.connections == 0

    async def test_no_interception_ca_is_made_up(self, serve: Any, pki: Any, tmp_path: Path) -> None:
        listener = Listener("127.0.0.1", 0, "regular", pki.server_context("listener", pki.ca_file))
        with pytest.raises(UsageError, match="interception CA"):
            await Engine([listener], [], EngineOptions(tmp_path)).run()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("mode", ["socks5", "transparent", "reverse:tcp://127.0.0.1:1", "no such mode"])
    async def test_a_mode_that_is_not_ours(self, pki: Any, mode: str) -> None:
        listener = Listener("127.0.0.1", 0, mode, pki.server_context("listener", pki.ca_file))
        with pytest.raises(UsageError, match=f'found "{mode}"'):
            await Engine([listener], [], EngineOptions(pki.path / "confdir")).run()

    def test_the_list_of_unsafe_options_is_complete(self) -> None:
        assert {"ssl_insecure", "rawtcp", "http2", "ignore_hosts", "validate_inbound_headers"} <= set(REQUIRED_OPTIONS)


async def test_a_reverse_listener_hands_on_to_its_one_server(serve: Any, start_upstream: Any, pki: Any) -> None:
    async with start_upstream() as up, serve(mode=f"reverse:http://127.0.0.1:{up.port}") as running:
        url = f"https://127.0.0.1:{running.port}/task"
        async with httpx.AsyncClient(verify=pki.proxy_context()) as client:
            assert (await client.get(url)).text == "hello"
        async with httpx.AsyncClient(verify=pki.proxy_context(None)) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(url)
        assert up.received.count(b"GET /task HTTP/1.1") == 1


async def test_shutdown_closes_open_connections(serve: Any, start_upstream: Any, pki: Any) -> None:
    async with start_upstream(pki.server_context("upstream")) as up:
        async with serve() as running:
            client = running.client()
            await client.get(up.url)
        assert running.task.done()
        assert running.engine._drivers == {}
        with pytest.raises(httpx.TransportError):
            await client.get(up.url)
        await client.aclose()
