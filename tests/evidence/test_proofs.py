"""Proofs from stored hashes are those of the definition, for every size and place, and cost little in a long log."""

from __future__ import annotations

import hashlib

import pytest

from lictor.evidence import merkle
from lictor.evidence.proofs import consistency_proof, inclusion_proof, tree_root
from lictor.formats.errors import LedgerError

LEAVES = [hashlib.sha256(str(i).encode()).digest() for i in range(1100)]


class Stored:
    """Leaf hashes and the subtrees that a tree says it completes, as a ledger stores them."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.levels: dict[int, list[bytes]] = {0: leaves}
        self.read = 0
        tree = merkle.CompactTree()
        for leaf in leaves:
            for level, index, root in tree.completes(leaf):
                row = self.levels.setdefault(level, [])
                assert index == len(row)
                row.append(root)
            tree.append(leaf)

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        self.read += count
        found = self.levels.get(level, [])[first : first + count]
        if len(found) != count:
            raise LedgerError("not there")
        return found


@pytest.fixture(scope="module")
def stored() -> Stored:
    return Stored(LEAVES)


SIZES = [*range(1, 20), 255, 256, 257, 511, 512, 513, 768, 1023, 1024, 1025, 1100]


@pytest.mark.parametrize("size", SIZES)
def test_every_inclusion_proof_is_that_of_the_definition(stored: Stored, size: int) -> None:
    root = tree_root(stored, size)
    assert root == merkle.root(LEAVES[:size])
    for index in {0, 1, size // 2, 255, 256, size - 2, size - 1} & set(range(size)):
        proof = inclusion_proof(stored, index, size)
        assert proof == merkle.inclusion_proof(LEAVES[:size], index)
        assert merkle.verify_inclusion(LEAVES[index], index, size, proof, root)


@pytest.mark.parametrize("size", SIZES)
def test_every_consistency_proof_is_that_of_the_definition(stored: Stored, size: int) -> None:
    for old in {1, 2, 3, 255, 256, 257, size // 2, size - 1, size} & set(range(1, size + 1)):
        assert consistency_proof(stored, old, size) == merkle.consistency_proof(LEAVES[:size], old)
    assert consistency_proof(stored, 0, size) == []


def test_the_empty_tree(stored: Stored) -> None:
    assert tree_root(stored, 0) == hashlib.sha256(b"").digest()
    assert consistency_proof(stored, 0, 0) == []


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_no_proof_of_a_leaf_that_is_not_there(stored: Stored, index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(stored, index, size)


def test_no_proof_from_a_later_tree(stored: Stored) -> None:
    with pytest.raises(ValueError, match="no earlier tree"):
        consistency_proof(stored, 4, 3)


def test_a_missing_hash_is_an_error_and_not_a_wrong_proof(stored: Stored) -> None:
    with pytest.raises(LedgerError):
        inclusion_proof(stored, 0, len(LEAVES) + 1)


def test_a_long_log_costs_its_logarithm() -> None:
    size = 3 * 65536 + 700
    tall = Stored([i.to_bytes(32) for i in range(size)])
    assert list(tall.levels) == [0, 1, 2]
    tall.read = 0
    proof = inclusion_proof(tall, 70_000, size)
    assert tall.read <= 6 * 256
    assert merkle.verify_inclusion(tall.levels[0][70_000], 70_000, size, proof, tree_root(tall, size))
