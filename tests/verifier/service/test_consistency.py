"""What fits together of a log, what does not, and what says nothing."""

from __future__ import annotations

import pytest
from tiled import Tiled

from lictor.evidence.tiles import Tile
from lictor.formats import base64url
from lictor.verifier.service.consistency import Checked, LogState, check
from lictor.verifier.service.tiles import Tiles, Tree, Unchecked

MONITOR = "spiffe://x/monitor/m"
LOG, FORK = Tiled(700), Tiled(800, fork=300)


def named(log: Tiled, *sizes: int) -> tuple[tuple[int, str], ...]:
    """Trees as BETs name them."""
    return tuple((size, base64url.encode(log.tree(size).root)) for size in sizes)


def look(log: Tiled, shown: int, newest: Tree | None = None, unproven: tuple[tuple[int, str], ...] = ()) -> Checked:
    return check(MONITOR, log.tree(shown), False, LogState(newest, unproven), log.tiles)


def test_what_bets_rest_on_is_proven_as_far_as_the_checkpoint_reaches() -> None:
    found = look(LOG, 600, LOG.tree(300), named(LOG, 1, 300, 599, 600, 601))
    assert found == Checked(LOG.tree(600), proven=(1, 300, 599, 600))
    assert look(LOG, 700, found.newest, named(LOG, 601)).proven == (601,)


def test_the_first_checkpoint_may_be_any() -> None:
    assert look(LOG, 256) == Checked(LOG.tree(256))
    assert look(Tiled(0), 0) == Checked(Tree(0, Tiled(0).tree().root))
    assert look(LOG, 10, Tree(0, Tiled(0).tree().root), named(LOG, 5)).proven == (5,)


def test_nothing_is_read_where_nothing_is_new() -> None:
    log = Tiled(300)
    assert look(log, 300, log.tree(), named(LOG, 301)) == Checked(log.tree())
    assert log.asked == []


@pytest.mark.parametrize(
    ("log", "shown", "newest", "unproven", "what"),
    [
        (FORK, 800, LOG.tree(700), (), ["two_histories"]),
        (FORK, 700, LOG.tree(700), (), ["two_histories"]),
        (FORK, 800, LOG.tree(300), named(LOG, 300, 301, 700), ["two_histories"] * 2),
        (FORK, 800, LOG.tree(300), ((5, "no root"),), ["two_histories"]),
        (Tiled(600, fork=300), 600, LOG.tree(700), (), ["log_shrank"]),
        (Tiled(600), 600, LOG.tree(700), (), ["log_shrank"]),
        (FORK, 800, LOG.tree(300), (), []),
        (LOG, 600, LOG.tree(700), (), []),
    ],
    ids=["a fork", "a fork of one size", "a BET of a fork", "a BET without a root", "shorter", "cut", "fits", "lags"],
)
def test_what_does_not_fit(
    log: Tiled, shown: int, newest: Tree, unproven: tuple[tuple[int, str], ...], what: list[str]
) -> None:
    found = look(log, shown, newest, unproven)
    assert [one for one, _ in found.against] == what
    assert all(MONITOR in text for _, text in found.against)
    assert set(found.proven).isdisjoint(found.refuted)


def test_a_signed_beginning_that_is_none() -> None:
    """It serves the tiles of what it signed before, and signs something shorter that is not their beginning."""
    found = check(MONITOR, FORK.tree(600), False, LogState(LOG.tree(700)), LOG.tiles)
    assert ([what for what, _ in found.against], found.newest) == (["two_histories"], LOG.tree(700))


def test_tiles_that_are_not_what_was_signed_accuse_nobody() -> None:
    with pytest.raises(Unchecked):
        check(MONITOR, LOG.tree(700), False, LogState(LOG.tree(300)), FORK.tiles)

    def gone(tile: Tile) -> bytes:
        raise Unchecked("it does not answer")

    with pytest.raises(Unchecked):
        check(MONITOR, LOG.tree(700), False, LogState(None, named(LOG, 5)), lambda tree: Tiles(tree, gone))


def test_what_witnesses_signed_is_said() -> None:
    assert check(MONITOR, LOG.tree(600), True, LogState(LOG.tree(600)), LOG.tiles).witnessed == 600
