"""The operator's socket: who is heard, what is an order, what happens when one fails."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from lictor.formats.errors import LedgerError, LictorError, UsageError
from lictor.proxy.orders import operator
from lictor.proxy.orders.operator import Operator, ask, socket_path


async def echo(arguments: dict[str, Any], by: str) -> Any:
    return arguments


async def wrong(arguments: dict[str, Any], by: str) -> Any:
    raise UsageError("not like this")


async def fails(arguments: dict[str, Any], by: str) -> Any:
    raise LedgerError("the disk is full")


async def crashes(arguments: dict[str, Any], by: str) -> Any:
    raise RuntimeError("secret")


async def whose(arguments: dict[str, Any], by: str) -> Any:
    return by


ORDERS = {"whose": whose, "echo": echo, "wrong": wrong, "fails": fails, "crashes": crashes}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "ledger.sqlite"
    door = Operator(path, ORDERS)
    await door.start()
    yield path
    await door.close()
    assert not socket_path(path).exists()


async def order(ledger: Path, name: str, **arguments: Any) -> Any:
    return await asyncio.to_thread(ask, ledger, name, **arguments)


async def raw(ledger: Path, data: bytes) -> Any:
    reader, writer = await asyncio.open_unix_connection(str(socket_path(ledger)))
    writer.write(data)
    answer = orjson.loads(await asyncio.wait_for(reader.readline(), 5))
    writer.close()
    return answer


async def test_an_order_and_its_answer(ledger: Path) -> None:
    assert await order(ledger, "echo", a=1, b=[None, "x"]) == {"a": 1, "b": [None, "x"]}
    assert await order(ledger, "whose") == f"user:{pwd.getpwuid(os.geteuid()).pw_name}"


async def test_failures_say_whose_fault_they_are(ledger: Path) -> None:
    with pytest.raises(UsageError, match="not like this"):
        await order(ledger, "wrong")
    with pytest.raises(LictorError, match="the disk is full") as failed:
        await order(ledger, "fails")
    assert not isinstance(failed.value, UsageError)
    with pytest.raises(LictorError, match="an error inside the monitor; its log says more"):
        await order(ledger, "crashes")
    assert await order(ledger, "echo") == {}, "it goes on"


@pytest.mark.parametrize(
    "data", [b"\n", b"{\n", b"[]\n", b'"echo"\n', b"{}\n", b'{"order":"unknown"}\n', b'{"order":1}\n', b"\xff\n"]
)
async def test_what_is_no_order(ledger: Path, data: bytes) -> None:
    answer = await raw(ledger, data)
    assert (answer["ok"], answer["usage"]) == (False, True)
    assert answer["error"] == "not an order; there are: crashes, echo, fails, whose, wrong"


async def test_an_order_that_is_too_long(ledger: Path) -> None:
    assert not (await raw(ledger, b'{"order":"echo","x":"' + b"x" * operator.MAX_ORDER + b'"}\n'))["ok"]


async def test_only_the_monitors_user_is_heard(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stat.S_IMODE(socket_path(ledger).stat().st_mode) == 0o600
    monkeypatch.setattr(operator, "_CREDENTIALS", _Other())
    with pytest.raises(UsageError, match="this socket is for the user who runs the monitor"):
        await order(ledger, "echo")


class _Other:
    """Credentials of another user, as the kernel would give them."""

    size = operator._CREDENTIALS.size

    def unpack(self, data: bytes) -> tuple[int, int, int]:
        pid, uid, gid = operator.struct.Struct("3i").unpack(data)
        assert (pid, uid) == (os.getpid(), os.geteuid())
        return pid, uid + 12345, gid


async def test_the_socket_of_a_dead_monitor_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path(path)))
    with pytest.raises(UsageError, match=r"no monitor runs on .*: start it with `lictor up`"):
        ask(path, "echo")
    door = Operator(path, ORDERS)
    await door.start()
    assert await order(path, "echo") == {}
    await door.close()
    with pytest.raises(UsageError, match="no monitor runs"):
        ask(path, "echo")


async def test_a_path_that_is_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    folder.mkdir(parents=True)
    door = Operator(folder / "ledger.sqlite", ORDERS)
    await door.start()
    assert await order(folder / "ledger.sqlite", "echo", far=True) == {"far": True}
    await door.close()


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the operator's socket .* cannot be made: No such file or directory"):
        await Operator(tmp_path / "missing" / "ledger.sqlite", ORDERS).start()
