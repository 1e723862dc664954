"""The parser of names against a model of it that reads one character at a time, slow and obvious."""

from __future__ import annotations

import ipaddress
import string

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lictor.formats.errors import FormatError
from lictor.formats.names import DEFAULT_PORTS, Url, parse_authority, parse_host, parse_path, parse_url

DIGITS, HEX = set(string.digits), set(string.hexdigits)
NAME = set(string.ascii_lowercase + string.digits + "_-")
RAW = set(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/")
LENIENT = RAW | set("|{}^[]")


class Refused(Exception):
    """The model's word for FormatError."""


def need(good: object) -> None:
    if not good:
        raise Refused


def model_host(text: str) -> str:
    if text[:1] == "[":
        need(text[-1:] == "]" and 2 <= len(text) - 2 <= 39 and set(text[1:-1]) <= HEX | {":"})
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            raise Refused from None
        need(not address.ipv4_mapped)
        return str(address)
    need(text.isascii() and len(text) <= 253)
    labels = text.lower().split(".")
    for label in labels:
        need(1 <= len(label) <= 63 and set(label) <= NAME and label[0] != "-" and label[-1] != "-")
    last = labels[-1]
    if set(last) <= DIGITS or (last[:2] == "0x" and set(last[2:]) <= HEX):
        need(len(labels) == 4 and all(set(one) <= DIGITS and str(int(one)) == one and int(one) < 256 for one in labels))
    return ".".join(labels)


def model_authority(text: str, default: int | None) -> tuple[str, int]:
    at = text.find("]") + 1 if text[:1] == "[" else text.find(":") if ":" in text else len(text)
    host, rest = text[:at], text[at:]
    if rest == "" and default is not None:
        return model_host(host), default
    need(rest[:1] == ":" and set(rest[1:]) <= DIGITS and rest[1:2] not in ("", "0") and int(rest[1:]) < 65536)
    return model_host(host), int(rest[1:])


def model_path(text: str) -> str:
    """Segments as octets, with the separator that came before each: / or %2F."""
    need(text[:1] == "/" and len(text) <= 8192)
    segments: list[tuple[str, bytearray]] = []
    at = 0
    while at < len(text):
        if text[at] == "%":
            need(len(text) >= at + 3 and set(text[at + 1 : at + 3]) <= HEX)
            octet, size = int(text[at + 1 : at + 3], 16), 3
        else:
            need(text[at] in LENIENT)
            octet, size = ord(text[at]), 1
        need(octet >= 0x20 and octet != 0x7F and octet != ord("\\"))
        if octet == ord("/"):
            segments.append(("/" if size == 1 else "%2F", bytearray()))
        else:
            segments[-1][1].append(octet)
        at += size
    out = ""
    for number, (separator, octets) in enumerate(segments):
        need(octets or number == len(segments) - 1)
        need(bytes(octets).split(b";")[0] not in (b".", b".."))
        for i in range(len(octets)):
            two = octets[i + 1 : i + 3].decode("latin-1")
            need(not (octets[i] == ord("%") and len(two) == 2 and set(two) <= HEX))
        try:
            octets.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused from None
        out += separator + "".join(chr(o) if chr(o) in RAW - {"/"} else f"%{o:02X}" for o in octets)
    return out


def model_url(text: str) -> Url:
    scheme, separator, rest = text.partition("://")
    need(separator and scheme.lower() in DEFAULT_PORTS and scheme.isascii())
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    host, port = model_authority(rest[:end], DEFAULT_PORTS[scheme.lower()])
    path, _, query = rest[end:].partition("?")
    need(all("!" <= char <= "~" and char != "#" for char in query))
    path = path if path[:1] == "/" else f"/{path}"
    return Url(scheme.lower(), host, port, model_path(path), query)  # type: ignore[arg-type]


def found(parse: object, *arguments: object) -> object:
    try:
        return parse(*arguments)  # type: ignore[operator]
    except (FormatError, Refused):
        return None


ODD_LABELS = [
    "a",
    "Ex",
    "xn--p1ai",
    "0x1f",
    "0x",
    "0X7f",
    "127",
    "0",
    "01",
    "255",
    "256",
    "-a",
    "a-",
    "_",
    "\u0661",
    "ｅ",
]
LABELS = st.one_of(
    st.sampled_from([*ODD_LABELS, "", "a" * 64]), st.text(st.sampled_from("aZ0-_:@%/ .[]\\"), max_size=4)
)
IPV6 = st.one_of(
    st.ip_addresses(v=6).flatmap(lambda a: st.sampled_from([f"[{a}]", f"[{a.exploded}]", f"[{a}%1]", str(a)])),
    st.text(st.sampled_from("0f:.]["), max_size=9).map(lambda inner: f"[{inner}]"),
)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=5).map(".".join), st.ip_addresses(v=4).map(str), IPV6, st.text(max_size=8)
)
PORTS = st.sampled_from(["", "", ":", ":1", ":443", ":0443", ":65535", ":65536", ":-1", ":\u0661", ":80:80", ":8 "])
ENCODED = ["%2f", "%2F", "%2e", "%2E", "%41", "%25", "%2541", "%C3%A9", "%C3", "%A9", "%00", "%5c", "%7F", "%4"]
PIECES = st.sampled_from([*"aB./%;?#é\\+|[*~:@ \x7f", "..", *ENCODED])
PATHS = st.lists(PIECES, max_size=8).map("".join)


@settings(max_examples=200, deadline=None)
@given(HOSTS)
@example("[::ffff:1.2.3.4]")
@example("[::ffff:102:304]")
@example("1.2.3.0x")
def test_hosts(text: str) -> None:
    host = found(parse_host, text)
    assert host == found(model_host, text)
    if isinstance(host, str):
        assert parse_host(f"[{host}]" if ":" in host else host) == host


@settings(max_examples=200, deadline=None)
@given(HOSTS, PORTS, st.sampled_from([None, 80, 443]))
def test_authorities(host: str, port: str, default: int | None) -> None:
    assert found(parse_authority, host + port, default) == found(model_authority, host + port, default)


@settings(max_examples=200, deadline=None)
@given(PATHS)
@example("a/%2e%2e%2Fb")
@example("%2E;x")
def test_paths(text: str) -> None:
    for path in (text, f"/{text}"):
        parsed = found(parse_path, path)
        assert parsed == found(model_path, path)
        assert parsed is None or parse_path(str(parsed)) == parsed


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["https://", "HTTP://", "wss://", "ftp://", "http:/", "//", ""]), HOSTS, PORTS, PATHS)
def test_urls(scheme: str, host: str, port: str, path: str) -> None:
    url = found(parse_url, scheme + host + port + path)
    assert url == found(model_url, scheme + host + port + path)
    if isinstance(url, Url):
        again = parse_url(url.text)
        assert (again, again.text) == (Url(url.scheme, url.host, url.port, url.path), url.text)
