"""How a log grows from a checkpoint on, held against RFC 9162's own proofs."""

from __future__ import annotations

import hashlib

import pytest

from lictor.evidence.growth import Growth
from lictor.evidence.merkle import CompactTree, consistency_proof, root, verify_consistency

LEAVES = [hashlib.sha256(number.to_bytes(2)).digest() for number in range(600)]


class Stored:
    """Hashes as a store keeps them."""

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        width = 1 << 8 * level
        return [root(LEAVES[i * width : (i + 1) * width]) for i in range(first, first + count)]


def edge(size: int) -> bytes:
    tree = CompactTree()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree.edge()


@pytest.mark.parametrize("old", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 31, 32, 33, 48, 63, 64])
def test_the_proof_is_that_of_the_specification_at_every_size(old: int) -> None:
    growth = Growth(old, edge(old))
    assert growth.proof() == []
    for size in range(old + 1, 140):
        growth.append(LEAVES[size - 1])
        proof = growth.proof()
        assert (growth.size, proof) == (size, consistency_proof(LEAVES[:size], old))
        assert verify_consistency(old, size, proof, root(LEAVES[:old]), root(LEAVES[:size]))


@pytest.mark.parametrize("old", [1, 5, 255, 256, 257, 511, 600])
@pytest.mark.parametrize("size", [256, 300, 512, 599, 600])
def test_it_is_taken_up_from_stored_hashes_and_goes_on(old: int, size: int) -> None:
    if size < old:
        return
    growth = Growth.of(Stored(), old, size)
    for leaf in LEAVES[size:]:
        growth.append(leaf)
    assert growth.size == len(LEAVES)
    assert growth.proof() == (consistency_proof(LEAVES, old) if old < len(LEAVES) else [])


@pytest.mark.parametrize(("old", "edge"), [(0, b""), (3, bytes(32)), (4, bytes(64))])
def test_what_is_no_checkpoint_is_refused(old: int, edge: bytes) -> None:
    with pytest.raises(ValueError, match="right edge"):
        Growth(old, edge)
