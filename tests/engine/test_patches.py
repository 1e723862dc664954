"""Each patch of mitmproxy: that it still fits, and that what it replaces behaves as before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection, flow, http, version
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpRequestHook

from lictor.engine import patches
from lictor.engine.hook_dispatch import Pending
from lictor.formats.errors import UsageError


@pytest.fixture(autouse=True)
def _applied() -> None:
    patches.apply()


@pytest.mark.parametrize("patch", patches.PATCHES, ids=lambda patch: f"{patch.where}-{patch.name}")
def test_mitmproxy_still_is_what_the_patch_was_written_for(patch: patches.Patch) -> None:
    assert patch.fits(), f"{patch.where} has changed in mitmproxy {version.VERSION}: read it again"
    assert patch.reason
    assert getattr(patch.owner, patch.name) is patch.replacement


def test_the_version_that_is_installed_is_the_one_that_was_checked() -> None:
    assert version.VERSION == patches.CHECKED_VERSION


def test_another_version_that_changes_what_is_replaced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "VERSION", "12.9.9")
    patches.apply()  # another number alone is no reason
    changed = patches.Patch(layer.Layer, "handle_event", patches.layer_handle_event, layer.Layer.__init__, "0" * 16, "")
    monkeypatch.setattr(patches, "PATCHES", (changed,))
    with pytest.raises(UsageError, match=r"mitmproxy 12.9.9 changes mitmproxy.proxy.layer.Layer.__init__"):
        patches.apply()


class TestHeaders:
    FIELDS = ((b"Host", b"example.com"), (b"Accept", b"a"), (b"ACCEPT", b"b"), (b"X-Raw", b"\xff"))

    @pytest.mark.parametrize(
        ("name", "value", "every"),
        [
            ("host", "example.com", ["example.com"]),
            (b"HOST", "example.com", ["example.com"]),
            ("accept", "a, b", ["a", "b"]),
            ("x-raw", "\udcff", ["\udcff"]),
            ("absent", None, []),
            ("", None, []),
        ],
    )
    def test_a_field_is_found_by_name(self, name: str | bytes, value: str | None, every: list[str]) -> None:
        headers = http.Headers(self.FIELDS)
        assert headers.get(name) == value
        assert headers.get_all(name) == every
        assert (name in headers) is bool(every)
        if value is None:
            assert headers.get(name, "other") == "other"
            with pytest.raises(KeyError):
                headers[name]
        else:
            assert headers[name] == value

    def test_what_is_changed_is_found_changed(self) -> None:
        headers = http.Headers(self.FIELDS)
        assert headers["host"] == "example.com"
        headers["Host"] = "other"
        assert headers["host"] == "other"
        headers.add("Host", "third")
        assert headers.get_all("host") == ["other", "third"]
        del headers["host"]
        assert "host" not in headers
        headers.fields = self.FIELDS
        assert headers["host"] == "example.com"
        headers.get_all("host").append("not a field")
        assert headers.get_all("host") == ["example.com"]

    def test_nothing_but_text_is_a_name(self) -> None:
        assert 5 not in http.Headers(self.FIELDS)

    def test_copies_are_their_own(self) -> None:
        headers = http.Headers(self.FIELDS)
        assert "host" in headers
        copy = headers.copy()
        del copy["host"]
        assert "host" in headers
        assert "host" not in copy
        assert headers == http.Headers(self.FIELDS)

    def test_messages_are_parsed_and_written_as_before(self) -> None:
        head = [b"GET /a HTTP/1.1", b"Host: example.com", b"Content-Length: 3", b"X-Two: 1", b"x-two: 2"]
        request = http1.read_request_head(head)
        assert http1.expected_http_body_size(request) == 3
        assert http1.assemble_request_head(request) == b"\r\n".join(head) + b"\r\n\r\n"


class TestObjects:
    def test_a_connection_equals_itself_only(self) -> None:
        one, other = (connection.Server(address=("a", 1)) for _ in range(2))
        other.id = one.id
        assert one == one
        assert one != other
        assert {one: 1}.get(other) is None
        assert {one: 1}[one] == 1

    def test_a_forked_context_shares_the_connections_and_not_the_layers(self) -> None:
        made = context()
        made.layers.append(object())  # type: ignore[arg-type]
        fork = made.fork()
        assert (fork.client, fork.server, fork.options) == (made.client, made.server, made.options)
        assert fork.dispatch is made.dispatch  # type: ignore[attr-defined]
        fork.layers.append(object())  # type: ignore[arg-type]
        fork.server = connection.Server(address=None)
        assert len(made.layers) == 1
        assert made.server is not fork.server

    def test_flow_ids_are_unique(self) -> None:
        made = context()
        ids = {flow.Flow.__new__(http.HTTPFlow) for _ in range(3)}
        assert len(ids) == 3
        numbers = {http.HTTPFlow(made.client, made.server).id for _ in range(1000)}
        assert len(numbers) == 1000
        assert {len(number) for number in numbers} == {32}


def context() -> Context:
    made = Context(
        connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2)),
        SimpleNamespace(),  # type: ignore[arg-type]
    )
    made.dispatch = lambda command: None  # type: ignore[attr-defined]
    return made


class Asking(layer.Layer):
    """Yields a hook between two sends for every event."""

    def _handle_event(self, event: events.Event) -> Any:
        number = str(event).encode()
        yield commands.SendData(self.context.client, b"before " + number)
        yield HttpRequestHook(None)  # type: ignore[arg-type]
        yield commands.SendData(self.context.client, b"after " + number)


class Numbered(events.Event):
    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        return str(self.number)


def sent(made: list[commands.Command]) -> list[bytes]:
    return [command.data for command in made if isinstance(command, commands.SendData)]


class TestLayers:
    def test_a_hook_that_needs_no_waiting_runs_between_what_is_round_it(self) -> None:
        made = context()
        order: list[Any] = []
        made.dispatch = lambda command: order.append("hook")  # type: ignore[attr-defined]
        for command in Asking(made).handle_event(Numbered(1)):
            order.append(command.data)  # type: ignore[attr-defined]
        assert order == [b"before 1", "hook", b"after 1"]

    def test_a_hook_that_waits_holds_back_this_layer_and_all_later_events_in_order(self) -> None:
        made = context()
        pending = Pending(None, 1)  # type: ignore[arg-type]
        made.dispatch = lambda command: pending  # type: ignore[attr-defined]
        asking = Asking(made)
        first = list(asking.handle_event(Numbered(1)))
        hook = first[-1]
        assert isinstance(hook, HttpRequestHook)
        assert hook.pending is pending  # type: ignore[attr-defined]
        assert hook.blocking is asking
        assert list(asking.handle_event(Numbered(2))) == []
        assert list(asking.handle_event(Numbered(3))) == []
        made.dispatch = lambda command: None  # type: ignore[attr-defined]
        rest = list(asking.handle_event(events.HookCompleted(hook)))
        assert sent(first + rest) == [b"before 1", b"after 1", b"before 2", b"after 2", b"before 3", b"after 3"]

    def test_a_queued_event_may_wait_again(self) -> None:
        made = context()
        made.dispatch = lambda command: Pending(None, 1)  # type: ignore[attr-defined, arg-type]
        asking = Asking(made)
        (*_, hook) = asking.handle_event(Numbered(1))
        list(asking.handle_event(Numbered(2)))
        *some, second = asking.handle_event(events.HookCompleted(hook))  # type: ignore[arg-type]
        assert sent(some) == [b"after 1", b"before 2"]
        assert sent(list(asking.handle_event(events.HookCompleted(second)))) == [b"after 2"]  # type: ignore[arg-type]

    def test_the_completion_of_another_command_is_queued(self) -> None:
        made = context()
        made.dispatch = lambda command: Pending(None, 1)  # type: ignore[attr-defined, arg-type]
        asking = Asking(made)
        list(asking.handle_event(Numbered(1)))
        other = events.HookCompleted(HttpRequestHook(None))  # type: ignore[arg-type]
        assert list(asking.handle_event(other)) == []
