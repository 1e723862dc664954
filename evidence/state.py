"""The seam to what is judged in the order of the log: behaviors with a memory, which the data plane cannot judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .entry import ActionDraft, InboundDraft, Resolution
from .lineage import Within


@dataclass(frozen=True, slots=True)
class Judged:
    """The draft with what was said here. Of a denial: what the agent may do instead, and the behavior (JSON).

    Of what is held: the `resolution`, if that is known already.
    """

    draft: ActionDraft
    hint: str = ""
    behavior: Mapping[str, str] | None = None
    resolution: Resolution | None = None


class StateJudge(Protocol):
    """Judges without awaiting anything, so that what it lets out is taken before anything else is judged."""

    def idle(self, agent_id: str) -> bool:
        """Whether what behaviors let out of this agent, no delegation, would stay as it is, and not be remembered."""

    def judge(self, draft: ActionDraft, wid: str, now: float, depth: int | None = None, within: Within = ()) -> Judged:
        """Judge an action of the workflow `wid`; a denied draft comes back as it was.

        `depth` and `within` are those of the agent's work (`lineage.Place`). That of a delegation which goes out says
        in its parameters what it is `within`.
        """

    def admit(self, draft: InboundDraft, now: float) -> InboundDraft | Judged:
        """Judge a delegation that came in, as an action of the peer. One that is denied is recorded as such."""

    def take(self, entry: Mapping[str, Any], seq: int, timestamp: float) -> None:
        """An entry was added to the log."""
