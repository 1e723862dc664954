"""The hook table: order, waiting, and what a failure does to each kind of event."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection, flow, http
from mitmproxy.exceptions import AddonHalt
from mitmproxy.proxy import layer, server_hooks
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpRequestHook
from mitmproxy.tls import TlsData

from lictor.engine import tunnel_layer, websocket_layer
from lictor.engine.hook_dispatch import TIDYING, Dispatcher, hook_data


def addon(**hooks: Any) -> object:
    return type("Addon", (), {name: staticmethod(hook) for name, hook in hooks.items()})()


class Cut(list[connection.Client]):
    def __call__(self, client: connection.Client) -> None:
        self.append(client)


def client() -> connection.Client:
    return connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))


def http_flow() -> http.HTTPFlow:
    made = http.HTTPFlow(client(), connection.Server(address=("127.0.0.1", 3)))
    made.request = http.Request.make("GET", "http://127.0.0.1:3/")
    return made


def broken(data: Any) -> None:
    raise RuntimeError("broken on purpose")


def test_the_functions_of_a_hook_run_in_the_order_of_the_addons() -> None:
    seen: list[int] = []
    dispatcher = Dispatcher([addon(request=lambda f, n=n: seen.append(n)) for n in range(3)], Cut())
    assert dispatcher.run("request", http_flow()) is None
    assert seen == [0, 1, 2]


def test_an_addon_that_halts_keeps_later_ones_from_running() -> None:
    seen: list[str] = []

    def halt(data: Any) -> None:
        raise AddonHalt

    dispatcher = Dispatcher([addon(request=halt), addon(request=lambda f: seen.append("later"))], Cut())
    checked = http_flow()
    dispatcher.run("request", checked)
    assert (seen, checked.response, checked.error) == ([], None, None)


async def test_waiting_stops_the_table_and_resuming_goes_on_after_it() -> None:
    seen: list[str] = []
    future = asyncio.get_running_loop().create_future()
    dispatcher = Dispatcher(
        [
            addon(request=lambda f: seen.append("first")),
            addon(request=lambda f: future),
            addon(request=lambda f: seen.append("last")),
        ],
        Cut(),
    )
    checked = http_flow()
    pending = dispatcher.run("request", checked)
    assert pending is not None
    assert seen == ["first"]
    future.set_result(None)
    assert dispatcher.resume("request", checked, pending) is None
    assert seen == ["first", "last"]


async def test_a_future_that_is_done_already_is_not_waited_for() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    assert Dispatcher([addon(request=lambda f: future)], Cut()).run("request", http_flow()) is None


async def test_a_coroutine_is_waited_for() -> None:
    seen: list[str] = []

    async def slow(data: Any) -> None:
        await asyncio.sleep(0)
        seen.append("slow")

    dispatcher = Dispatcher([addon(request=slow)], Cut())
    checked = http_flow()
    pending = dispatcher.run("request", checked)
    assert pending is not None
    await pending.future
    assert dispatcher.resume("request", checked, pending) is None
    assert seen == ["slow"]


@pytest.mark.parametrize("name", ["request", "http_connect"])
def test_a_failure_before_the_request_is_sent_is_answered(name: str) -> None:
    checked, cut = http_flow(), Cut()
    Dispatcher([addon(**{name: broken})], cut).run(name, checked)
    assert checked.response is not None
    assert (checked.response.status_code, checked.error, cut) == (502, None, [])


@pytest.mark.parametrize("name", ["requestheaders", "responseheaders", "response"])
def test_a_failure_that_mitmproxy_looks_for_kills_the_flow(name: str) -> None:
    checked, cut = http_flow(), Cut()
    Dispatcher([addon(**{name: broken})], cut).run(name, checked)
    assert checked.error is not None
    assert (checked.error.msg, cut) == (flow.Error.KILLED_MESSAGE, [])


@pytest.mark.parametrize("name", ["http_connected", "websocket_start", "websocket_message", "some_hook_to_come"])
def test_a_failure_that_mitmproxy_does_not_look_for_cuts_the_connection(name: str) -> None:
    checked, cut = http_flow(), Cut()
    Dispatcher([addon(**{name: broken})], cut).run(name, checked)
    assert cut == [checked.client_conn]


def test_a_failure_over_messages_or_a_tunnel() -> None:
    checked, cut = http_flow(), Cut()
    context: Any = SimpleNamespace(client=checked.client_conn)
    message = websocket_layer.Message(True, "text", b"secret")
    dispatcher = Dispatcher([addon(websocket_messages=broken, tunnel_opening=broken)], cut)
    dispatcher.run("websocket_messages", websocket_layer.Batch(context, checked, [message]))
    dispatcher.run("tunnel_opening", tunnel_layer.Tunnel(context, checked))
    assert cut == [checked.client_conn] * 2
    assert message.passes is False


def test_a_failure_over_a_server_connection() -> None:
    cut = Cut()
    data = server_hooks.ServerConnectionHookData(client=client(), server=connection.Server(address=("127.0.0.1", 3)))
    dispatcher = Dispatcher([addon(server_connect=broken, server_connected=broken)], cut)
    dispatcher.run("server_connect", data)
    assert data.server.error == "monitor error"
    assert cut == []
    dispatcher.run("server_connected", data)
    assert cut == [data.client]


def test_a_failure_over_a_client_connection_refuses_it() -> None:
    refused = client()
    Dispatcher([addon(client_connected=broken)], Cut()).run("client_connected", refused)
    assert refused.error == "monitor error"


def test_a_failure_over_tls_takes_the_session_away_and_keeps_others_from_filling_it_in() -> None:
    def fill_in(data: TlsData) -> None:
        data.ssl_conn = object()  # type: ignore[assignment]

    cut = Cut()
    context = Context(client(), SimpleNamespace())  # type: ignore[arg-type]
    data = TlsData(context.client, context)
    addons = [addon(tls_start_client=hook) for hook in (fill_in, broken, fill_in)]
    Dispatcher(addons, cut).run("tls_start_client", data)
    assert data.ssl_conn is None
    assert cut == [context.client]


def test_a_failure_over_the_next_layer_leaves_none() -> None:
    cut = Cut()
    context = Context(client(), SimpleNamespace())  # type: ignore[arg-type]
    asked = layer.NextLayer(context)
    Dispatcher([addon(next_layer=broken)], cut).run("next_layer", asked)
    assert asked.layer is None
    assert cut == [context.client]


@pytest.mark.parametrize("name", sorted(TIDYING))
def test_hooks_that_tidy_up_all_run(name: str) -> None:
    seen: list[str] = []
    cut = Cut()
    data = http_flow() if name in ("error", "http_connect_error", "websocket_end") else client()
    Dispatcher([addon(**{name: broken}), addon(**{name: lambda d: seen.append(name)})], cut).run(name, data)
    assert seen == [name]


def test_intercepting_a_flow_is_refused_rather_than_forgotten() -> None:
    checked = http_flow()
    Dispatcher([addon(request=lambda f: f.intercept())], Cut()).run("request", checked)
    assert checked.response is not None
    assert checked.response.status_code == 502


def test_the_argument_of_a_hook() -> None:
    checked = http_flow()
    assert hook_data(HttpRequestHook(checked)) is checked
