"""Whether a log itself says what its monitor was: a BET names the newest description in the tree that it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..evidence import description
from ..evidence.bet import Bet
from ..evidence.description import Description
from ..formats.errors import FormatError, VerificationError
from .report import Found


class DescribedCheck:
    """Entries are fed in log order, and BETs when the tree has the size that they rest on. Raises Found."""

    def __init__(self) -> None:
        self.newest: Description | None = None
        self.count = 0
        """How many descriptions the log holds."""
        self.erased = False
        """Set by the caller: entries before this one are not there to be fed."""

    def entry(self, entry: Mapping[str, Any]) -> None:
        """A description of the monitor, as it stands in its log."""
        seq, parameters = entry["seq"], entry["action_parameters"]
        try:
            found = description.parse(parameters["description"], "")
        except (VerificationError, FormatError) as e:
            raise Found.bad(f"a description of the monitor cannot be read: {e}", seq=seq) from None
        said = (found.issuer, found.log_size, found.digest)
        expected = (entry["agent_id"], seq, parameters["digest"])
        if said != expected:
            raise Found.bad("a description of the monitor is not of this place", str(expected), str(said), seq)
        self.newest = found
        self.count += 1

    def bets(self, resting: Iterable[Bet]) -> None:
        """BETs that rest on the entries so far."""
        if self.newest is None and self.erased:
            return
        expected = self.newest.digest if self.newest is not None else None
        for one in resting:
            named = one.ext.get("description")
            if named != expected:
                raise Found.bad(f"BET {one.jti} names another description than is in force", str(expected), str(named))
