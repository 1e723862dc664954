"""The one parser of network names: hosts, authorities, paths and URLs. What is judged is read here and nowhere else.

Two parsers that disagree about a name are how a judged request differs from the one that is sent, so every spelling
that any parser in use reads differently is refused (FormatError): userinfo, percent-encoding in hosts, non-ASCII, a
trailing dot, octal, hexadecimal and short IPv4, zone ids, backslashes, dot segments, empty segments, control
characters. What comes out is canonical: equal names have equal text.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType, NoReturn
from urllib.parse import quote, unquote_to_bytes

from .errors import FormatError

Host = NewType("Host", str)
"""A canonical host: a lower-case DNS name, dotted-decimal IPv4, or RFC 5952 IPv6 without brackets (as one dials)."""

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
MAX_URL = 8192
MAX_AUTHORITY = 259
"""Characters: a DNS name of 253, a colon, and a port."""

_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
_IPV6 = re.compile(r"\[([0-9A-Fa-f:]{2,39})\]", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z]+)://([^/?#]*)(.*)", re.ASCII | re.DOTALL)

_SUB_DELIMS_AND_MORE = "!$&'()*+,;=:@"
_SIMPLE_PATH = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)*/?", re.ASCII)
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/|{}^\[\]-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_QUERY = re.compile(r"[!-\"$-~]*", re.ASCII)
_STILL_ENCODED = re.compile(rb"%[0-9A-Fa-f]{2}")
_FORBIDDEN_OCTETS = re.compile(rb"[\x00-\x1f\x7f\\]")
_DOT_SEGMENT = re.compile(r"/\.{1,2}(?=[/;]|\Z)", re.ASCII)


def _refuse(what: str, text: str, why: str) -> NoReturn:
    shown = ascii(text if len(text) <= 100 else text[:100] + "…")
    raise FormatError(f"{shown} is not {what} that can be judged: {why}")


def parse_host(text: str) -> Host:
    """The canonical host of `text`, an IPv6 address standing in brackets as it does in a URL. Raises FormatError."""
    if _IPV4.fullmatch(text):
        return Host(text)
    if text.startswith("["):
        return _parse_ipv6(text)
    name = text.lower() if text.isascii() else text
    if len(name) > 253 or not _DNS_NAME.fullmatch(name):
        _refuse("a host", text, "expected an ASCII DNS name, dotted-decimal IPv4 or [IPv6]")
    if _NUMBER_AT_END.fullmatch(name):
        _refuse("a host", text, "it ends in a number but is not dotted-decimal IPv4 without leading zeros")
    return Host(name)


def _parse_ipv6(text: str) -> Host:
    found = _IPV6.fullmatch(text)
    if found is None:
        _refuse("a host", text, "expected hexadecimal IPv6 in brackets without a zone id")
    try:
        address = ipaddress.IPv6Address(found[1])
    except ValueError:
        _refuse("a host", text, "not an IPv6 address")
    if address.ipv4_mapped is not None:
        _refuse("a host", text, "an IPv4 address must be written as IPv4")
    return Host(address.compressed)


def parse_authority(text: str, default_port: int | None) -> tuple[Host, int]:
    """Host and port of `host[:port]`; without a default (None, as for CONNECT) the port must be there. FormatError."""
    if len(text) > MAX_AUTHORITY:
        _refuse("an authority", text, f"it has more than {MAX_AUTHORITY} characters")
    return _authority(text, default_port)


@lru_cache(1024)
def _authority(text: str, default_port: int | None) -> tuple[Host, int]:
    if text.startswith("["):
        end = text.find("]") + 1
        host, rest = text[:end], text[end:]
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if not rest and default_port is not None:
        return parse_host(host), default_port
    if not rest.startswith(":") or not _PORT.fullmatch(rest[1:]) or int(rest[1:]) > 65535:
        _refuse("an authority", text, "expected host:port with a decimal port from 1 to 65535")
    return parse_host(host), int(rest[1:])


def parse_path(text: str, empty_segments: bool = False) -> str:
    """The canonical form of a URL path: every octet that may stand raw does, every other is %XX in upper case.

    `%2F` stays as it is, since servers differ on whether it separates; neither reading may hold a dot segment or an
    empty segment, unless `empty_segments` lets those stand that are not the first: then it is for the caller to see
    that it makes no difference whether a server drops them. Raises FormatError for those, and for backslashes, control
    characters, and text that is not UTF-8 or is encoded twice.
    """
    if 0 < len(text) <= MAX_URL and _SIMPLE_PATH.fullmatch(text):
        return text
    if len(text) > MAX_URL or not _PATH.fullmatch(text):
        _refuse("a path", text, "expected an absolute path of at most 8192 characters as RFC 3986 writes it")
    separated = text.replace("%2F", "/").replace("%2f", "/")
    if "//" in separated and (not empty_segments or separated.startswith("//")):
        _refuse("a path", text, "it has an empty segment")
    octets = [unquote_to_bytes(part) for part in re.split("%2[Ff]", text)]
    if any(_STILL_ENCODED.search(part) for part in octets):
        _refuse("a path", text, "it is percent-encoded twice")
    if any(_FORBIDDEN_OCTETS.search(part) for part in octets):
        _refuse("a path", text, "it holds a backslash or a control character")
    if _DOT_SEGMENT.search(b"/".join(octets).decode("latin-1")):
        _refuse("a path", text, "it has a dot segment")
    try:
        return "%2F".join(quote(part.decode("utf-8"), safe="/" + _SUB_DELIMS_AND_MORE) for part in octets)
    except UnicodeDecodeError:
        _refuse("a path", text, "it is not UTF-8")


def parse_origin_form(text: str, empty_segments: bool = False) -> tuple[str, str]:
    """Canonical path and query (as it came, without `?`) of a request target in origin form. Raises FormatError."""
    path, _, query = text.partition("?")
    if not _QUERY.fullmatch(query):
        _refuse("a request target", text, "its query holds a character that a URL cannot")
    return parse_path(path, empty_segments), query


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute URL in canonical parts. `path` is never empty, `query` is as it came, without `?`."""

    scheme: str
    host: Host
    port: int
    path: str
    query: str = ""

    @property
    def text(self) -> str:
        """The URL without its query: how actions name it."""
        return url_text(self.scheme, self.host, self.port, self.path)


def parse_url(text: str) -> Url:
    """Parse an absolute http, https, ws or wss URL. Raises FormatError on any doubt, and on a fragment."""
    found = _SCHEME.fullmatch(text)
    if found is None or (scheme := found[1].lower()) not in DEFAULT_PORTS:
        _refuse("a URL", text, f"expected {', '.join(DEFAULT_PORTS)} and ://")
    host, port = parse_authority(found[2], DEFAULT_PORTS[scheme])
    rest = found[3]
    path, query = parse_origin_form(rest if rest.startswith("/") else "/" + rest)
    return Url(scheme, host, port, path, query)


def host_text(host: str) -> str:
    """The host as a URL writes it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def authority_text(scheme: str, host: str, port: int) -> str:
    """`host` or `host:port`, the scheme's default port left out."""
    if DEFAULT_PORTS.get(scheme) == port:
        return host_text(host)
    return f"{host_text(host)}:{port}"


def url_text(scheme: str, host: str, port: int, path: str) -> str:
    """The canonical URL without query; the parts must come from this module."""
    return f"{scheme}://{authority_text(scheme, host, port)}{path}"
