"""How a log grows from one of its checkpoints on: a proof that it only grew, at any moment, without reading anything.

RFC 9162 section 2.1.4 proves that a tree of `old` leaves is the beginning of a larger one by the roots beside the way
from the last leaf of the old one up to the root of the new. Those on the left are of the old tree. Those on the right
hold the leaves that came since, in order, so each is a tree that only grows: a leaf costs what it costs in the log's
own tree, and what is kept grows with the logarithm of the log.
"""

from __future__ import annotations

from .merkle import CompactTree
from .proofs import Hashes, range_edge


class Growth:
    """What came after the first `old` leaves of a log. `size`: how many leaves it has by now."""

    __slots__ = ("_left", "_right", "_seed", "_starts", "old", "size")

    def __init__(self, old: int, edge: bytes) -> None:
        """`edge` is that of the tree of `old` leaves (`CompactTree.edge`). Raises ValueError if there are none."""
        if old < 1 or len(edge) != 32 * old.bit_count():
            raise ValueError(f"no right edge of {old} leaves has {len(edge)} octets")
        self.old = self.size = old
        *self._left, self._seed = (edge[i : i + 32] for i in range(0, len(edge), 32))
        self._right: list[CompactTree] = []
        self._starts = old
        """Where the next tree on the right begins."""

    @classmethod
    def of(cls, source: Hashes, old: int, size: int) -> Growth:
        """From stored hashes, of a log that has `size` leaves by now. Raises LedgerError if one is missing."""
        growth = cls(old, range_edge(source, (0, old)))
        while growth._starts < size:
            begin, width = growth._starts, growth._starts & -growth._starts
            end = min(begin + width, size)
            growth._right.append(CompactTree(end - begin, range_edge(source, (begin, end))))
            growth._starts = begin + width
        growth.size = max(old, size)
        return growth

    def append(self, leaf: bytes) -> None:
        """One more leaf hash."""
        if self.size == self._starts:
            self._right.append(CompactTree())
            self._starts += self.size & -self.size
        self._right[-1].append(leaf)
        self.size += 1

    def proof(self) -> list[bytes]:
        """The consistency proof from `old` to `size`, as `verify_consistency` takes it."""
        if self.size == self.old:
            return []
        proof = [self._seed] if self._left else []
        left, right = list(self._left), list(self._right)
        index = self.old // (self.old & -self.old) - 1
        while left or right:
            if index & 1:
                proof.append(left.pop())
            elif right:
                proof.append(right.pop(0).root())
            index >>= 1
        return proof
