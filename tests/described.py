"""Descriptions as a monitor makes them of itself."""

from __future__ import annotations

from typing import Any

from lictor.evidence import description
from lictor.formats import jws
from lictor.formats.canonical import canonical
from lictor.formats.jws import Signer

MEASURED: dict[str, Any] = {
    "swversion": ["1.2.3"],
    "started": 1_790_000_000.5,
    "python": "CPython 3.13.0",
    "package": "a" * 64,
    "dependencies": "b" * 64,
    "distributions": {"mitmproxy": "12.2.3", "h2": "4.3.0"},
    "configuration": "c" * 43,
}


def claims(origin: str = "example.test/monitor/one", **changes: Any) -> dict[str, Any]:
    """Good claims, but for the `changes`."""
    made = {
        "iss": f"spiffe://{origin}",
        "jti": "550e8400-e29b-41d4-a716-446655440000",
        "iat": 1_790_000_000,
        "eat_profile": description.PROFILE,
        "swname": "lictor",
        **MEASURED,
        "log_origin": origin,
        "log_size": 0,
        "bindings": ["d" * 43],
        "bindings_digest": "e" * 43,
        "extensions": [],
        "durability": "commit",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def token(signer: Signer, said: dict[str, Any], x5c: list[str] | None = None, typ: str = description.TYP) -> str:
    """These claims, signed as they are."""
    return jws.sign_compact({"typ": typ, **({"x5c": x5c} if x5c else {})}, canonical(said), signer)


def made(signer: Signer, **changes: Any) -> description.Description:
    """A description with good claims, but for the `changes`."""
    said = claims(**changes)
    return description.parse(said, token(signer, said))
