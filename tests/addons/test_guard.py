"""One strict name: every way in which two names of one request can differ, and every address that is not dialled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flows import make_flow, run
from mitmproxy import connection
from mitmproxy.proxy import server_hooks

from lictor.addons.guard import Guard, NameRefused, check_head, dialable, is_of_this_machine, same_name
from lictor.bindings.catalog import Catalog, Target

TUNNEL = ("api.example", 443)


@pytest.mark.parametrize(
    ("what", "arguments", "keywords"),
    [
        ("plain", ("GET", "/"), {}),
        ("unusual method", ("M-SEARCH", "/"), {}),
        ("values beyond ASCII in other headers", ("GET", "/", (b"X-Name", "é".encode("latin-1"))), {}),
        ("no Host at all", ("GET", "/"), {"host_header": None}),
    ],
)
def test_good_head(what: str, arguments: Any, keywords: Any) -> None:
    check_head(make_flow(*arguments, **keywords).request)


@pytest.mark.parametrize(
    ("what", "reason", "arguments"),
    [
        ("empty method", "bad_method", ("", "/")),
        ("method with a space", "bad_method", ("GET x", "/")),
        ("method not ASCII", "bad_method", ("G\udcffT", "/")),
        ("endless method", "bad_method", ("A" * 33, "/")),
        ("NUL in a value", "doubtful_header", ("GET", "/", (b"X", b"a\0b"))),
        ("bare CR in a value", "doubtful_header", ("GET", "/", (b"X", b"a\rb"))),
        ("folded line", "doubtful_header", ("GET", "/", (b"X", b"a\r\n b"))),
        ("name not ASCII", "doubtful_header", ("GET", "/", (b"\xff", b"a"))),
        ("Host twice", "doubtful_header", ("GET", "/", (b"HOST", b"api.example"))),
        ("ECT not ASCII", "doubtful_header", ("GET", "/", (b"Execution-Context", b"\xff"))),
        ("BET not ASCII", "doubtful_header", ("GET", "/", (b"behavioral-evidence", "é".encode()))),
        ("traceparent not ASCII", "doubtful_header", ("GET", "/", (b"Traceparent", b"\x80"))),
    ],
)
def test_bad_head(what: str, reason: str, arguments: Any) -> None:
    with pytest.raises(NameRefused) as refused:
        check_head(make_flow(*arguments).request)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("what", "keywords", "tunnel", "sni"),
    [
        ("in a tunnel", {}, TUNNEL, "api.example"),
        ("server name in capitals", {}, TUNNEL, "API.Example"),
        ("Host with the default port", {"host_header": b"api.example:443"}, TUNNEL, "api.example"),
        ("Host in capitals", {"host_header": b"API.EXAMPLE"}, TUNNEL, "api.example"),
        ("address", {"host": "192.0.2.1"}, ("192.0.2.1", 443), None),
        ("IPv6", {"host": "2001:db8::1", "host_header": b"[2001:DB8:0::1]"}, ("2001:db8::1", 443), None),
        ("plain http", {"scheme": "http", "port": 80}, None, None),
        ("plain http in a tunnel", {"scheme": "http", "port": 8080}, ("api.example", 8080), None),
    ],
)
def test_same_name(what: str, keywords: Any, tunnel: Any, sni: Any) -> None:
    request = make_flow(**keywords).request
    expected = tunnel or ("api.example", 80)
    assert same_name(request, tunnel, sni) == expected


@pytest.mark.parametrize(
    ("what", "reason", "keywords", "tunnel", "sni"),
    [
        ("https without a tunnel", "unsupported_scheme", {}, None, None),
        ("other scheme", "unsupported_scheme", {"scheme": "ftp"}, None, None),
        ("other Host", "name_mismatch", {"host_header": b"evil.example"}, TUNNEL, "api.example"),
        ("other port in Host", "name_mismatch", {"host_header": b"api.example:8443"}, TUNNEL, "api.example"),
        ("Host with userinfo", "doubtful_name", {"host_header": b"u@api.example"}, TUNNEL, "api.example"),
        ("Host with a dot at its end", "doubtful_name", {"host_header": b"api.example."}, TUNNEL, "api.example"),
        ("Host with a path", "doubtful_name", {"host_header": b"api.example/x"}, TUNNEL, "api.example"),
        (
            "two names in one Host",
            "doubtful_name",
            {"host_header": b"api.example, evil.example"},
            TUNNEL,
            "api.example",
        ),
        ("no Host", "doubtful_name", {"host_header": None}, TUNNEL, "api.example"),
        ("other CONNECT", "name_mismatch", {}, ("evil.example", 443), "api.example"),
        ("other port in CONNECT", "name_mismatch", {}, ("api.example", 8443), "api.example"),
        ("other server name", "name_mismatch", {}, TUNNEL, "evil.example"),
        ("no server name", "name_mismatch", {}, TUNNEL, None),
        ("server name for an address", "name_mismatch", {"host": "192.0.2.1"}, ("192.0.2.1", 443), "evil.example"),
        ("absolute-form in a tunnel", "name_mismatch", {"authority": "api.example"}, TUNNEL, "api.example"),
        ("number as a host", "doubtful_name", {"host": "2130706433", "scheme": "http", "port": 80}, None, None),
    ],
)
def test_not_the_same_name(what: str, reason: str, keywords: Any, tunnel: Any, sni: Any) -> None:
    with pytest.raises(NameRefused) as refused:
        same_name(make_flow(**keywords).request, tunnel, sni)
    assert refused.value.reason == reason


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


def guard(addresses: dict[str, list[str]], own: Any = frozenset(), fixed: Any = frozenset()) -> Guard:
    async def resolver(host: str) -> list[str]:
        if host not in addresses:
            raise OSError("no such host")
        return addresses[host]

    catalog = Catalog([Target("urn:test:local", "tool", ("https://local.example/**",))])
    return Guard(lambda: catalog, own, fixed, resolver)


def dial(host: str, port: int = 443) -> server_hooks.ServerConnectionHookData:
    server = connection.Server(address=(host, port))
    server.tls = True
    return server_hooks.ServerConnectionHookData(server=server, client=SimpleNamespace(id="c"))  # type: ignore[arg-type]


async def test_the_checked_address_is_dialled_and_the_name_comes_back() -> None:
    """Resolved once; TLS is verified for the name; afterwards the connection is known by its name again."""
    checked = guard({"api.example": ["1.1.1.1", "1.0.0.1"]})
    data = dial("api.example")
    await checked.server_connect(data)
    assert (data.server.error, data.server.address, data.server.sni) == (None, ("1.1.1.1", 443), "api.example")
    checked.server_connected(data)
    assert data.server.address == ("api.example", 443)


@pytest.mark.parametrize(
    ("what", "host", "addresses", "said"),
    [
        ("unknown", "nowhere.example", {}, "cannot be resolved"),
        ("no address", "empty.example", {"empty.example": []}, "cannot be resolved"),
        ("rebound to loopback", "api.example", {"api.example": ["127.0.0.1"]}, "127.0.0.1"),
        ("one bad among good", "api.example", {"api.example": ["1.1.1.1", "10.0.0.1"]}, "10.0.0.1"),
        ("metadata", "local.example", {"local.example": ["169.254.169.254"]}, "169.254.169.254"),
        ("loopback, written as such", "127.0.0.1", {}, "127.0.0.1"),
        ("this monitor", "local.example", {"local.example": ["192.0.2.7"]}, "192.0.2.7"),
    ],
)
async def test_not_dialled(what: str, host: str, addresses: Any, said: str) -> None:
    data = dial(host)
    await guard(addresses, own=frozenset({("192.0.2.7", 443)})).server_connect(data)
    assert data.server.error is not None
    assert said in data.server.error
    assert data.server.address == (host, 443)


async def test_a_host_that_the_catalog_names_may_be_local() -> None:
    data = dial("local.example")
    await guard({"local.example": ["127.0.0.1"]}).server_connect(data)
    assert (data.server.error, data.server.address) == (None, ("127.0.0.1", 443))


async def test_the_local_agent_is_reached_without_a_catalog() -> None:
    data = dial("127.0.0.1", 9000)
    await run(guard({}, fixed=frozenset({("127.0.0.1", 9000)})).server_connect(data))
    assert data.server.error is None


def test_a_tunnel_is_forgotten_with_its_connection() -> None:
    one = guard({})
    client: Any = SimpleNamespace(id="c")
    one.open_tunnel(client, TUNNEL)
    assert one.tunnel(client) == TUNNEL
    one.client_disconnected(client)
    assert one.tunnel(client) is None


async def test_a_listener_on_every_address_is_ours_under_each_of_them() -> None:
    everywhere = frozenset({("0.0.0.0", 443)})
    ours, other = dial("local.example"), dial("local.example")
    await guard({"local.example": ["127.0.0.2"]}, own=everywhere).server_connect(ours)
    await guard({"local.example": ["192.0.2.7"]}, own=everywhere).server_connect(other)
    assert ours.server.error is not None
    assert (other.server.error, other.server.address) == (None, ("192.0.2.7", 443))
    assert is_of_this_machine("127.0.0.1")
    assert not is_of_this_machine("192.0.2.7")
