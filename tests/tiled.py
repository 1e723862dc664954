"""Logs of nothing but hashes, as monitors serve them in tiles: honest ones, forks, and ones that show other tiles."""

from __future__ import annotations

from lictor.evidence import merkle
from lictor.evidence.merkle import leaf_hash
from lictor.evidence.tiles import Tile
from lictor.verifier.service.tiles import Missing, Tiles, Tree


class Tiled:
    """A log of `count` entries; with `fork` it is another from that entry on."""

    def __init__(self, count: int, fork: int | None = None) -> None:
        self.hold([b"%d %d" % (n, fork is not None and n >= fork) for n in range(count)])
        self.asked: list[Tile] = []

    def hold(self, entries: list[bytes]) -> None:
        """Hold these entries and no others."""
        self.entries = entries
        self.leaves = [leaf_hash(data) for data in entries]

    @property
    def size(self) -> int:
        return len(self.leaves)

    def tree(self, size: int | None = None) -> Tree:
        size = self.size if size is None else size
        return Tree(size, merkle.root(self.leaves[:size]))

    def tile(self, tile: Tile) -> bytes:
        self.asked.append(tile)
        if not tile.exists(self.size):
            raise Missing(f"no tile {tile}")
        if tile.level is None:
            bundle = self.entries[tile.index * 256 : tile.index * 256 + tile.width]
            return b"".join(len(data).to_bytes(2) + data for data in bundle)
        row = self.leaves
        for _ in range(tile.level):
            row = [merkle.root(row[at : at + 256]) for at in range(0, len(row) - 255, 256)]
        return b"".join(row[tile.index * 256 : tile.index * 256 + tile.width])

    def tiles(self, tree: Tree) -> Tiles:
        return Tiles(tree, self.tile)
