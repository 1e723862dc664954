"""The log as tiles (c2sp.org/tlog-tiles): 256 hashes, or 256 entries, at a path that says which."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..formats.errors import FormatError
from .merkle import TILE_HEIGHT
from .store import Reader

WIDTH = 1 << TILE_HEIGHT
MAX_BUNDLED = 0xFFFF
"""Octets of the largest entry that a bundle can hold: its length stands before it in two octets."""
_PATH = re.compile(r"(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """`width` hashes of `level` from index * 256 on, or (`level` None) that many entries. 256 is a full tile."""

    level: int | None
    index: int
    width: int

    @classmethod
    def parse(cls, path: str) -> Tile:
        """What `path`, the part after `tile/`, names. Raises FormatError unless it is the one way to write it."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise FormatError(f"not the path of a tile: {path[:80]!r}")
        level, digits, width = found[1], found[2], found[3]
        index = int(digits.replace("x", "").replace("/", ""))
        tile = cls(None if level == "entries" else int(level), index, int(width) if width else WIDTH)
        if str(tile) != path or (tile.level or 0) > 63:
            raise FormatError(f"not the path of a tile: {path[:80]!r}")
        return tile

    def __str__(self) -> str:
        level = "entries" if self.level is None else str(self.level)
        groups, rest = [f"{self.index % 1000:03}"], self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03}")
            rest //= 1000
        return f"{level}/{'/'.join(groups)}" + (f".p/{self.width}" if self.width < WIDTH else "")

    def exists(self, size: int) -> bool:
        """Whether a log of `size` entries has all of it. A narrower partial tile is of an earlier size and stays."""
        return 0 < self.width <= WIDTH and self.index * WIDTH + self.width <= size >> TILE_HEIGHT * (self.level or 0)


def read_tile(reader: Reader, tile: Tile) -> bytes | None:
    """The octets of a tile of what is durable; None if the log has it not, not yet, or (entries) no more.

    Raises FormatError for a bundle with an entry of more than MAX_BUNDLED octets, which has no form.
    """
    head = reader.head()
    if head is None or not tile.exists(head.size):
        return None
    first = tile.index * WIDTH
    if tile.level is not None:
        return b"".join(reader.hashes(tile.level, first, tile.width))
    if first < reader.erased():
        return None
    bundle = []
    for seq, data in reader.entries(first, first + tile.width):
        if len(data) > MAX_BUNDLED:
            raise FormatError(f"entry {seq} has {len(data)} octets, more than a bundle can hold ({MAX_BUNDLED})")
        bundle += [len(data).to_bytes(2), data]
    return b"".join(bundle)
