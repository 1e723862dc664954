"""The operator's door to a running monitor: a Unix socket beside the ledger, for whoever runs the monitor and no other.

One order a connection: a line of JSON `{"order": NAME, …}`, answered by a line `{"ok": true, "result": …}` or
`{"ok": false, "error": TEXT, "usage": BOOL}`. The socket has the mode 0600 and the kernel says who is at the other end
(SO_PEERCRED): only the monitor's own user and root are heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from ...formats.errors import LictorError, UsageError
from .catalogue import Order

log = logging.getLogger(__name__)

MAX_ORDER = 64 * 1024
MAX_ANSWER = 16 * 1024 * 1024
READ_S = 10.0
BACKLOG = 8
_LONGEST = 100
"""Octets that a Unix socket's address surely holds; a longer one is taken through the folder's descriptor."""
_CREDENTIALS = struct.Struct("3i")


def socket_path(ledger: Path) -> Path:
    """Where the monitor that writes `ledger` takes orders."""
    return ledger.with_name(f"{ledger.name}.operator")


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Operator:
    """Takes orders. Whoever makes it holds the ledger, so a socket that lies there is a dead monitor's."""

    def __init__(self, ledger: Path, orders: Mapping[str, Order]) -> None:
        self._path = socket_path(ledger)
        self._orders = orders
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises UsageError if the socket cannot be made."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            with _address(self._path) as address:
                sock.bind(address)
                os.chmod(self._path, 0o600)  # before `listen`: until then nobody can connect
        except OSError as e:
            sock.close()
            raise UsageError(f"the operator's socket {self._path} cannot be made: {e.strerror}") from None
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_ORDER, backlog=BACKLOG)

    async def close(self) -> None:
        """Take no more orders."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(reader, writer)
            writer.write(orjson.dumps(answer) + b"\n")
            await writer.drain()
        except (OSError, TimeoutError):
            log.debug("an order was broken off")
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
        try:
            line = await asyncio.wait_for(reader.readline(), READ_S)
            uid = _uid(writer.get_extra_info("socket"))
            if uid not in (0, os.geteuid()):
                return _refusal("this socket is for the user who runs the monitor")
            order = orjson.loads(line)
            work = self._orders[order.pop("order")]
        except (ValueError, KeyError, AttributeError, TypeError):
            return _refusal(f"not an order; there are: {', '.join(sorted(self._orders))}")
        try:
            return {"ok": True, "result": await work(order, _user(uid))}
        except LictorError as e:
            return _refusal(str(e), usage=isinstance(e, UsageError))
        except Exception:
            log.exception("an order failed")
            return _refusal("an error inside the monitor; its log says more", usage=False)


def _refusal(text: str, *, usage: bool = True) -> dict[str, Any]:
    return {"ok": False, "error": text, "usage": usage}


def _uid(sock: Any) -> int:
    """The user of the process at the other end."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


def _user(uid: int) -> str:
    """How entries name a user of this machine."""
    try:
        return f"user:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user:{uid}"


def ask(ledger: Path, order: str, **arguments: Any) -> Any:
    """Give an order to the monitor that writes `ledger`; its result.

    Raises UsageError if no monitor runs there or the order is wrong, LictorError if it failed.
    """
    path = socket_path(ledger)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            with _address(path) as address:
                sock.connect(address)
            sock.sendall(orjson.dumps({"order": order, **arguments}) + b"\n")
            with sock.makefile("rb") as f:
                line = f.readline(MAX_ANSWER)
    except (FileNotFoundError, ConnectionRefusedError):
        raise UsageError(f"no monitor runs on {ledger}: start it with `lictor up`") from None
    except OSError as e:
        raise UsageError(f"the monitor cannot be asked at {path}: {e.strerror}") from None
    if not line.endswith(b"\n"):
        raise LictorError("the monitor ended before it had answered")
    answer = orjson.loads(line)
    if answer["ok"]:
        return answer["result"]
    raise UsageError(answer["error"]) if answer["usage"] else LictorError(answer["error"])
