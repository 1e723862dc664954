"""What is allowed passes unharmed: the server gets what was sent, the agent gets what was answered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from end_to_end.legitimate_requests import LEGITIMATE, SCRIPTS, Exchange
from end_to_end.place import Place
from end_to_end.verbatim import VerbatimServer
from end_to_end.wire import Answer, Wire, chunked, head
from end_to_end.world import Monitor, Outside, binding, target

URN = "urn:test:tool:mcp"


@pytest.fixture(scope="module")
def place(share_monitor: Callable[..., Monitor], outside: Outside) -> Iterator[Place]:
    with contextlib.closing(VerbatimServer(outside, SCRIPTS)) as server:
        url = f"https://localhost:{server.port}"
        monitor = share_monitor(
            "legitimate",
            {"main": binding(tool_call=[URN, f"{URN}#tools/add"], http_request=[f"{url}/open/**"])},
            target(URN, "tool", f"{url}/mcp", protocol="mcp"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, server)


def send(wire: Wire, exchange: Exchange, authority: str) -> None:
    fields = (f"Host: {authority}", *exchange.fields)
    if exchange.body is None and exchange.method == "POST":
        wire.send(head(exchange.method, exchange.path, *fields, "Transfer-Encoding: chunked"))
        wire.send(b"".join(chunked(exchange.chunks)))
        return
    wire.send(head(exchange.method, exchange.path, *fields, body=exchange.body) + (exchange.body or b""))


def answer_of(wire: Wire, exchange: Exchange) -> Answer:
    status, phrase, fields = wire.read_head()
    while status in (100, 102, 103):
        status, phrase, fields = wire.read_head()
    bodiless = exchange.method == "HEAD" or status in (204, 304)
    return Answer(status, phrase, fields, b"" if bodiless else wire._body(fields))


@pytest.mark.parametrize("name", LEGITIMATE)
def test_passes_unharmed(place: Place, name: str) -> None:
    exchange = LEGITIMATE[name]
    before = len(place.server.got)
    with Wire(place.monitor) as wire:
        send(wire.tunnel(place.at), exchange, place.at)
        answer = answer_of(wire, exchange)
    (got,) = place.server.got[before:]
    sent = exchange.body if exchange.body is not None else b"".join(exchange.chunks)
    assert got.line == f"{exchange.method} {exchange.path} HTTP/1.1"
    assert got.body == sent
    fields = [field.partition(":") for field in exchange.fields]
    assert got.fields == [(name, value.strip()) for name, _, value in fields if name != "Expect"]  # the monitor met it
    assert answer.status == exchange.status
    assert answer.body == (sent if exchange.answer is None else exchange.answer)
    for field, value in exchange.answered:
        assert answer.headers[field] == value


def test_all_of_them_over_one_connection(place: Place) -> None:
    """As agents do it; but not those answers that end with their connection, by what they say or by their version."""
    before = len(place.server.got)
    several = {name: e for name, e in LEGITIMATE.items() if not name.startswith("answer ")}
    with Wire(place.monitor) as wire:
        wire.tunnel(place.at)
        for name, exchange in several.items():
            send(wire, exchange, place.at)
            assert answer_of(wire, exchange).status == exchange.status, name
    assert len(place.server.got) == before + len(several)


def test_at_least_sixty() -> None:
    assert len(LEGITIMATE) >= 60
