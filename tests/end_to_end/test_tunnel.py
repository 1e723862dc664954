"""Tunnels that are not intercepted: a pinned client gets through to where it may, and nothing else does."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from end_to_end.place import RawServer
from end_to_end.refused_upgrades import TUNNELS, hello, server_name
from end_to_end.talkers import send_until_blocked
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target

from lictor.formats import base64url

URN = "urn:test:tool:pinned"
ADDRESS = "urn:test:tool:by_address"
OTHERS = ("urn:test:tool:counting", "urn:test:tool:gone", "urn:test:tool:deaf")


class Counting(RawServer):
    """A TCP server that counts connections and keeps what it is sent; speaks first if it has something to say."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.connections = 0
        self.received = b""
        self._greeting = greeting
        super().__init__()

    def take(self, connection: socket.socket) -> None:
        self.connections += 1
        with contextlib.suppress(OSError), connection:
            connection.sendall(self._greeting)
            while data := connection.recv(65536):
                self.received += data


def trusting(outside: Outside) -> ssl.SSLContext:
    """A client that trusts the servers' CA only, not the monitor's."""
    context = ssl.create_default_context(cafile=str(outside.ca))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


@dataclass
class Place:
    monitor: Monitor
    server: Server
    counting: Counting
    denied: Counting
    outside: Outside
    gone: int
    deaf: int
    """Ports that nobody listens on, or not yet."""

    @property
    def at(self) -> str:
        return f"localhost:{self.server.port}"

    @property
    def context(self) -> ssl.SSLContext:
        return trusting(self.outside)

    @contextlib.contextmanager
    def wire(self) -> Iterator[Wire]:
        with Wire(self.monitor) as wire:
            assert wire.connect(self.at).status == 200
            yield wire.tls("localhost", self.context)


def actions(monitor: Monitor, since: int) -> list[dict[str, Any]]:
    return [entry for entry in monitor.entries()[since:] if "outcome_of" not in entry]


def ended(monitor: Monitor, since: int) -> dict[str, Any]:
    found: dict[str, Any] = monitor.wait_for(lambda e: e.get("outcome_of", -1) >= since, since)["outcome"]
    return found


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        server, counting, denied = Server(outside), Counting(b"220 mail.example ESMTP\r\n"), Counting()
        for one in (server, counting, denied):
            stack.callback(one.close)
        gone, deaf = free_port(), free_port()
        monitor = share_monitor(
            "tunnel",
            {
                "main": binding(
                    tunnel=[URN, ADDRESS, *OTHERS],
                    tool_call=["urn:test:tool:denied"],
                )
            },
            target(URN, "tool", f"https://localhost:{server.port}/**").rstrip()
            + "\npassthrough = true\n"
            + target(ADDRESS, "tool", f"https://127.0.0.1:{server.port}/**")
            + "passthrough = true\n"
            + target("urn:test:tool:counting", "tool", f"https://localhost:{counting.port}/**")
            + "passthrough = true\n"
            + target("urn:test:tool:gone", "tool", f"https://localhost:{gone}/**")
            + "passthrough = true\n"
            + target("urn:test:tool:deaf", "tool", f"https://localhost:{deaf}/**")
            + "passthrough = true\n"
            + target("urn:test:tool:denied", "tool", f"https://localhost:{denied.port}/**")
            + "passthrough = true\n",
        )
        yield Place(monitor, server, counting, denied, outside, gone, deaf)


def test_a_client_that_trusts_only_its_server_gets_through(place: Place) -> None:
    since = len(place.monitor.entries())
    with place.wire() as wire:
        for _ in range(2):
            assert wire.request("GET", "/anything?q=secret", host=place.at).json() == {"path": "/anything?q=secret"}
    outcome = ended(place.monitor, since)
    (entry,) = actions(place.monitor, since)
    assert (entry["action_type"], entry["action_target"], entry["decision"]) == ("tunnel", URN, "allow")
    assert entry["action_parameters"]["host"] == "localhost"
    assert entry["action_parameters"]["port"] == place.server.port
    assert (outcome["complete"], outcome["closed_by"]) == (True, "client")
    assert outcome["request_bytes"] > 500
    assert outcome["response_bytes"] > 500
    assert [name for name in outcome if name.endswith("digest")] == []


def test_a_server_that_closes(place: Place) -> None:
    since = len(place.monitor.entries())
    with place.wire() as wire:
        assert wire.request("GET", "/", "Connection: close", host=place.at).status == 200
        with contextlib.suppress(OSError, EOFError):
            wire.read_rest()
        assert ended(place.monitor, since)["closed_by"] == "server"


def test_many_bytes_both_ways(place: Place) -> None:
    """They arrive and are counted."""
    since, body = len(place.monitor.entries()), bytes(range(256)) * 16384
    with place.wire() as wire:
        assert wire.request("PUT", "/big", host=place.at, body=body).status == 200
    assert hashlib.sha256(place.server.requests[-1][3]).digest() == hashlib.sha256(body).digest()
    assert len(body) < ended(place.monitor, since)["request_bytes"] < len(body) * 1.1


def test_a_server_that_does_not_read_stops_the_agent(place: Place) -> None:
    """What cannot be passed on does not pile up in the monitor."""
    with socket.create_server(("127.0.0.1", place.deaf)) as listening, Wire(place.monitor) as wire:
        assert wire.connect(f"localhost:{place.deaf}").status == 200
        wire.send(hello(server_name(b"localhost")))
        connection, _ = listening.accept()
        with connection:
            send_until_blocked(wire, b"x" * 65536, 48 << 20)


def test_curl_with_a_pinned_key(place: Place, tmp_path: Path) -> None:
    key = x509.load_pem_x509_certificate(place.outside.cert.read_bytes()).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pin = hashlib.sha256(der).digest()
    agent = place.monitor.domain.path / "agents" / "default"

    def curl(pinned: bytes) -> subprocess.CompletedProcess[bytes]:
        text = base64url.encode(pinned).replace("-", "+").replace("_", "/") + "="
        proxy = ["-x", place.monitor.url, "--proxy-cacert", str(place.monitor.domain.identity_ca)]
        proxy += ["--proxy-cert", str(agent / "cert.pem"), "--proxy-key", str(agent / "key.pem")]
        pins = ["--pinnedpubkey", f"sha256//{text}", "--cacert", str(place.outside.ca)]
        return subprocess.run(
            ["curl", "-sS", "--max-time", "30", *proxy, *pins, f"https://{place.at}/pinned"],
            capture_output=True,
            timeout=60,
        )

    assert curl(pin).stdout == b'{"path": "/pinned"}'
    assert curl(hashlib.sha256(b"another").digest()).returncode == 90


def test_an_address_has_no_server_name(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        at = f"127.0.0.1:{place.server.port}"
        assert wire.connect(at).status == 200
        assert wire.tls("127.0.0.1", place.context).request("GET", "/x", host=at).status == 200
    assert actions(place.monitor, since)[0]["action_target"] == ADDRESS


def test_what_no_policy_lets_through_is_refused_at_connect(place: Place) -> None:
    """A binding that allows the target's own kind of action does not allow a tunnel to it."""
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        answer = wire.connect(f"localhost:{place.denied.port}")
    assert (answer.status, answer.json()["reason"]) == (403, "not_in_allowlist")
    (entry,) = actions(place.monitor, since)
    assert (entry["action_type"], entry["action_target"], entry["decision"]) == (
        "tunnel",
        "urn:test:tool:denied",
        "deny",
    )
    assert place.denied.connections == 0


@pytest.mark.parametrize("name", TUNNELS)
def test_refused(place: Place, name: str) -> None:
    """Nothing is connected to, nothing is sent, and the attempt is an entry."""
    first, reason = TUNNELS[name]
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        assert wire.connect(f"localhost:{place.counting.port}").status == 200
        wire.send(first)
        if reason == "cut short":
            wire.socket.shutdown(socket.SHUT_RDWR)
        else:
            with contextlib.suppress(OSError):
                assert b"ESMTP" not in wire.read_rest()
    reason = "not_tls" if reason == "cut short" else reason
    entry = place.monitor.wait_for(lambda e: e["action_type"] == "tunnel", since)
    assert (entry["decision"], entry["reason"]) == ("deny", reason)
    assert (entry["action_target"], entry["agent_id"]) == (
        "urn:test:tool:counting",
        "spiffe://test.internal/agent/default",
    )
    assert (place.counting.connections, place.counting.received) == (0, b"")


def test_a_silent_client_reaches_nobody(place: Place) -> None:
    """A server that speaks first is not even connected to."""
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        assert wire.connect(f"localhost:{place.counting.port}").status == 200
        wire.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            wire.read_some()
    assert place.counting.connections == 0
    assert actions(place.monitor, since) == []


def test_a_server_that_cannot_be_reached(place: Place) -> None:
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        assert wire.connect(f"localhost:{place.gone}").status == 200
        with pytest.raises((OSError, EOFError)):
            wire.tls("localhost", place.context)
    outcome = ended(place.monitor, since)
    assert (outcome["complete"], outcome["request_bytes"]) == (False, 0)
    assert outcome["error"]
