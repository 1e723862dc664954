"""Fixtures: the outside world, a trust domain, servers and monitors for one test or for a whole module."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.world import Monitor, Outside, Server, binding

from lictor.certs.domain import TrustDomain


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Outside:
    return Outside(tmp_path_factory.mktemp("outside") / "world")


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("domain") / "trust", "test.internal")
    made.add_agent("default")
    return made


@pytest.fixture
def server(outside: Outside) -> Iterator[Server]:
    with contextlib.closing(Server(outside)) as made:
        yield made


@pytest.fixture
def make_monitor(tmp_path: Path, domain: TrustDomain) -> Iterator[Callable[..., Monitor]]:
    """Makes and starts monitors; all are stopped at the end, and must have ended well."""
    yield from _maker(tmp_path, domain)


@pytest.fixture(scope="module")
def share_monitor(tmp_path_factory: pytest.TempPathFactory, domain: TrustDomain) -> Iterator[Callable[..., Monitor]]:
    """The same for a whole module."""
    yield from _maker(tmp_path_factory.mktemp("shared"), domain)


def _maker(path: Path, domain: TrustDomain) -> Iterator[Callable[..., Monitor]]:
    made: list[Monitor] = []

    def make(name: str, *args: Any, start: bool = True, **kwargs: Any) -> Monitor:
        monitor = Monitor(path / name, domain, f"{name}-{os.getpid()}-{path.name}"[:60], *args, **kwargs)
        made.append(monitor)
        return monitor.start() if start else monitor

    yield make
    codes = [monitor.stop() for monitor in made]
    assert all(code in (0, -signal.SIGKILL) for code in codes), [monitor.output() for monitor in made]


@pytest.fixture
def make_binding() -> Callable[..., dict[str, Any]]:
    return binding
