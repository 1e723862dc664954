"""Whether what a monitor says of its log fits together: the checkpoints that it serves, and the trees its BETs name.

The newest checkpoint must be of a log that begins with every one seen before, and with each tree that a BET rests on.
What was not to be had says nothing. What is signed and does not fit is a contradiction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...formats import base64url
from ...formats.errors import FormatError
from .contradictions import Found
from .sampling import Sample
from .tiles import Missing, Tiles, Tree


@dataclass(frozen=True, slots=True)
class LogState:
    """What is known of a log: the largest tree seen, and trees (size, root as BETs name it) that are not proven yet.

    `sample`: one of the windows of its BETs, at random.
    """

    newest: Tree | None = None
    unproven: tuple[tuple[int, str], ...] = ()
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found out: `newest` is the tree to go on with, `proven` and `refuted` are sizes of trees of BETs.

    `against` are other histories, `judged` what is wrong with a window. `witnessed`: so many entries are under a
    checkpoint that enough witnesses signed; None: none was shown.
    """

    newest: Tree
    proven: tuple[int, ...] = ()
    refuted: tuple[int, ...] = ()
    against: tuple[Found, ...] = ()
    witnessed: int | None = None
    judged: tuple[Found, ...] = ()


Open = Callable[[Tree], Tiles]
"""The tiles of a tree. Raises Unchecked, Missing."""


def check(monitor: str, shown: Tree, witnessed: bool, state: LogState, tiles_of: Open) -> Checked:
    """Judge the checkpoint `shown`, whose signature is good, and the trees of BETs that it is large enough for.

    `witnessed`: enough witnesses signed it. Raises Unchecked if the log could not be read.
    """
    against: list[Found] = []
    newest, tiles = _newest(monitor, shown, state, tiles_of, against)
    proven: list[int] = []
    refuted: list[int] = []
    for size, root in state.unproven:
        if size > newest.size:
            continue
        tiles = tiles or tiles_of(newest)
        if tiles.root(size) == _decoded(root):
            proven.append(size)
        else:
            refuted.append(size)
            text = f"evidence of {monitor} rests on a tree of {size} entries that its log does not begin with"
            against.append(("two_histories", text))
    return Checked(newest, tuple(proven), tuple(refuted), tuple(against), shown.size if witnessed else None)


def _newest(
    monitor: str, shown: Tree, state: LogState, tiles_of: Open, against: list[Found]
) -> tuple[Tree, Tiles | None]:
    """The tree to go on with, and its tiles where they were needed."""
    kept = state.newest
    if kept is None or kept == shown:
        return shown, None
    if shown.size > kept.size:
        tiles = tiles_of(shown)
        if tiles.root(kept.size) != kept.root:
            against.append(("two_histories", _not_continued(monitor, kept.size, shown.size)))
        return shown, tiles
    if shown.size == kept.size:
        text = f"the log of {monitor} has signed two checkpoints of {kept.size} entries"
        against.append(("two_histories", text))
        return shown, None
    try:
        tiles = tiles_of(kept)
    except Missing:
        text = f"the log of {monitor} had {kept.size} entries and has them no more"
        against.append(("log_shrank", text))
        return shown, None
    if tiles.root(shown.size) != shown.root:
        against.append(("two_histories", _not_continued(monitor, shown.size, kept.size)))
    return kept, tiles


def _not_continued(monitor: str, small: int, large: int) -> str:
    return f"the log of {monitor} with {large} entries does not continue what it signed with {small}"


def _decoded(root: str) -> bytes:
    """Nothing is equal to a root that is none."""
    try:
        return base64url.decode(root)
    except FormatError:
        return b""
