"""Monitors that watch the same traffic of an agent must tell of the same activity, as their BETs say it.

Which ones do, only the operator knows (`[[watched]]`). A BET counts entries and does not name them, so what can be held
against each other is whether there was anything: all of a window that is a pass was let out, and so had to come by the
others. `lictor log compare` looks at the entries themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations

from ...bindings.subjects import applies_to
from ...evidence.claims import SKEW
from .appraisal import Reason

_UNSEEN = """
SELECT jti FROM bets AS one WHERE agent = ?1 AND issuer = ?2 AND end > ?3 AND end <= ?4 AND entries > 0 AND chained
AND rank = 0 AND NOT EXISTS (
    SELECT 1 FROM bets AS other WHERE other.agent = ?1 AND other.issuer = ?5 AND other.entries > 0
    AND other.end >= one.start - ?6 AND other.start <= one.end + ?6)
ORDER BY end DESC LIMIT 1"""


@dataclass(frozen=True, slots=True)
class Watched:
    """All of `monitors` watch all that an agent does; `agent` is a SPIFFE ID or a pattern."""

    agent: str
    monitors: tuple[str, ...]


def disagreements(
    db: sqlite3.Connection, agent: str, watched: Iterable[Watched], after: float, until: float
) -> Iterator[Reason]:
    """Against an agent of which one monitor tells and another not, over windows that ended in (`after`, `until`]."""
    for group in watched:
        if not applies_to((group.agent,), agent):
            continue
        for one, other in permutations(group.monitors, 2):
            found = db.execute(_UNSEEN, (agent, one, after, until, other, SKEW)).fetchone()
            if found is not None:
                text = f"{other} tells of nothing where {one} let something out, in the window of {found[0]}"
                yield Reason.of("monitors_disagree", "contraindicated", text)
