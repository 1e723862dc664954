"""A log that does not wait for the disk says so: an entry of the monitor where that begins, and one where it ends.

The default, `commit`, is never announced in a log that has known nothing else. Every BET that is issued while `os` is
chosen says it too (`ext.durability`).
"""

from __future__ import annotations

from .entry import DURABILITY, own_fields
from .ledger import Ledger
from .store import Reader

_META = "durability"
_DEFAULT = "commit"


def announce(ledger: Ledger, stored: Reader, monitor_id: str) -> None:
    """Call at start, before anything else is entered. Raises LedgerError."""
    before, now = stored.meta(_META) or _DEFAULT, ledger.durability
    if now != before:
        ledger.add(own_fields(monitor_id, DURABILITY, {"durability": now, "before": before}))
        ledger.put_meta(_META, now)
