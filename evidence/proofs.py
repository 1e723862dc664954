"""Proofs of RFC 9162 section 2.1 from stored hashes, at a cost that grows with the logarithm of the log.

A subtree of 256**level leaves has its root stored (`Reader.hashes`), so a proof reads at most 255 hashes of each level
of tiles for each of its two edges, and no entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .merkle import EMPTY_ROOT, TILE_HEIGHT, node_hash

Range = tuple[int, int]


class Hashes(Protocol):
    """Where leaf hashes (level 0) and roots of full tiles (level 1 and above) come from."""

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """`count` consecutive hashes of `level`, from index `first` on. Raises LedgerError if one is missing."""


def tree_root(source: Hashes, size: int) -> bytes:
    """The Merkle Tree Hash of the first `size` leaves."""
    return range_root(source, (0, size)) if size else EMPTY_ROOT


def inclusion_proof(source: Hashes, index: int, size: int) -> list[bytes]:
    """The path that proves leaf `index` in the tree of the first `size` leaves, from its sibling upwards."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    return [range_root(source, part) for part in _inclusion(index, 0, size)]


def consistency_proof(source: Hashes, old_size: int, size: int) -> list[bytes]:
    """Proof that the tree of `old_size` leaves is a prefix of that of `size`; empty if either says nothing."""
    if not 0 <= old_size <= size:
        raise ValueError(f"no earlier tree of size {old_size} in a tree of {size}")
    return [range_root(source, part) for part in _consistency(old_size, 0, size, whole=True)] if old_size else []


def range_root(source: Hashes, part: Range) -> bytes:
    """The Merkle Tree Hash of the leaves `part` (half-open), which begins where a subtree of its height does."""
    roots = list(_perfect_subtrees(source, part))
    hashed = roots.pop()
    while roots:
        hashed = node_hash(roots.pop(), hashed)
    return hashed


def range_edge(source: Hashes, part: Range) -> bytes:
    """The right edge (`CompactTree.edge`) of the tree over the leaves `part`, which begins as for `range_root`."""
    return b"".join(_perfect_subtrees(source, part))


def _perfect_subtrees(source: Hashes, part: Range) -> Iterator[bytes]:
    """The roots of the largest perfect subtrees, from the left."""
    begin, end = part
    while begin < end:
        height = (end - begin).bit_length() - 1
        yield _perfect(source, height, begin >> height)
        begin += 1 << height


def _perfect(source: Hashes, height: int, index: int) -> bytes:
    """The root of the `index`-th subtree of 2**height leaves."""
    level, rest = divmod(height, TILE_HEIGHT)
    row = source.hashes(level, index << rest, 1 << rest)
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def _split(size: int) -> int:
    return 1 << ((size - 1).bit_length() - 1)


def _inclusion(index: int, begin: int, end: int) -> list[Range]:
    """What the hashes of an inclusion proof are roots of."""
    if end - begin == 1:
        return []
    middle = begin + _split(end - begin)
    if index < middle:
        return [*_inclusion(index, begin, middle), (middle, end)]
    return [*_inclusion(index, middle, end), (begin, middle)]


def _consistency(old_end: int, begin: int, end: int, *, whole: bool) -> list[Range]:
    """What the hashes of a consistency proof are roots of; `whole`: the old tree is the verifier's own root."""
    if old_end == end:
        return [] if whole else [(begin, end)]
    middle = begin + _split(end - begin)
    if old_end <= middle:
        return [*_consistency(old_end, begin, middle, whole=whole), (middle, end)]
    return [*_consistency(old_end, middle, end, whole=False), (begin, middle)]
