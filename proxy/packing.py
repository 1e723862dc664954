"""Runs of actions as frames of the channel: what they have in common once, then one line for the head of each."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..formats.errors import FormatError

MARK = b"A"
"""How a frame begins that is no JSON array."""
MAX_RUN = 256
"""Actions in a run."""
MAX_OCTETS = 256 * 1024
"""Of the heads of a run, unless it is of one. A run is recorded whole or not at all; a large head risks no others."""
_BEFORE = struct.Struct("!cQI")


class Packed(NamedTuple):
    """A run as it came, unverified: its heads as lines. `number` is of the first action, the others have the next."""

    number: int
    common: bytes
    heads: bytes


class Packing:
    """A run to which actions are still added."""

    __slots__ = ("_heads", "_octets", "common", "number")

    def __init__(self, number: int, common: bytes, head: bytes) -> None:
        self.number = number
        self.common = common
        self._heads = [head]
        self._octets = len(head)

    def take(self, number: int, common: bytes, head: bytes) -> bool:
        """Add the action if it is alike and the next one."""
        count = len(self._heads)
        self._octets += len(head)
        if common != self.common or number != self.number + count or count >= MAX_RUN or self._octets > MAX_OCTETS:
            return False
        self._heads.append(head)
        return True

    def frame(self) -> bytes:
        """The whole run."""
        return _BEFORE.pack(MARK, self.number, len(self.common)) + self.common + b"\n".join(self._heads)


def unpack(frame: bytes) -> Packed:
    """Raises FormatError for a frame that is not from `Packing`."""
    if len(frame) < _BEFORE.size or frame[:1] != MARK:
        raise FormatError("expected a run of actions, found another frame")
    _, number, length = _BEFORE.unpack_from(frame)
    end = _BEFORE.size + length
    packed = Packed(number, frame[_BEFORE.size : end], frame[end:])
    if packed.heads.count(b"\n") >= MAX_RUN:
        raise FormatError(f"expected a run of at most {MAX_RUN} actions, found more")
    return packed
