"""Actions that are held: recorded, not let out, waiting for a decision. What becomes of each is an entry of its own.

What waits is kept in the store with the entries themselves, so that a process that ends before a decision leaves
nothing undecided: the next one denies it. Nothing waits for longer than `seconds`, and only so many at a time.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from .entry import ActionDraft, Resolution
from .state import Judged
from .store import Reader, Stamped, read_meta

if TYPE_CHECKING:  # workers know the reasons, and are not to load what writes the log
    from .ledger import Ledger

APPROVED = "approved"
APPROVED_ALWAYS = "approved_always"
DENIED = "hold_denied"
TIMED_OUT = "hold_timed_out"
TOO_MANY_HOLDS = "too_many_holds"
CALLER_GONE = "caller_gone"
WORKER_GONE = "worker_ended"
MONITOR_GONE = "monitor_ended"
MONITOR = "monitor"
"""Who decided, where no person did."""
_META = "held"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An action that waits, with seq and time (NumericDate) of its entry; `source` will hear of the decision.

    `of`: the delegations that it is work of (`lineage.Place`).
    """

    seq: int
    since: float
    draft: ActionDraft
    source: object
    of: tuple[str, ...] = ()


class Holds:
    """What waits now. At most `most` actions in all and `most_of_one` of one agent, each for at most `seconds`."""

    def __init__(self, ledger: Ledger, seconds: float = 300.0, most: int = 256, most_of_one: int = 16) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._most, self._most_of_one = most, most_of_one
        self._waiting: dict[int, tuple[Waiting, Future[Resolution], asyncio.TimerHandle]] = {}
        self._of: Counter[str] = Counter()
        self._undecided: set[int] = set()

    def has_room_for(self, agent_id: str) -> bool:
        """Whether one more action of the agent may wait."""
        return len(self._waiting) < self._most and self._of[agent_id] < self._most_of_one

    def add(self, stamped: Stamped, draft: ActionDraft, source: object, of: tuple[str, ...] = ()) -> Future[Resolution]:
        """The action of this entry waits from now on; the future is its resolution."""
        loop = asyncio.get_running_loop()
        future: Future[Resolution] = loop.create_future()
        text = f"Nobody decided within {self._seconds:g} s. Ask your operator, then try again."
        timer = loop.call_later(self._seconds, self.resolve, stamped.seq, Resolution(False, TIMED_OUT, MONITOR, text))
        self._waiting[stamped.seq] = Waiting(stamped.seq, stamped.timestamp, draft, source, of), future, timer
        self._of[draft.agent_id] += 1
        self._undecided.add(stamped.seq)
        self._keep()
        return future

    def waiting(self) -> list[Waiting]:
        """The oldest first."""
        return [waiting for waiting, _, _ in self._waiting.values()]

    def get(self, seq: int) -> Waiting | None:
        """The action, if it waits."""
        found = self._waiting.get(seq)
        return found[0] if found is not None else None

    def resolve(self, seq: int, resolution: Resolution) -> bool:
        """Decide; False if no such action waits (any more)."""
        found = self._waiting.pop(seq, None)
        if found is None:
            return False
        waiting, future, timer = found
        timer.cancel()
        self._of[waiting.draft.agent_id] -= 1
        if not self._of[waiting.draft.agent_id]:
            del self._of[waiting.draft.agent_id]
        if not future.done():
            future.set_result(resolution)
        return True

    def resolve_all(self, of: Callable[[Waiting], bool], resolution: Resolution) -> None:
        """Decide on all that wait and are meant."""
        for waiting in self.waiting():
            if of(waiting):
                self.resolve(waiting.seq, resolution)

    def decided(self, seq: int) -> None:
        """The entry that says what became of it is added to the log."""
        self._undecided.discard(seq)
        self._keep()

    def _keep(self) -> None:
        self._ledger.put_meta(_META, orjson.dumps(sorted(self._undecided)).decode())


def undecided(stored: Reader) -> list[tuple[int, dict[str, Any]]]:
    """The held actions in a log that wait for a decision, with their entries: nobody will make one any more."""
    seqs = read_meta(stored, _META, list[int]())
    return [(seq, orjson.loads(data)) for seq in seqs for _, data in stored.entries(seq, seq + 1)]


def settle(held: Judged, resolution: Resolution, now: Judged) -> tuple[Resolution, list[dict[str, str]]]:
    """What becomes of a held action that was resolved, given what is judged of it `now`; and what the behaviors say.

    It is denied if it would be by now, or if something speaks against it that nobody was asked about. Of the behaviors
    that had failed the result is `approved` or `prevented` (if none had, because somebody demanded the hold: of all);
    others that fail by now say `fail`.
    """
    failed = [said for said in held.draft.behaviors if said["result"] != "pass"]
    known = {_key(said) for said in failed}
    later = [dict(said) for said in now.draft.behaviors if said["result"] != "pass" and _key(said) not in known]
    verdict = now.draft.decision
    if resolution.allows and (verdict == "deny" or (verdict == "hold" and later)):
        resolution = Resolution(False, now.draft.reason, MONITOR, now.hint, behavior=now.behavior)
    result = "approved" if resolution.allows else "prevented"
    late = {_key(said) for said in later}
    before = (said for said in failed or held.draft.behaviors if _key(said) not in late)
    return resolution, [*({**said, "result": result} for said in before), *later]


def _key(said: Mapping[str, str]) -> tuple[str, str]:
    return said["policy_id"], said["behavior_id"]
