"""What third-party code a monitor runs is in its log: an entry of the monitor whenever that has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..formats.canonical import digest
from .entry import EXTENSIONS, own_fields
from .ledger import Ledger
from .store import Reader

_META = "extensions"


def announce(ledger: Ledger, stored: Reader, monitor_id: str, loaded: Sequence[Mapping[str, str]]) -> None:
    """Call at start, before anything else is judged. A log that has known none says nothing. Raises LedgerError."""
    before, now = stored.meta(_META) or digest([]), digest(list(loaded))
    if now != before:
        ledger.add(own_fields(monitor_id, EXTENSIONS, {"extensions": list(loaded)}))
        ledger.put_meta(_META, now)
