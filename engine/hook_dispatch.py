"""Runs addon hooks: from a table made once, without a task for each, and fail-closed.

mitmproxy logs an exception in an addon and lets the event pass. Here an exception refuses the event: nothing that
the hook guards goes upstream. Hooks are plain functions, or return an `asyncio.Future` or a coroutine to be waited for.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from mitmproxy import connection, flow, http
from mitmproxy.addonmanager import traverse
from mitmproxy.exceptions import AddonHalt
from mitmproxy.proxy import commands, server_hooks

log = logging.getLogger(__name__)

Hook = Callable[[Any], Any]

# Hooks that only tidy up: every addon's must run, also when another's has failed.
TIDYING = frozenset(
    {
        "client_disconnected",
        "server_disconnected",
        "server_connect_error",
        "http_connect_error",
        "error",
        "tls_failed_client",
        "tls_failed_server",
        "tunnel_ended",
        "websocket_end",
    }
)

# After these hooks mitmproxy looks whether the flow was killed; after all others the connection must be cut.
_KILL_IS_SEEN = frozenset({"requestheaders", "request", "responseheaders", "response", "http_connect"})


class Pending(NamedTuple):
    """A hook that waits for `future`; the functions from `following` on have not run yet."""

    future: asyncio.Future[Any]
    following: int


class Dispatcher:
    """The hook table of one engine. `cut` ends a client's connections at once, without sending anything more."""

    def __init__(self, addons: Iterable[object], cut: Callable[[connection.Client], None]) -> None:
        self._addons = tuple(traverse(addons))
        self._cut = cut
        self._table: dict[str, tuple[Hook, ...]] = {}

    def functions(self, name: str) -> tuple[Hook, ...]:
        """All functions of a hook, in the order of the addons. Found once: addons added later are not seen."""
        found = self._table.get(name)
        if found is None:
            candidates = (getattr(addon, name, None) for addon in self._addons)
            found = tuple(f for f in candidates if callable(f) and not inspect.ismodule(f))
            self._table[name] = found
        return found

    def run(self, name: str, data: Any, start: int = 0) -> Pending | None:
        """Run a hook's functions from `start` on. None: all have run (or the event is refused). Never raises."""
        functions = self._table.get(name)
        if functions is None:
            functions = self.functions(name)
        for index in range(start, len(functions)):
            try:
                result = functions[index](data)
                if result is None:
                    continue
                if inspect.iscoroutine(result):
                    result = asyncio.get_running_loop().create_task(result)
                if not asyncio.isfuture(result):
                    raise TypeError(f"hook {name} returned {type(result).__name__}, expected nothing or a future")
                if not result.done():
                    return Pending(result, index + 1)
                result.result()
            except AddonHalt:
                break
            except (Exception, asyncio.CancelledError) as error:
                if self.refuse(name, data, error):
                    break
        if getattr(data, "intercepted", False):
            self.refuse(name, data, RuntimeError("flow.intercept() is not supported: return a future instead"))
        return None

    def resume(self, name: str, data: Any, pending: Pending) -> Pending | None:
        """Go on after `pending.future` is done."""
        try:
            pending.future.result()
        except AddonHalt:
            return None
        except (Exception, asyncio.CancelledError) as error:
            if self.refuse(name, data, error):
                return None
        return self.run(name, data, pending.following)

    def refuse(self, name: str, data: Any, error: BaseException) -> bool:
        """A hook has failed: make the event come to nothing. True: later addons must not see it."""
        log.error("hook %s failed: the event is refused", name, exc_info=error)
        if isinstance(data, flow.Flow):
            self._refuse_flow(name, data)
        elif isinstance(data, server_hooks.ServerConnectionHookData):
            data.server.error = "monitor error"  # heeded in server_connect only
            if name == "server_connected":
                self._cut(data.client)
        elif isinstance(data, connection.Client):
            data.error = "monitor error"  # heeded in client_connected
        elif hasattr(data, "context"):  # tls_*, next_layer
            if hasattr(data, "ssl_conn"):
                data.ssl_conn = None
            if hasattr(data, "layer"):
                data.layer = None
            self._cut(data.context.client)
        return name not in TIDYING

    def _refuse_flow(self, name: str, data: flow.Flow) -> None:
        data.intercepted = False
        if name in TIDYING:
            return
        if name in ("request", "http_connect") and isinstance(data, http.HTTPFlow) and not data.request.stream:
            data.response = _monitor_error()
            return
        data.error = flow.Error(flow.Error.KILLED_MESSAGE)  # flow.kill() without its guard
        streamed = isinstance(data, http.HTTPFlow) and bool(data.request.stream)
        if name not in _KILL_IS_SEEN or (name == "request" and streamed):
            self._cut(data.client_conn)


_data_fields: dict[type, str] = {}


def hook_data(hook: commands.StartHook) -> Any:
    """The one argument of a hook: its only dataclass field."""
    cls = type(hook)
    name = _data_fields.get(cls)
    if name is None:
        (name,) = (field for field in cls.__dataclass_fields__ if field not in ("name", "blocking"))  # type: ignore[attr-defined]
        _data_fields[cls] = name
    return getattr(hook, name)


def _monitor_error() -> http.Response:
    body = b'{"type":"about:blank","title":"Monitor error","status":502,"detail":"Nothing was sent upstream."}'
    return http.Response.make(502, body, {"content-type": "application/problem+json", "connection": "close"})
