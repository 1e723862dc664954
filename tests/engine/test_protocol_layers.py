"""What is neither HTTP/1.1 nor TLS goes nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest

from lictor.engine.patience import TimeLimits


class TestOtherProtocols:
    @pytest.mark.parametrize(
        "sent",
        [b"SSH-2.0-OpenSSH_9.9\r\n", b"\x00\x01\x02\x03raw", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16"],
        ids=["ssh", "raw bytes", "h2 preface", "half a TLS record"],
    )
    @pytest.mark.parametrize("port", [None, 53], ids=["own port", "port 53"])
    async def test_bytes_in_a_tunnel_that_are_not_http_go_nowhere(
        self, serve: Any, start_upstream: Any, pki: Any, sent: bytes, port: int | None
    ) -> None:
        async with start_upstream() as up, serve(times=TimeLimits(head=0.3, idle=0.3)) as running:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", running.port, ssl=pki.proxy_context(), server_hostname="127.0.0.1"
            )
            writer.write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % (port or up.port))
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            answer = await reader.read()
            writer.close()
            assert up.connections == 0
        assert b" 200 " not in answer

    async def test_tls_after_a_first_byte_on_its_own_is_still_tls(
        self, serve: Any, start_upstream: Any, pki: Any
    ) -> None:
        async with start_upstream(pki.server_context("upstream")) as up, serve() as running:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", running.port, ssl=pki.proxy_context(), server_hostname="127.0.0.1"
            )
            writer.write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % up.port)
            await reader.readuntil(b"\r\n\r\n")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            inner = pki.target_context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with contextlib.suppress(ssl.SSLWantReadError):
                inner.do_handshake()
            hello = outgoing.read()
            writer.write(hello[:1])
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(hello[1:])
            while True:
                incoming.write(await reader.read(65536))
                try:
                    inner.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    continue
            writer.close()
        assert inner.version() == "TLSv1.3"
