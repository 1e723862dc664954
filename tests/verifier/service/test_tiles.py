"""Tiles that somebody serves: the roots of all smaller trees, or nothing."""

from __future__ import annotations

import pytest
from tiled import Tiled

from lictor.evidence import merkle
from lictor.evidence.tiles import Tile
from lictor.verifier.service import tiles
from lictor.verifier.service.tiles import Missing, Tiles, Unchecked

SIZES = (1, 2, 255, 256, 257, 511, 512, 600, 66_000)


@pytest.fixture(scope="module")
def log() -> Tiled:
    return Tiled(66_000)


@pytest.mark.parametrize("size", SIZES)
def test_the_roots_of_all_smaller_trees(log: Tiled, size: int) -> None:
    found = log.tiles(log.tree(size))
    for smaller in {n for n in (1, 3, 200, 256, 300, 512, 513, 65_537, size - 1, size) if 0 < n <= size}:
        assert found.root(smaller) == merkle.root(log.leaves[:smaller]), smaller
    assert found.root(0) == merkle.EMPTY_ROOT


@pytest.mark.parametrize(
    ("which", "when"),
    [
        (Tile(0, 0, 256), "at the left"),
        (Tile(0, 100, 256), "in the middle"),
        (Tile(1, 0, 256), "a level up"),
        (Tile(0, 257, 208), "at the right edge"),
        (Tile(1, 1, 1), "at the right edge, a level up"),
        (Tile(2, 0, 1), "at the top"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tile_of_another_tree_is_not_taken(log: Tiled, which: Tile, when: str) -> None:
    """One hash of it is altered: whatever is computed from it says nothing, and accuses nobody."""

    def fetch(tile: Tile) -> bytes:
        data = log.tile(tile)
        return bytes([data[0] ^ 1]) + data[1:] if tile == which else data

    with pytest.raises(Unchecked):
        Tiles(log.tree(), fetch).root(which.index * 256 + 1)


@pytest.mark.parametrize("octets", [0, 31, 8193])
def test_a_tile_of_another_size_is_none(log: Tiled, octets: int) -> None:
    with pytest.raises(Unchecked, match="octets"):
        Tiles(log.tree(300), lambda tile: b"x" * octets)


def test_what_the_log_has_not_is_missed(log: Tiled) -> None:
    with pytest.raises(Missing):
        Tiled(200).tiles(log.tree(300))


def test_the_right_edge_is_that_which_was_proven(log: Tiled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was read meanwhile: nothing but the signed root proves what stands there, and that is computed once."""
    monkeypatch.setattr(tiles, "MAX_TILES", 4)
    served = [log]
    found = Tiles(log.tree(), lambda tile: served[0].tile(tile))
    served[0] = Tiled(66_000, fork=65_900)
    for size in range(256, 20 * 256, 256):
        found.root(size - 1)
    assert found.root(65_950) == merkle.root(log.leaves[:65_950])


def test_what_is_kept_is_bounded_and_read_once(log: Tiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "MAX_TILES", 8)
    found = log.tiles(log.tree())
    log.asked.clear()
    for size in range(256, 30 * 256, 128):
        assert found.root(size) == merkle.root(log.leaves[:size])
    assert len(found._kept) <= 8
    assert len(log.asked) <= 60
