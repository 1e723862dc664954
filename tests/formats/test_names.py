import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.formats.errors import FormatError
from lictor.formats.names import (
    Url,
    authority_text,
    parse_authority,
    parse_host,
    parse_origin_form,
    parse_path,
    parse_url,
    url_text,
)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("localhost", "localhost"),
        ("my_service", "my_service"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.example", "1.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("[::1]", "::1"),
        ("[2001:DB8:0:0:0:0:0:1]", "2001:db8::1"),
        ("[2001:db8::0001]", "2001:db8::1"),
        ("[::]", "::"),
    ],
)
def test_host_is_canonical(text: str, host: str) -> None:
    assert parse_host(text) == host


BAD_HOSTS = {
    "empty": "",
    "trailing dot": "example.com.",
    "only a dot": ".",
    "leading dot": ".example.com",
    "empty label": "a..b",
    "label begins with a dash": "-a.example",
    "label ends with a dash": "a-.example",
    "label of 64": "a" * 64 + ".example",
    "name of 254": ".".join(["a" * 49] * 5) + ".abcd",
    "IDN": "bücher.example",
    "full-width letters": "ｅxample.com",
    "full-width dot": "example。com",
    "Kelvin sign": "\u212aelvin.example",
    "dotless i": "ıexample.com",
    "Arabic digits": "\u0661.2.3.4",
    "percent-encoded": "ex%61mple.com",
    "userinfo": "user@example.com",
    "space": "exa mple.com",
    "space at the end": "example.com ",
    "newline at the end": "example.com\n",
    "tab": "exam\tple.com",
    "NUL": "example.com\x00",
    "backslash": "example.com\\",
    "slash": "example.com/",
    "asterisk": "*.example.com",
    "quote": 'exa"mple.com',
    "comma": "a,b",
    "IPv4 in octal": "0177.0.0.1",
    "IPv4 with a leading zero": "127.0.0.01",
    "IPv4 in hexadecimal": "0x7f.0.0.1",
    "IPv4 as one hexadecimal number": "0x7f000001",
    "IPv4 as one decimal number": "2130706433",
    "IPv4 of three parts": "127.0.1",
    "IPv4 of two parts": "127.1",
    "IPv4 of five parts": "127.0.0.1.1",
    "IPv4 beyond 255": "127.0.0.256",
    "IPv4 with a trailing dot": "127.0.0.1.",
    "name that ends in a number": "example.1",
    "name that ends in 0x": "example.0x",
    "name that ends in a hexadecimal number": "example.0x1f",
    "IPv6 without brackets": "::1",
    "IPv6 with a zone": "[fe80::1%eth0]",
    "IPv6 with an encoded zone": "[fe80::1%25eth0]",
    "IPv6 not closed": "[::1",
    "IPv6 with text behind": "[::1]x",
    "IPv6 with two gaps": "[1::2::3]",
    "IPv6 with dotted decimal": "[::ffff:127.0.0.1]",
    "IPv4 in IPv6": "[::ffff:7f00:1]",
    "IPv6 with a space": "[ ::1]",
    "IPvFuture": "[v1.a]",
    "empty brackets": "[]",
}


@pytest.mark.parametrize("text", BAD_HOSTS.values(), ids=BAD_HOSTS)
def test_doubtful_host_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="is not a host that can be judged"):
        parse_host(text)
    with pytest.raises(FormatError):
        parse_url(f"https://{text}/")
    with pytest.raises(FormatError):
        parse_authority(f"{text}:443", None)


def test_a_message_shows_a_hostile_name_harmlessly() -> None:
    with pytest.raises(FormatError) as caught:
        parse_host("\x1b[31m" + "x" * 5000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("example.com:443", None, ("example.com", 443)),
        ("Example.com:65535", None, ("example.com", 65535)),
        ("example.com", 443, ("example.com", 443)),
        ("example.com:1", 443, ("example.com", 1)),
        ("[::1]:8443", None, ("::1", 8443)),
        ("[::1]", 80, ("::1", 80)),
    ],
)
def test_authority(text: str, default: int | None, expected: tuple[str, int]) -> None:
    assert parse_authority(text, default) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("example.com", id="no port where one is needed"),
        pytest.param("example.com:", id="empty port"),
        pytest.param("example.com:0", id="port 0"),
        pytest.param("example.com:65536", id="port beyond 65535"),
        pytest.param("example.com:0443", id="leading zero"),
        pytest.param("example.com:+443", id="sign"),
        pytest.param("example.com: 443", id="space"),
        pytest.param("example.com:443\n", id="newline"),
        pytest.param("example.com:4_43", id="underscore"),
        pytest.param("example.com:٤٤٣", id="Arabic digits"),
        pytest.param("example.com:https", id="name for a port"),
        pytest.param("example.com:443:443", id="two ports"),
        pytest.param("a@example.com:443", id="userinfo"),
        pytest.param("a:b@example.com:443", id="userinfo with password"),
        pytest.param(":443", id="no host"),
        pytest.param("[::1]443", id="no colon after the bracket"),
        pytest.param("::1:443", id="IPv6 without brackets"),
        pytest.param("", id="empty"),
    ],
)
def test_doubtful_authority_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_authority(text, None)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a//b", "/a//b"),
        ("/a/%2fb//", "/a/%2Fb//"),
        ("/proxy/https://x.example/%61", "/proxy/https://x.example/a"),
        ("//a", None),
        ("/%2Fa", None),
        ("/a//../b", None),
        ("/a//%2e/b", None),
    ],
)
def test_empty_segments_where_the_caller_takes_care_of_them(text: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(FormatError):
            parse_path(text, empty_segments=True)
    else:
        assert parse_path(text, empty_segments=True) == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/.well-known/agent-card.json", "/.well-known/agent-card.json"),
        ("/v1/message:send", "/v1/message:send"),
        ("/v1/message%3Asend", "/v1/message:send"),
        ("/%61%62", "/ab"),
        ("/%7euser", "/~user"),
        ("/a%20b", "/a%20b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/a%3bb", "/a;b"),
        ("/[x]|{y}^", "/%5Bx%5D%7C%7By%7D%5E"),
        ("/@types%2fnode", "/@types%2Fnode"),
        ("/100%25", "/100%25"),
        ("/a..b/...", "/a..b/..."),
        ("/%F0%9F%98%82", "/%F0%9F%98%82"),
    ],
)
def test_path_is_canonical(text: str, path: str) -> None:
    assert parse_path(text) == path
    assert parse_path(path) == path


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a", id="relative"),
        pytest.param("*", id="asterisk form"),
        pytest.param("/a/../b", id="dot-dot"),
        pytest.param("/..", id="dot-dot at the end"),
        pytest.param("/./a", id="dot"),
        pytest.param("/a/.", id="dot at the end"),
        pytest.param("/a/%2e%2e/b", id="dot-dot encoded"),
        pytest.param("/a/.%2E/b", id="dot-dot half encoded"),
        pytest.param("/a/..;/b", id="dot-dot with a parameter"),
        pytest.param("/a/..;x=1/b", id="dot-dot with a named parameter"),
        pytest.param("/a/..%3b/b", id="dot-dot with an encoded parameter"),
        pytest.param("/a/..%2fb", id="dot-dot before an encoded slash"),
        pytest.param("/a%2f..%2Fb", id="dot-dot between encoded slashes"),
        pytest.param("//a", id="empty segment first"),
        pytest.param("/a//b", id="empty segment"),
        pytest.param("/a/%2Fb", id="empty segment by an encoded slash"),
        pytest.param("/a%2F%2fb", id="empty segment by two encoded slashes"),
        pytest.param("/a\\b", id="backslash"),
        pytest.param("/a%5cb", id="encoded backslash"),
        pytest.param("/a%00", id="encoded NUL"),
        pytest.param("/a%0d%0ab", id="encoded newline"),
        pytest.param("/a%7f", id="encoded DEL"),
        pytest.param("/a%252e", id="encoded twice"),
        pytest.param("/a%25%32%65", id="encoded twice in pieces"),
        pytest.param("/a%ff", id="not UTF-8"),
        pytest.param("/a%c0%af", id="overlong UTF-8"),
        pytest.param("/a%ed%a0%80", id="encoded surrogate"),
        pytest.param("/a%", id="percent alone"),
        pytest.param("/a%4", id="percent with one digit"),
        pytest.param("/a%zz", id="percent with letters"),
        pytest.param("/a b", id="space"),
        pytest.param("/a\n", id="newline"),
        pytest.param("/é", id="not ASCII"),
        pytest.param("/a#b", id="fragment"),
        pytest.param("/" + "a" * 8192, id="too long"),
    ],
)
def test_doubtful_path_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="is not a path that can be judged"):
        parse_path(text)


@given(st.text(st.sampled_from("/.%2eEfFabc;:~ 5CcZ0"), max_size=16))
def test_what_is_accepted_is_a_fixed_point_without_dots(text: str) -> None:
    try:
        path = parse_path("/" + text)
    except FormatError:
        return
    assert parse_path(path) == path
    segments = path.replace("%2F", "/").split("/")[1:]
    assert not {".", ".."} & {segment.partition(";")[0] for segment in segments}
    assert "" not in segments[:-1]


def test_origin_form_keeps_the_query_as_it_came() -> None:
    assert parse_origin_form("/a?b=%2e%2e/?c") == ("/a", "b=%2e%2e/?c")
    assert parse_origin_form("/a?") == ("/a", "")
    for bad in ("/a?b#c", "/a?b c", "/a?\n", "/a?é", "?b"):
        with pytest.raises(FormatError):
            parse_origin_form(bad)


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("https://example.com", Url("https", "example.com", 443, "/"), "https://example.com/"),
        ("HTTPS://Example.COM:443/a", Url("https", "example.com", 443, "/a"), "https://example.com/a"),
        ("http://example.com:443/", Url("http", "example.com", 443, "/"), "http://example.com:443/"),
        (
            "https://[2001:DB8::1]:8443/x?y",
            Url("https", "2001:db8::1", 8443, "/x", "y"),
            "https://[2001:db8::1]:8443/x",
        ),
        ("http://example.com?q", Url("http", "example.com", 80, "/", "q"), "http://example.com/"),
        ("wss://a.example/s", Url("wss", "a.example", 443, "/s"), "wss://a.example/s"),
    ],
)
def test_url(text: str, url: Url, name: str) -> None:
    assert parse_url(text) == url
    assert url.text == name
    assert parse_url(name) == parse_url(text.partition("?")[0])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("example.com", id="no scheme"),
        pytest.param("ftp://example.com/", id="other scheme"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("https:/example.com/", id="one slash"),
        pytest.param("https:///a", id="no host"),
        pytest.param("https:\\\\example.com/", id="backslashes"),
        pytest.param("https://example.com\\@evil.com/", id="backslash before @"),
        pytest.param("https://example.com@evil.com/", id="userinfo"),
        pytest.param("https://example.com#@evil.com/", id="fragment"),
        pytest.param("https://example.com/#a", id="fragment after the path"),
        pytest.param(" https://example.com/", id="space before"),
        pytest.param("https://example.com/\n", id="newline behind"),
        pytest.param("ht\ntps://example.com/", id="newline in the scheme"),
        pytest.param("", id="empty"),
    ],
)
def test_doubtful_url_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_url(text)


def test_default_port_is_left_out_of_its_own_scheme_only() -> None:
    assert authority_text("https", "a.example", 443) == "a.example"
    assert authority_text("http", "a.example", 443) == "a.example:443"
    assert url_text("https", "::1", 8443, "/x") == "https://[::1]:8443/x"
