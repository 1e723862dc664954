"""What a name leads to: every address that is not dialled, what is remembered, and what is never resolved."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection
from mitmproxy.proxy import server_hooks

from lictor.addons import places as module
from lictor.addons.guard import NameRefused
from lictor.addons.places import LOOKUPS_PER_AGENT, Places, Resolver, dialable, is_of_this_machine, own_addresses
from lictor.bindings.catalog import Catalog
from lictor.bindings.target import Target
from lictor.engine.dialling import addresses_of

AGENT = "spiffe://test.internal/agent/a"
CLIENT: Any = SimpleNamespace(id="c")


@pytest.mark.parametrize(
    ("address", "always", "named"),
    [
        ("1.1.1.1", True, True),
        ("2606:4700::1111", True, True),
        ("127.0.0.1", False, True),
        ("10.0.0.1", False, True),
        ("192.168.1.1", False, True),
        ("100.64.0.1", False, True),
        ("::1", False, True),
        ("fd00::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("64:ff9b::7f00:1", False, True),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("64:ff9b::101:101", True, True),
        ("2002:7f00:1::", False, True),
        ("::127.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("224.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("255.255.255.255", False, True),
    ],
)
def test_dialable(address: str, always: bool, named: bool) -> None:
    """Metadata services and the like are not dialled even where the catalog names them."""
    assert (dialable(address, False), dialable(address, True)) == (always, named)


class Names:
    """A resolver that counts. A name whose addresses are a future is waited for."""

    def __init__(self, **addresses: Any) -> None:
        self.addresses = {f"{name}.example": found for name, found in addresses.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        found: Any = self.addresses.get(host)
        if found is None:
            raise OSError("no such host")
        return await found if asyncio.isfuture(found) else found


def places(names: Names, own: Any = frozenset(), fixed: Any = frozenset(), timeout: float = 20) -> Places:
    catalog = Catalog([Target("urn:test:local", "tool", ("https://local.example/**",))])
    made = Places(lambda: catalog, own, names, timeout, fixed)
    made.client_connected(CLIENT)
    return made


def dial(host: str, port: int = 443) -> server_hooks.ServerConnectionHookData:
    server = connection.Server(address=(host, port))
    server.tls = True
    return server_hooks.ServerConnectionHookData(server=server, client=CLIENT)


async def test_the_checked_addresses_are_dialled_and_the_name_stays() -> None:
    """Resolved once for a connection and an authority; TLS is verified for the name."""
    names = Names(api=["1.1.1.1", "1.0.0.1"])
    made, data = places(names), dial("api.example")
    assert not made.known(CLIENT, ("api.example", 443))
    await made.find(CLIENT, AGENT, ("api.example", 443))
    assert made.known(CLIENT, ("api.example", 443))
    assert not made.known(CLIENT, ("api.example", 80))
    for _ in range(2):
        made.server_connect(data)
        assert (data.server.error, data.server.address) == (None, ("api.example", 443))
        assert (data.server.sni, addresses_of(data.server)) == ("api.example", ("1.1.1.1", "1.0.0.1"))
    assert names.asked == ["api.example"]


async def test_what_answered_is_dialled_first_the_next_time() -> None:
    made, data = places(Names(api=["1.1.1.1", "1.0.0.1", "8.8.8.8"])), dial("api.example")
    await made.find(CLIENT, AGENT, ("api.example", 443))
    data.server.peername = ("1.0.0.1", 443)
    made.server_connected(data)
    made.server_connect(data)
    assert addresses_of(data.server) == ("1.0.0.1", "1.1.1.1", "8.8.8.8")


def test_what_was_not_resolved_is_not_dialled() -> None:
    """Fail closed: there is no way to a server but by an address that was checked."""
    data = dial("api.example")
    places(Names(api=["1.1.1.1"])).server_connect(data)
    assert data.server.error == "api.example was not resolved before it was judged"


@pytest.mark.parametrize(
    ("what", "host", "addresses", "reason"),
    [
        ("unknown", "nowhere.example", {}, "name_not_resolved"),
        ("no address", "empty.example", {"empty": []}, "name_not_resolved"),
        ("rebound to loopback", "api.example", {"api": ["127.0.0.1"]}, "address_refused"),
        ("one bad among good", "api.example", {"api": ["1.1.1.1", "10.0.0.1"]}, "address_refused"),
        ("IPv6 that leads to loopback", "api.example", {"api": ["::ffff:127.0.0.1"]}, "address_refused"),
        ("metadata", "local.example", {"local": ["169.254.169.254"]}, "address_refused"),
        ("link-local with a zone", "local.example", {"local": ["fe80::1%eth0"]}, "address_refused"),
        ("loopback, written as such", "127.0.0.1", {}, "address_refused"),
        ("this monitor", "local.example", {"local": ["192.0.2.7"]}, "address_refused"),
        ("this monitor, as IPv6", "local.example", {"local": ["::ffff:192.0.2.7"]}, "address_refused"),
    ],
)
async def test_not_dialled(what: str, host: str, addresses: Any, reason: str) -> None:
    made, data = places(Names(**addresses), own=frozenset({("192.0.2.7", 443)})), dial(host)
    with pytest.raises(NameRefused) as refused:
        await made.find(CLIENT, AGENT, (host, 443))
    assert refused.value.reason == reason
    assert not any(address in str(refused.value) for found in addresses.values() for address in found)
    made.server_connect(data)
    assert data.server.error is not None


async def test_a_host_that_the_catalog_names_may_be_local() -> None:
    made, data = places(Names(local=["127.0.0.1"])), dial("local.example")
    await made.find(CLIENT, AGENT, ("local.example", 443))
    made.server_connect(data)
    assert (data.server.error, addresses_of(data.server)) == (None, ("127.0.0.1",))


def test_the_local_agent_is_reached_without_a_catalog() -> None:
    data = dial("127.0.0.1", 9000)
    places(Names(), fixed=frozenset({("127.0.0.1", 9000)})).server_connect(data)
    assert data.server.error is None


async def test_a_listener_on_every_address_is_ours_under_each_of_them() -> None:
    names = Names(local=["127.0.0.2"])
    made = places(names, own=frozenset({("0.0.0.0", 443)}))
    with pytest.raises(NameRefused):
        await made.find(CLIENT, AGENT, ("local.example", 443))
    names.addresses["local.example"] = ["192.0.2.7"]
    await made.find(CLIENT, AGENT, ("local.example", 443))
    assert is_of_this_machine("127.0.0.1")
    assert not is_of_this_machine("192.0.2.7")


def test_listeners_may_be_configured_by_name() -> None:
    assert ("127.0.0.1", 8443) in own_addresses([("localhost", 8443)])
    assert own_addresses([("0.0.0.0", 1), ("::1", 2)]) == {("0.0.0.0", 1), ("::1", 2)}


async def test_nothing_is_kept_of_a_connection_that_has_ended() -> None:
    waiting: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    made = places(Names(slow=waiting, api=["1.1.1.1"]))
    await made.find(CLIENT, AGENT, ("api.example", 443))
    finding = asyncio.ensure_future(made.find(CLIENT, AGENT, ("slow.example", 443)))
    await asyncio.sleep(0)
    made.client_disconnected(CLIENT)
    waiting.set_result(["1.1.1.1"])
    with pytest.raises(NameRefused) as refused:
        await finding
    assert refused.value.reason == "request_aborted"
    assert not made.known(CLIENT, ("api.example", 443))


async def test_the_places_of_one_connection_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES_MAX", 3)
    made = places(Names(api=["1.1.1.1"]))
    for port in range(1, 6):
        await made.find(CLIENT, AGENT, ("api.example", port))
    assert [port for port in range(1, 6) if made.known(CLIENT, ("api.example", port))] == [3, 4, 5]


async def test_one_agents_slow_names_do_not_hold_up_another() -> None:
    """Its own wait for their turn."""
    waiting: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    slow = [f"slow{n}" for n in range(LOOKUPS_PER_AGENT)]
    names = Names(**dict.fromkeys(slow, waiting), api=["1.1.1.1"], other=["1.1.1.1"])
    made = places(names)
    finding = [asyncio.ensure_future(made.find(CLIENT, AGENT, (f"{name}.example", 443))) for name in [*slow, "api"]]
    await made.find(CLIENT, "spiffe://test.internal/agent/b", ("other.example", 443))
    assert "api.example" not in names.asked
    waiting.set_result(["1.1.1.1"])
    await asyncio.gather(*finding)
    assert names.asked[-1] == "api.example"


async def test_who_asks_at_once_gets_one_answer() -> None:
    waiting: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    names = Names(api=waiting)
    made = places(names)
    finding = [asyncio.ensure_future(made.find(CLIENT, AGENT, ("api.example", port))) for port in range(1, 50)]
    await asyncio.sleep(0)
    waiting.set_result(["1.1.1.1"])
    await asyncio.gather(*finding)
    assert names.asked == ["api.example"]
    names.addresses["api.example"] = []
    with pytest.raises(NameRefused):
        await made.find(CLIENT, AGENT, ("api.example", 50))
    assert names.asked == ["api.example"] * 2, "the answer is not kept"


async def test_a_name_that_hangs_keeps_its_turn() -> None:
    """Its thread is not free because nobody waits any more: else one agent would take all of them, eight by eight."""
    hanging: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    slow = [f"slow{n}" for n in range(LOOKUPS_PER_AGENT)]
    names = Names(**dict.fromkeys(slow, hanging), api=["1.1.1.1"])
    made = places(names, timeout=0.01)
    for name in [*slow, "api"]:
        with pytest.raises(NameRefused) as caught:
            await made.find(CLIENT, AGENT, (f"{name}.example", 443))
        assert caught.value.reason == "name_not_resolved"
    assert names.asked == [f"{name}.example" for name in slow]
    hanging.set_result(["1.1.1.1"])
    await until_done(made)
    await made.find(CLIENT, AGENT, ("api.example", 443))
    assert not made._looking_up, "nothing is left of what nobody waits for"


async def until_done(made: Places) -> None:
    await asyncio.gather(*made._looking_up.values())


async def test_the_systems_resolver() -> None:
    assert "127.0.0.1" in await Resolver()("localhost")
    with pytest.raises(OSError):
        await Resolver()("name.invalid")
