"""Server-sent events (HTML Living Standard, section 9.2), bytes in, complete events out, each with its own bytes.

Sans-io. Nothing is held but the one event that is not complete yet, and of that no more than a limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import FormatError

_END = re.compile(rb"(?:\A|(?>\r\n|\r|\n))(?:(?>\r\n|\r|\n))+")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_HALF = b"\r\n\r"
"""Where lines end in CRLF, a lone CR at the end of what has come is half of an end of line."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `raw` is what came, with the empty lines at its end: the events' `raw` in order are the stream.

    `type` is the `event` field, `message` without one; `data` its lines joined by LF, None without any (a comment, an
    empty line, a mere `id`); `id` None without one. Bytes, because what is not UTF-8 is for the reader to refuse.
    """

    raw: bytes
    type: bytes = b"message"
    data: bytes | None = None
    id: bytes | None = None

    @classmethod
    def parse(cls, raw: bytes) -> Event:
        """The fields of one event, as the standard reads them: unknown ones and comments mean nothing."""
        data: list[bytes] = []
        fields = {b"event": b"", b"id": None}
        for line in _LINE_END.split(raw):
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name in fields:
                fields[name] = value
        return cls(raw, fields[b"event"] or b"message", b"\n".join(data) if data else None, fields[b"id"])


class Splitter:
    """Cuts one stream into events. `limit`: the most octets that one event may have."""

    __slots__ = ("_buffer", "_limit", "_looked", "_started")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._looked = 0
        self._started = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete now, in order. Raises FormatError if one is larger than the limit."""
        self._buffer += chunk
        events = []
        start = 0
        for found in _END.finditer(self._buffer, max(0, self._looked - len(_HALF))):
            if found.end() == len(self._buffer) and self._buffer.endswith(_HALF):
                break
            events.append(self._event(start, found.end()))
            start = found.end()
        del self._buffer[:start]
        self._looked = len(self._buffer)
        self._check(self._looked)
        return events

    def finish(self) -> Event | None:
        """At the end of the stream: what came after the last complete event.

        The standard discards it, and clients exist that do not, so it is given as an event.
        """
        rest = len(self._buffer)
        return self._event(0, rest) if rest else None

    def _event(self, start: int, end: int) -> Event:
        self._check(end - start)
        raw = bytes(self._buffer[start:end])
        if self._started:
            return Event.parse(raw)
        self._started = True
        event = Event.parse(raw.removeprefix(_BOM))
        return Event(raw, event.type, event.data, event.id)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise FormatError(f"an event has {size} octets or more, expected at most {self._limit}")
