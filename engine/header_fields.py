"""Header fields, found by name in a table made once for all questions. `patches` puts this in mitmproxy's place.

mitmproxy walks through all fields for each question, and makes a table of named fields where none are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from mitmproxy import http

_headers_init = http.Headers.__init__


def init(self: http.Headers, fields: Iterable[tuple[bytes, bytes]] = (), **named: str) -> None:
    if named:
        _headers_init(self, fields, **named)
        return
    self.fields = tuple(map(tuple, fields))  # type: ignore[arg-type]
    for name, value in self.fields:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError("Header fields must be bytes.")


@lru_cache(4096)
def _field_name(name: str | bytes) -> bytes:
    return (name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).lower()


def _fields_by_name(headers: http.Headers) -> dict[bytes, list[str]]:
    fields = headers.fields
    known = headers.__dict__.get("_by_name")
    if known is not None and known[0] is fields:
        return known[1]  # type: ignore[no-any-return]
    found: dict[bytes, list[str]] = {}
    for name, value in fields:
        found.setdefault(name.lower(), []).append(value.decode("utf-8", "surrogateescape"))
    headers.__dict__["_by_name"] = (fields, found)
    return found


def getitem(self: http.Headers, name: str | bytes) -> str:
    values = _fields_by_name(self).get(_field_name(name))
    if values is None:
        raise KeyError(name)
    return values[0] if len(values) == 1 else ", ".join(values)


def get(self: http.Headers, name: str | bytes, default: Any = None) -> Any:
    values = _fields_by_name(self).get(_field_name(name))
    if values is None:
        return default
    return values[0] if len(values) == 1 else ", ".join(values)


def contains(self: http.Headers, name: object) -> bool:
    return isinstance(name, str | bytes) and _field_name(name) in _fields_by_name(self)


def get_all(self: http.Headers, name: str | bytes) -> list[str]:
    return list(_fields_by_name(self).get(_field_name(name), ()))
