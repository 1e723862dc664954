"""Roots and proofs against the vectors of transparency-dev/merkle, and against each other."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.evidence import merkle

VECTORS = Path(__file__).parents[1] / "vectors" / "merkle-rfc6962"
ROOTS = json.loads((VECTORS / "roots.json").read_bytes())
INPUTS = [bytes.fromhex(text) for text in ROOTS["leaf_inputs_hex"]]
LEAVES = [merkle.leaf_hash(data) for data in INPUTS]


def cases(kind: str) -> list[object]:
    folder = VECTORS / "testdata" / kind
    return [pytest.param(path, id=str(path.relative_to(folder))) for path in sorted(folder.rglob("*.json"))]


def b64(text: str | None) -> bytes:
    return base64.b64decode(text or "")


@pytest.mark.parametrize("size", range(9))
def test_root_of_every_size(size: int) -> None:
    assert merkle.root(LEAVES[:size]).hex() == ROOTS["root_hashes_hex_by_size"][size]


@pytest.mark.parametrize("path", cases("inclusion"))
def test_inclusion_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    proof = [b64(text) for text in case["proof"] or []]
    good = merkle.verify_inclusion(b64(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, b64(case["root"]))
    assert good is not case["wantErr"]


@pytest.mark.parametrize("path", cases("consistency"))
def test_consistency_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    proof = [b64(text) for text in case["proof"] or []]
    good = merkle.verify_consistency(case["size1"], case["size2"], proof, b64(case["root1"]), b64(case["root2"]))
    assert good is not case["wantErr"]


def test_every_inclusion_proof_of_small_trees_holds_for_its_leaf_only() -> None:
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(20)]
    for size in range(1, 21):
        tree_root = merkle.root(leaves[:size])
        for index in range(size):
            proof = merkle.inclusion_proof(leaves[:size], index)
            assert merkle.verify_inclusion(leaves[index], index, size, proof, tree_root)
            others = [i for i in range(size) if i != index]
            assert not any(merkle.verify_inclusion(leaves[i], index, size, proof, tree_root) for i in others)
            assert not any(merkle.verify_inclusion(leaves[index], i, size, proof, tree_root) for i in others)


def test_every_consistency_proof_of_small_trees_holds_for_its_prefix_only() -> None:
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(20)]
    roots = [merkle.root(leaves[:size]) for size in range(21)]
    for size in range(1, 21):
        for old in range(1, size + 1):
            proof = merkle.consistency_proof(leaves[:size], old)
            assert merkle.verify_consistency(old, size, proof, roots[old], roots[size])
            assert not merkle.verify_consistency(old, size, proof, roots[0], roots[size])
            assert not merkle.verify_consistency(old, size, [*proof, roots[1]], roots[old], roots[size])


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70), st.data())
def test_compact_tree_goes_on_from_its_edge(leaves: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(leaves)))
    first = merkle.CompactTree()
    for leaf in leaves[:cut]:
        first.append(leaf)
    second = merkle.CompactTree(first.size, first.edge())
    for leaf in leaves[cut:]:
        second.append(leaf)
    assert second.root() == merkle.root(leaves)
    assert second.size == len(leaves)


@pytest.mark.parametrize(("size", "octets"), [(0, 32), (1, 0), (3, 32), (4, 64), (5, 63)])
def test_edge_that_cannot_belong_to_the_size_is_refused(size: int, octets: int) -> None:
    with pytest.raises(ValueError, match="right edge"):
        merkle.CompactTree(size, bytes(octets))


def test_proofs_of_what_is_not_in_the_tree_are_refused() -> None:
    with pytest.raises(ValueError, match="no leaf 8"):
        merkle.inclusion_proof(LEAVES, 8)
    with pytest.raises(ValueError, match="no earlier tree of size 9"):
        merkle.consistency_proof(LEAVES, 9)
