"""The loop of the long-running processes."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest

from lictor.proxy import loop


async def which() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_uvloop_where_it_is() -> None:
    assert loop.run(which()) == "uvloop"


def test_asyncio_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert loop.run(which()) == "asyncio"


def test_exceptions_come_out() -> None:
    async def fails() -> None:
        raise ValueError("out")

    with pytest.raises(ValueError, match="out"):
        loop.run(fails())
