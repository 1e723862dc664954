"""Merkle trees as in RFC 9162 section 2.1 (and RFC 6962) over SHA-256: roots, inclusion and consistency proofs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

TILE_HEIGHT = 8
"""Levels of the tree between two levels of tiles."""
EMPTY_ROOT = hashlib.sha256(b"").digest()
_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """The hash of one entry."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


class CompactTree:
    """A tree that only grows, kept as its right edge: the roots of its perfect subtrees, largest first."""

    __slots__ = ("_nodes", "size")

    def __init__(self, size: int = 0, edge: bytes = b"") -> None:
        """Raises ValueError if `edge` (from `edge()`) cannot belong to `size`."""
        if len(edge) != 32 * size.bit_count():
            raise ValueError(f"the right edge of {size} leaves has {32 * size.bit_count()} octets, found {len(edge)}")
        self.size = size
        self._nodes = [edge[i : i + 32] for i in range(0, len(edge), 32)]

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        carry, nodes = self.size, self._nodes
        while carry & 1:
            leaf = _sha256(b"\x01" + nodes.pop() + leaf).digest()
            carry >>= 1
        nodes.append(leaf)
        self.size += 1

    def completes(self, leaf: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(level, index, root) of each full tile that appending `leaf` will complete, lowest first.

        Level 1 are the roots of 256 leaves each, level 2 those of 256 of level 1, and so on (c2sp.org/tlog-tiles).
        """
        height, carry = 0, self.size
        while carry & 1:
            height, carry = height + 1, carry >> 1
            leaf = node_hash(self._nodes[-height], leaf)
            if height % TILE_HEIGHT == 0:
                yield height // TILE_HEIGHT, carry, leaf

    def root(self) -> bytes:
        """The Merkle Tree Hash of the leaves so far."""
        if not self._nodes:
            return EMPTY_ROOT
        hashed = self._nodes[-1]
        for left in self._nodes[-2::-1]:
            hashed = node_hash(left, hashed)
        return hashed

    def edge(self) -> bytes:
        """The right edge: enough to go on from here (at most 32 octets for each bit of the size)."""
        return b"".join(self._nodes)


def root(leaves: Iterable[bytes]) -> bytes:
    """The Merkle Tree Hash of leaf hashes."""
    tree = CompactTree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 9162 section 2.1.3.1: the path that proves leaf hash `index` in the tree of `leaves`."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"no leaf {index} in a tree of {len(leaves)}")
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_proof(leaves[:k], index), root(leaves[k:])]
    return [*inclusion_proof(leaves[k:], index - k), root(leaves[:k])]


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """RFC 9162 section 2.1.4.1: proof that the tree of the first `old_size` leaves is a prefix of that of `leaves`."""
    if not 0 < old_size <= len(leaves):
        raise ValueError(f"no earlier tree of size {old_size} in a tree of {len(leaves)}")
    return _subproof(leaves, old_size, whole=True)


def _subproof(leaves: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root(leaves)]
    k = _split(len(leaves))
    if old_size <= k:
        return [*_subproof(leaves[:k], old_size, whole=whole), root(leaves[k:])]
    return [*_subproof(leaves[k:], old_size - k, whole=False), root(leaves[:k])]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2. False for anything that does not prove it."""
    if not 0 <= index < size or len(leaf) != 32:
        return False
    fn, sn, hashed = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            hashed = node_hash(sibling, hashed)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            hashed = node_hash(hashed, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and hashed == tree_root


def verify_consistency(old_size: int, size: int, proof: Sequence[bytes], old_root: bytes, tree_root: bytes) -> bool:
    """RFC 9162 section 2.1.4.2. An old size of 0 proves nothing and is False (tlog-witness handles it elsewhere)."""
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == tree_root
    path = list(proof)
    if old_size.bit_count() == 1:
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old_hash = new_hash = path[0]
    for sibling in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            old_hash, new_hash = node_hash(sibling, old_hash), node_hash(sibling, new_hash)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new_hash = node_hash(new_hash, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old_hash == old_root and new_hash == tree_root
