"""Upstream servers are verified, always and for the name that was judged; each gets the identity meant for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from end_to_end.wire import Answer, Wire
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target

from lictor.certs.authority import CLIENT_AUTH, create_root, issue, new_key, pem
from lictor.formats.keys import write_private


@dataclass
class Place:
    monitor: Monitor
    servers: dict[str, Server]
    nobody: int


@pytest.fixture(scope="module")
def place(
    share_monitor: Callable[..., Monitor], outside: Outside, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """`default_ca` is the monitor's upstream CA; the server "own CA" is another's, named in its target."""
    folder = tmp_path_factory.mktemp("upstream")
    elsewhere = Outside(folder / "elsewhere")
    clients = create_root("clients", days=1, path_length=0)
    (folder / "clients.pem").write_bytes(pem(clients.cert))
    key = new_key()
    certificate = issue(clients, key.public_key(), subject="lictor", usages=[CLIENT_AUTH], names=[], days=1)
    (folder / "client.pem").write_bytes(pem(certificate))
    write_private(folder / "client.key", key)
    with contextlib.ExitStack() as stack:
        servers = {
            "good": Server(outside),
            "other name": Server(outside, cert=outside.issue("other.example")),
            "other address": Server(outside, cert=outside.issue("127.0.0.2")),
            "expired": Server(outside, cert=outside.issue("localhost", days=-1)),
            "unknown CA": Server(elsewhere),
            "own CA": Server(elsewhere),
            "not its own CA": Server(outside),
            "client certificate": Server(outside, client_ca=folder / "clients.pem"),
            "no client certificate": Server(outside, client_ca=folder / "clients.pem"),
            "plaintext": Server(None),
        }
        for server in servers.values():
            stack.callback(server.close)
        nobody = free_port()
        more = {
            "own CA": {"ca": elsewhere.ca},
            "not its own CA": {"ca": elsewhere.ca},
            "client certificate": {"client_cert": folder / "client.pem", "client_key": folder / "client.key"},
        }
        ports = {name: server.port for name, server in servers.items()} | {"nobody": nobody}
        monitor = share_monitor(
            "upstream",
            {"main": binding(data_source_access=["urn:test:*"])},
            "".join(
                target(
                    f"urn:test:{name.replace(' ', '-').lower()}",
                    "data_source",
                    f"https://{'127.0.0.1' if name == 'other address' else 'localhost'}:{port}/**",
                    **more.get(name, {}),
                )
                for name, port in ports.items()
            ),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, servers, nobody)


def get(place: Place, name: str) -> Answer:
    port = place.nobody if name == "nobody" else place.servers[name].port
    host = "127.0.0.1" if name == "other address" else "localhost"
    with Wire(place.monitor) as wire:
        return wire.tunnel(f"{host}:{port}").request("GET", f"/{name.replace(' ', '-')}")


@pytest.mark.parametrize("name", ["good", "own CA", "client certificate"])
def test_verified(place: Place, name: str) -> None:
    since = len(place.monitor.entries())
    assert get(place, name).status == 200
    assert place.monitor.outcome(since)["status"] == 200
    assert len(place.servers[name].requests) == 1


@pytest.mark.parametrize(
    "name",
    [
        "other name",
        "other address",
        "expired",
        "unknown CA",
        "not its own CA",
        "no client certificate",
        "plaintext",
        "nobody",
    ],
)
def test_not_verified(place: Place, name: str) -> None:
    """502; the action and that it came to nothing are both in the log, and no request was sent."""
    since = len(place.monitor.entries())
    answer = get(place, name)
    assert (answer.status, answer.json()["status"]) == (502, 502)
    assert "lictor" in answer.headers["proxy-status"]
    outcome = place.monitor.outcome(since)
    assert (outcome["status"], outcome["complete"], outcome["response_bytes"]) == (0, False, 0)
    assert answer.json()["detail"].startswith(outcome["error"])
    assert place.monitor.entries()[since]["decision"] == "allow"
    assert name == "nobody" or place.servers[name].requests == []


def test_the_configured_certificate_is_shown(place: Place) -> None:
    get(place, "client certificate")
    (shown, *_) = place.servers["client certificate"].clients
    assert shown["subject"] == ((("commonName", "lictor"),),)


def test_a_certificate_is_shown_only_where_it_is_meant_for(place: Place, tmp_path: Path) -> None:
    """A server that asks for one but is not configured to get one gets none."""
    assert get(place, "no client certificate").status == 502
    assert place.servers["no client certificate"].clients == []
