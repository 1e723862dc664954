"""One strict name: every way in which two names of one request can differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flows import make_flow

from lictor.addons.guard import Guard, NameRefused, check_head, same_name

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


def test_a_tunnel_is_forgotten_with_its_connection() -> None:
    one = Guard()
    client: Any = SimpleNamespace(id="c")
    one.open_tunnel(client, TUNNEL)
    assert one.tunnel(client) == TUNNEL
    one.client_disconnected(client)
    assert one.tunnel(client) is None


@pytest.mark.parametrize(
    ("authority", "reason"),
    [
        (b"api.example", None),
        (b"API.example:443", None),
        (b"evil.example", "misdirected_request"),
        (b"api.example:8443", "misdirected_request"),
        (b"", "doubtful_name"),
        (b"u@api.example", "doubtful_name"),
        (b"\xc3\xa9.example", "doubtful_name"),
        (b"xn--bcher-kva.example", "misdirected_request"),
    ],
)
def test_the_name_of_an_http2_request_is_its_authority(authority: bytes, reason: str | None) -> None:
    """A client may think that one connection serves several names: it is told to make another."""
    request = make_flow(host_header=b"evil.example").request
    request.http_version, request.data.authority = "HTTP/2.0", authority
    if reason is None:
        assert same_name(request, TUNNEL, "api.example") == TUNNEL
        return
    with pytest.raises(NameRefused) as refused:
        same_name(request, TUNNEL, "api.example")
    assert refused.value.reason == reason
