"""Counting connections: of one caller, of all, and no longer than they last."""

from __future__ import annotations

import itertools
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from lictor.addons.connections import Connections
from lictor.formats.errors import VerificationError

_numbers = itertools.count()


class Names:
    """Stands for `Identify`: a client is who it says."""

    def peer(self, client: Any) -> Any:
        if client.name is None:
            raise VerificationError("the connection has no identity")
        domain = client.name.rpartition("/")[0]
        return SimpleNamespace(spiffe_id=client.name, trust_domain=domain or "own")


def client(name: str | None = "a", error: str | None = None) -> Any:
    return SimpleNamespace(id=str(next(_numbers)), name=name, error=error)


def counting(total: int = 5, per_agent: int = 3) -> Connections:
    return Connections(Names(), "own", total, per_agent)  # type: ignore[arg-type]


def connect(connections: Connections, *clients: Any) -> list[bool]:
    """Which of the clients may stay."""
    for one in clients:
        connections.client_connected(one)
    return [one.error is None for one in clients]


def test_one_caller_does_not_take_the_room_of_others() -> None:
    made = counting()
    assert connect(made, *(client("a") for _ in range(5))) == [True] * 3 + [False] * 2
    assert connect(made, client("b"), client("b"), client("b")) == [True, True, False], "and five are all"


def test_a_partner_does_not_take_all_room_under_many_names() -> None:
    made = counting(total=9)
    partners = [client(f"partner/{n}") for n in range(5)]
    assert connect(made, *partners) == [True] * 3 + [False] * 2
    assert connect(made, client("a"), client("b"), client("other/0")) == [True] * 3
    made.client_disconnected(partners[0])
    assert connect(made, client("partner/5"), client("partner/6")) == [True, False]


def test_room_comes_back() -> None:
    made = counting(per_agent=1)
    first, second = client(), client()
    assert connect(made, first, second) == [True, False]
    made.client_disconnected(second)
    assert connect(made, client()) == [False], "what was refused has given no room back"
    made.client_disconnected(first)
    assert connect(made, client()) == [True]


def test_nothing_is_kept_of_callers_that_have_gone() -> None:
    made = counting()
    clients = [client(f"agent-{n}") for n in range(3)]
    connect(made, *clients)
    for one in clients:
        made.client_disconnected(one)
    assert (made._owners, made._counts, made._reported) == ({}, {}, set())


def test_who_is_nobody_is_not_counted() -> None:
    made = counting(total=1)
    assert connect(made, client(error="revoked"), client(None)) == [False, False]
    assert connect(made, client()) == [True]


def test_reported_once_until_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    made, first = counting(per_agent=1), client()
    with caplog.at_level(logging.WARNING):
        connect(made, first, client(), client())
        assert len(caplog.records) == 1
        made.client_disconnected(first)
        connect(made, client(), client())
    assert [record.getMessage() for record in caplog.records] == [
        "closing new connections: 1 connections of a are open already"
    ] * 2
