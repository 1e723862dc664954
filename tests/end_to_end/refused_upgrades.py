"""WebSockets that must be refused: at the handshake, by what the server grants, and by what is sent over them."""

from __future__ import annotations

from dataclasses import dataclass

from end_to_end.talkers import BINARY, CLOSE, HANDSHAKE, KEY, PING, TEXT, frame, granted

WITHOUT_EXTENSIONS = HANDSHAKE[:4]


def handshake(**changed: str | None) -> tuple[str, ...]:
    """The headers of a handshake, some of them other (`sec_websocket_key="…"`) or left out (None)."""
    found = dict(line.split(": ", 1) for line in WITHOUT_EXTENSIONS)
    for name, value in changed.items():
        written = next((n for n in found if n.lower().replace("-", "_") == name), name.replace("_", "-"))
        found.pop(written, None)
        if value is not None:
            found[written] = value
    return tuple(f"{name}: {value}" for name, value in found.items())


@dataclass(frozen=True)
class Asked:
    """A handshake that is refused with `status` and `reason`."""

    path: str
    headers: tuple[str, ...]
    status: int = 403
    reason: str = "upgrade_refused"
    method: str = "GET"
    version: str = "HTTP/1.1"
    body: bytes = b""


HANDSHAKES = {
    "no Connection": Asked("/open/x", handshake(connection=None)),
    "Connection without upgrade": Asked("/open/x", handshake(connection="keep-alive")),
    "another protocol besides": Asked("/open/x", handshake(upgrade="websocket, h2c")),
    "Upgrade twice": Asked("/open/x", (*handshake(), "Upgrade: websocket")),
    "an old version": Asked("/open/x", handshake(sec_websocket_version="8")),
    "no version": Asked("/open/x", handshake(sec_websocket_version=None)),
    "two versions": Asked("/open/x", (*handshake(), "Sec-WebSocket-Version: 13")),
    "no key": Asked("/open/x", handshake(sec_websocket_key=None)),
    "a key that is too short": Asked("/open/x", handshake(sec_websocket_key="c2hvcnQ=")),
    "a key that is no base64": Asked("/open/x", handshake(sec_websocket_key="%" * 24)),
    "two keys": Asked("/open/x", (*handshake(), f"Sec-WebSocket-Key: {KEY}")),
    "a subprotocol that is no token": Asked("/open/x", handshake(Sec_WebSocket_Protocol="chat room")),
    "a subprotocol twice": Asked("/open/x", handshake(Sec_WebSocket_Protocol="chat, chat")),
    "too many subprotocols": Asked("/open/x", handshake(Sec_WebSocket_Protocol=", ".join(f"p{i}" for i in range(33)))),
    "POST": Asked("/open/x", handshake(), method="POST"),
    "with a body": Asked("/open/x", (*handshake(), "Content-Length: 5"), body=b"hello"),
    "with a body in chunks": Asked("/open/x", (*handshake(), "Transfer-Encoding: chunked"), body=b"0\r\n\r\n"),
    "HTTP/1.0": Asked("/open/x", handshake(), version="HTTP/1.0"),
    "of an MCP server": Asked("/mcp", handshake()),
    "a path that no pattern allows": Asked("/closed", handshake(), reason="not_in_allowlist"),
}

GRANTS = {
    "no Sec-WebSocket-Accept": granted().replace("Sec-WebSocket-Accept", "X-Accept"),
    "Sec-WebSocket-Accept of another key": granted(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "Sec-WebSocket-Accept twice": granted("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "another protocol": granted(upgrade="h2c"),
    "no Connection": granted().replace("Connection", "X-Connection"),
    "an extension that was not offered": granted("Sec-WebSocket-Extensions: permessage-deflate"),
    "a subprotocol that was not offered": granted("Sec-WebSocket-Protocol: raw"),
    "a body": granted("Content-Length: 5"),
}


@dataclass(frozen=True)
class Sent:
    """Bytes that a client sends over an open WebSocket, and the close that they are answered with."""

    data: bytes
    code: int
    reason: str
    path: str = "/open/x"


FRAMES = {
    "text that no behavior lets through": Sent(frame(TEXT, b"hello"), 1008, "not_in_allowlist", "/silent/x"),
    "binary that no behavior lets through": Sent(frame(BINARY, b"\x00"), 1008, "not_in_allowlist", "/silent/x"),
    "an empty message that no behavior lets through": Sent(frame(TEXT), 1008, "not_in_allowlist", "/silent/x"),
    "a close that says something": Sent(frame(CLOSE, b"\x03\xe8secret"), 1008, "not_in_allowlist", "/silent/x"),
    "a denied one in pieces": Sent(
        frame(TEXT, b"hel", fin=False) + frame(PING, b"x") + frame(0, b"lo"), 1008, "not_in_allowlist", "/silent/x"
    ),
    "text with what is forbidden": Sent(frame(TEXT, b"my password is"), 1008, "forbidden_pattern", "/guarded/x"),
    "JSON with what is forbidden": Sent(
        frame(TEXT, b'{"a": "\\u0070assword"}'), 1008, "forbidden_pattern", "/guarded/x"
    ),
    "JSON that is not what it must be": Sent(frame(TEXT, b'{"op": "drop"}'), 1008, "schema_violated", "/typed/x"),
    "text that is no JSON where JSON is asked for": Sent(frame(TEXT, b"op"), 1008, "parameter_missing", "/typed/x"),
    "binary where JSON is asked for": Sent(frame(BINARY, b"{}"), 1008, "parameter_missing", "/typed/x"),
    "JSON with a key twice": Sent(frame(TEXT, b'{"op":"list","op":"drop"}'), 1008, "unparsable_body", "/typed/x"),
    "a frame without a mask": Sent(frame(TEXT, b"hello", masked=False), 1002, "bad_frame"),
    "a compressed frame": Sent(frame(TEXT, b"\xcaH\xcd\xc9\xc9\x07\x00", rsv=4), 1002, "bad_frame"),
    "a reserved opcode": Sent(frame(3, b"x"), 1002, "bad_frame"),
    "a continuation of nothing": Sent(frame(0, b"x"), 1002, "bad_frame"),
    "a message within a message": Sent(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002, "bad_frame"),
    "a ping in pieces": Sent(frame(PING, b"x", fin=False), 1002, "bad_frame"),
    "a ping that is too long": Sent(frame(PING, b"x" * 126), 1002, "bad_frame"),
    "a length in too many bytes": Sent(b"\x81\xfe\x00\x05\x00\x00\x00\x00hello", 1002, "bad_frame"),
    "text that is not UTF-8": Sent(frame(TEXT, b"\xff"), 1007, "bad_frame"),
    "text that ends within a character": Sent(frame(TEXT, b"\xc3"), 1007, "bad_frame"),
    "a close code that nobody may send": Sent(frame(CLOSE, b"\x03\xed"), 1002, "bad_frame"),
    "a close code of one byte": Sent(frame(CLOSE, b"\x03"), 1002, "bad_frame"),
    "a message that is too large": Sent(frame(BINARY, b"x" * 70_000), 1009, "message_too_large", "/open/x"),
    "a message that is too large in pieces": Sent(
        frame(BINARY, b"x" * 40_000, fin=False) + frame(0, b"x" * 40_000, fin=False), 1009, "message_too_large"
    ),
    "a message in too many pieces": Sent(
        frame(BINARY, fin=False) + frame(0, fin=False) * 4100, 1009, "message_too_large"
    ),
}


def hello(*extensions: tuple[int, bytes], kind: int = 1, legacy: bytes = b"\x03\x03") -> bytes:
    """A TLS ClientHello in one record."""
    data = b"".join(number.to_bytes(2) + len(body).to_bytes(2) + body for number, body in extensions)
    body = legacy + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + len(data).to_bytes(2) + data
    message = bytes([kind]) + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(message).to_bytes(2) + message


def server_name(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension that names the server."""
    listed = b"".join(bytes([kind]) + len(name).to_bytes(2) + name for name in names)
    return 0, len(listed).to_bytes(2) + listed


_GOOD = server_name(b"localhost")
_ENDLESS = b"".join(b"\x16\x03\x01\x40\x00" + first + bytes(16380) for first in (b"\x01\xff\xff\xff", *[bytes(4)] * 4))
_SPLIT = hello(server_name(b"other.example"))

TUNNELS = {
    "SSH": (b"SSH-2.0-OpenSSH_9.9\r\n", "not_tls"),
    "SMTP": (b"EHLO localhost\r\n", "not_tls"),
    "Postgres": (b"\x00\x00\x00\x08\x04\xd2\x16/", "not_tls"),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", "not_tls"),
    "plain HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "not_tls"),
    "HTTP/2 without TLS": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_tls"),
    "a TLS record of version 4": (b"\x16\x04\x00\x00\x05\x01\x00\x00\x01\x00", "not_tls"),
    "TLS application data": (b"\x17\x03\x03\x00\x05hello", "not_tls"),
    "a TLS alert": (b"\x15\x03\x03\x00\x02\x02\x28", "not_tls"),
    "a ServerHello": (hello(_GOOD, kind=2), "not_tls"),
    "an empty record": (b"\x16\x03\x01\x00\x00", "not_tls"),
    "a ClientHello that is cut short": (hello(_GOOD)[:40], "cut short"),
    "a ClientHello of zeros": (b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c" + bytes(44), "not_tls"),
    "a ClientHello without end": (
        b"".join(
            b"\x16\x03\x01\x40\x00" + (b"\x01\xff\xff\xff" if not i else bytes(4)) + bytes(16380) for i in range(5)
        ),
        "not_tls",
    ),
    "no server name": (hello((43, b"\x02\x03\x04")), "name_mismatch"),
    "no extension": (hello(), "name_mismatch"),
    "another server name": (hello(server_name(b"other.example")), "name_mismatch"),
    "a server name with a dot at its end": (hello(server_name(b"localhost.")), "name_mismatch"),
    "an address as the server name": (hello(server_name(b"127.0.0.1")), "name_mismatch"),
    "a server name with NUL": (hello(server_name(b"localhost\x00.example")), "not_tls"),
    "two server names": (hello(server_name(b"localhost", b"other.example")), "not_tls"),
    "a server name of another kind": (hello(server_name(b"localhost", kind=1)), "not_tls"),
    "the server name twice": (hello(_GOOD, server_name(b"other.example")), "not_tls"),
    "an encrypted ClientHello": (hello(_GOOD, (0xFE0D, bytes(8))), "encrypted_name"),
    "an encrypted server name of old": (hello(_GOOD, (0xFFCE, bytes(8))), "encrypted_name"),
    "another server name in two records": (
        b"\x16\x03\x01\x00\x20" + _SPLIT[5:37] + b"\x16\x03\x01" + (len(_SPLIT) - 37).to_bytes(2) + _SPLIT[37:],
        "name_mismatch",
    ),
}
"""The first bytes in a tunnel to `localhost` that is not intercepted, and the reason why it is not opened."""
