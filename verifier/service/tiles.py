"""Hashes of a log that somebody serves as tiles, each of them proven to be of one signed tree before it is used.

A full tile must have the root that the tile above it names, and what stands at the right edge the root that was signed.
So the root of any smaller tree that is computed from them is that of the log's beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ...evidence import merkle
from ...evidence.merkle import TILE_HEIGHT
from ...evidence.proofs import tree_root
from ...evidence.tiles import WIDTH, Tile
from ...formats.errors import LictorError

MAX_TILES = 128
"""Full tiles of one log that are kept, of 8 KiB each."""
_HASH = 32


class Unchecked(LictorError):
    """Nothing can be said about a log: it could not be read, or what was read is not of the tree that was signed."""


class Missing(Unchecked):
    """The log says itself that it has no such tile."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The first `size` entries of a log have this Merkle root."""

    size: int
    root: bytes


Fetch = Callable[[Tile], bytes]
"""The octets of a tile. Raises Unchecked, Missing."""


class Tiles:
    """The tiles of the log of `tree`. Implements `evidence.proofs.Hashes`."""

    def __init__(self, tree: Tree, fetch: Fetch) -> None:
        """Raises Unchecked if what is served is not of this tree."""
        self.tree = tree
        self._fetch = fetch
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._edge: dict[tuple[int, int], bytes] = {}
        """Partial tiles, at most one of each level. Never read again: only the root of the whole tree proves them."""
        if self.root(tree.size) != tree.root:
            raise Unchecked(f"the tiles that it serves are not those of the {tree.size} entries that it signed")

    def root(self, size: int) -> bytes:
        """The root of the first `size` entries, at most those of the tree. Raises Unchecked."""
        return tree_root(self, size)

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """As `Hashes` has it; all in one tile. Raises Unchecked."""
        data, start = self._tile(level, first // WIDTH), first % WIDTH * _HASH
        return [data[at : at + _HASH] for at in range(start, start + count * _HASH, _HASH)]

    def _tile(self, level: int, index: int) -> bytes:
        place = level, index
        if place in self._edge:
            return self._edge[place]
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        width = min(WIDTH, (self.tree.size >> TILE_HEIGHT * level) - index * WIDTH)
        data = self._fetch(Tile(level, index, width))
        if len(data) != width * _HASH:
            raise Unchecked(f"a tile of {width} hashes has {len(data)} octets")
        if width < WIDTH:
            self._edge[place] = data
            return data
        named = self.hashes(level + 1, index, 1)[0]
        if merkle.root(data[at : at + _HASH] for at in range(0, len(data), _HASH)) != named:
            raise Unchecked(f"the tile {level}/{index} that it serves does not have the root that is said of it")
        self._kept[place] = data
        if len(self._kept) > MAX_TILES:
            self._kept.popitem(last=False)
        return data
