"""Names that are read in more than one way, at every place where a request can name a host."""

from __future__ import annotations

from end_to_end.attempts import Case, bytes_to_proxy, over_tunnel

DOUBTFUL = {
    "octal": "0177.0.0.1",
    "one octal part": "127.0.0.01",
    "hexadecimal": "0x7f000001",
    "hexadecimal parts": "0x7f.0x0.0x0.0x1",
    "decimal": "2130706433",
    "short": "127.1",
    "three parts": "127.0.1",
    "five parts": "127.0.0.1.1",
    "part too large": "127.0.0.256",
    "number at the end": "example.1",
    "hexadecimal number at the end": "example.0x1",
    "IPv4 in IPv6": "[::ffff:127.0.0.1]",
    "IPv4 in IPv6, hexadecimal": "[::ffff:7f00:1]",
    "zone id": "[fe80::1%eth0]",
    "encoded zone id": "[fe80::1%25eth0]",
    "address without brackets": "::1",
    "bracket without end": "[::1",
    "future address": "[v1.fe80]",
    "dot at the end": "localhost.",
    "two dots at the end": "localhost..",
    "dot at the beginning": ".localhost",
    "empty label": "a..example",
    "userinfo": "user@localhost",
    "userinfo with a password": "a:b@localhost",
    "encoded character": "local%68ost",
    "encoded dot": "localhost%2e",
    "encoded NUL": "localhost%00.example",
    "slash": "localhost/.example",
    "backslash": "localhost\\.example",
    "question mark": "localhost?.example",
    "hash": "localhost#.example",
    "comma": "localhost,example.org",
    "star": "*.localhost",
    "hyphen first": "-localhost",
    "label of 64 characters": "a" * 64 + ".example",
    "name of 256 characters": ".".join(["a" * 50] * 5) + ".x",
}
PORTS = {
    "no port": ("localhost", "unreadable_request"),
    "empty port": ("localhost:", "unreadable_request"),
    "port 0": ("localhost:0", "unreadable_request"),
    "port 65536": ("localhost:65536", "unreadable_request"),
    "port with a zero first": ("localhost:0443", "doubtful_name"),
    "port with a sign": ("localhost:+443", "unreadable_request"),
    "port that is no number": ("localhost:https", "unreadable_request"),
    "two ports": ("localhost:443:443", "unreadable_request"),
    "port of digits from elsewhere": ("localhost:\u0664\u0664\u0663", "doubtful_header"),
}
# These the engine's reader of requests already cannot take for a name.
UNREADABLE = frozenset(
    (
        "address without brackets",
        "bracket without end",
        "two dots at the end",
        "dot at the beginning",
        "empty label",
        "userinfo",
        "userinfo with a password",
        "encoded character",
        "encoded dot",
        "encoded NUL",
        "slash",
        "backslash",
        "question mark",
        "hash",
        "comma",
        "star",
        "label of 64 characters",
        "name of 256 characters",
    )
)


def connect(authority: str, reason: str) -> Case:
    return Case(bytes_to_proxy(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()), 400, reason)


def absolute(authority: str, reason: str) -> Case:
    line = f"GET http://{authority}/data/x HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    return Case(bytes_to_proxy(line.encode()), 400, reason)


def host(authority: str) -> Case:
    return Case(over_tunnel("GET", "/open/x", host=authority), 400, "doubtful_name")


def reason(what: str) -> str:
    return "unreadable_request" if what in UNREADABLE else "doubtful_name"


NAMES = {
    **{f"CONNECT: {what}": connect(f"{name}:443", reason(what)) for what, name in DOUBTFUL.items()},
    **{f"CONNECT: {what}": connect(name, why) for what, (name, why) in PORTS.items()},
    **{
        f"absolute form: {what}": absolute(f"{name}:80", reason(what))
        for what, name in DOUBTFUL.items()
        if what != "slash"
    },
    **{f"Host: {what}": host(f"{name}:443") for what, name in DOUBTFUL.items()},
}
