"""Tiles: which exist, what they are called, what is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lictor.evidence.merkle import CompactTree, leaf_hash
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import Batch, Head, Stamped, SubtreeRow
from lictor.evidence.tiles import Tile, read_tile
from lictor.formats.errors import FormatError, LedgerError


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("0/000", Tile(0, 0, 256)),
        ("0/001.p/1", Tile(0, 1, 1)),
        ("7/x001/x234/067", Tile(7, 1234067, 256)),
        ("1/x001/000.p/255", Tile(1, 1000, 255)),
        ("63/999", Tile(63, 999, 256)),
        ("entries/x012/345.p/17", Tile(None, 12345, 17)),
    ],
)
def test_a_tile_has_one_path(path: str, tile: Tile) -> None:
    assert Tile.parse(path) == tile
    assert str(tile) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/",
        "0/0",
        "0/00",
        "0/0000",
        "00/000",
        "01/000",
        "64/000",
        "-1/000",
        "0/x000/001",
        "0/001/002",
        "0/x001",
        "0/000.p/0",
        "0/000.p/01",
        "0/000.p/256",
        "0/000.p/",
        "0/000.p/1/",
        "0/000/",
        "0/000\n",
        "0/../000",
        "0/٠٠٠",
        "entry/000",
        "0/x001/x001/x001/x001/x001/x001/001",
    ],
)
def test_other_paths_name_nothing(path: str) -> None:
    with pytest.raises(FormatError):
        Tile.parse(path)


def test_the_example_of_the_specification() -> None:
    size = 70_000
    assert all(Tile(0, n, 256).exists(size) for n in range(273))
    assert Tile(0, 273, 112).exists(size)
    assert not Tile(0, 273, 113).exists(size)
    assert not Tile(0, 273, 256).exists(size)
    assert Tile(1, 0, 256).exists(size)
    assert Tile(1, 1, 17).exists(size)
    assert not Tile(1, 1, 18).exists(size)
    assert Tile(2, 0, 1).exists(size)
    assert not Tile(2, 0, 2).exists(size)
    assert not Tile(3, 0, 1).exists(size)
    assert Tile(1, 0, 1).exists(256)
    assert not Tile(0, 1, 1).exists(256)


def _store(path: Path, entries: list[bytes]) -> SqliteStore:
    store, batch, tree = SqliteStore(path), Batch(), CompactTree()
    for seq, data in enumerate(entries):
        leaf = leaf_hash(data)
        batch.entries.append(Stamped(seq, float(seq), data, leaf))
        batch.subtrees += [SubtreeRow(*subtree) for subtree in tree.completes(leaf)]
        tree.append(leaf)
    batch.head = Head(tree.size, "note", tree.edge(), 0)
    store.append(batch)
    return store


def test_what_is_in_a_tile(tmp_path: Path) -> None:
    entries = [b"entry %d" % i for i in range(600)]
    store = _store(tmp_path / "ledger.db", entries)
    hashes = [hashlib.sha256(b"\x00" + data).digest() for data in entries]
    assert read_tile(store, Tile(0, 0, 256)) == b"".join(hashes[:256])
    assert read_tile(store, Tile(0, 2, 88)) == b"".join(hashes[512:])
    assert read_tile(store, Tile(0, 2, 5)) == b"".join(hashes[512:517])
    assert len(read_tile(store, Tile(1, 0, 2)) or b"") == 64
    assert read_tile(store, Tile(None, 2, 2)) == b"\x00\x09entry 512\x00\x09entry 513"
    for absent in (Tile(0, 2, 256), Tile(0, 2, 89), Tile(1, 0, 3), Tile(1, 0, 256), Tile(None, 3, 1)):
        assert read_tile(store, absent) is None
    store.close()


def test_a_bundle_with_an_entry_too_large_is_an_error_and_its_hashes_are_not(tmp_path: Path) -> None:
    store = _store(tmp_path / "ledger.db", [b"a", b"b" * 65_535, b"c" * 65_536])
    assert len(read_tile(store, Tile(None, 0, 2)) or b"") == 2 + 1 + 2 + 65_535
    assert len(read_tile(store, Tile(0, 0, 3)) or b"") == 96
    with pytest.raises(FormatError, match="entry 2 has 65536 octets"):
        read_tile(store, Tile(None, 0, 3))
    store.close()


def test_a_tile_with_a_lost_row_is_an_error(tmp_path: Path) -> None:
    store = _store(tmp_path / "ledger.db", [b"%d" % i for i in range(256)])
    store._writer.execute("DELETE FROM subtrees")
    with pytest.raises(LedgerError, match="has 0 hashes at tile level 1 from 0 on, expected 1"):
        read_tile(store, Tile(1, 0, 1))
    store.close()
