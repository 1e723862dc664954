"""What does not wait for the disk says so: in the log, and in every BET."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lictor.evidence import durability
from lictor.evidence.entry import ActionDraft
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats import strict_json
from lictor.formats.keys import KeySigner
from lictor.verifier.bets import parse_bet

MONITOR = "spiffe://example.test/monitor/one"


async def run(path: Path, signer: KeySigner, *choice: Any) -> tuple[list[Any], list[Any]]:
    """Start, act, stop: what the log says of durability, and `ext.durability` of the new BETs."""
    store = SqliteStore(path, *choice)
    ledger = Ledger.open(store, "example.test/monitor/one", signer)
    known = {row.jti for row in store.bets()}
    durability.announce(ledger, store, MONITOR)
    recorder = Recorder(ledger, signer, MONITOR, lambda _: (), stored=store)
    await recorder.record_action(
        ActionDraft("spiffe://example.test/agent/a", "http_request", "https://x.test/", {}, "deny", "default_deny", ())
    )
    await recorder.close()
    entries = [strict_json.loads_object(data) for _, data in store.entries()]
    said = [e["action_parameters"] for e in entries if e["action_type"] == "log_durability"]
    bets = [parse_bet(row.token).ext.get("durability") for row in store.bets() if row.jti not in known]
    await ledger.close()
    assert bets
    return said, bets


async def test_the_choice_is_in_the_log_and_in_every_bet(tmp_path: Path, signer: KeySigner) -> None:
    path = tmp_path / "ledger.db"
    begins, ends = {"durability": "os", "before": "commit"}, {"durability": "commit", "before": "os"}
    assert await run(path, signer) == ([], [None])
    assert await run(path, signer, "os") == ([begins], ["os"])
    assert await run(path, signer, "os") == ([begins], ["os"]), "said once"
    assert await run(path, signer, "commit") == ([begins, ends], [None])


@pytest.mark.parametrize(("choice", "synchronous"), [("commit", 2), ("os", 1)])
def test_what_the_store_waits_for(tmp_path: Path, choice: Any, synchronous: int) -> None:
    store = SqliteStore(tmp_path / "ledger.db", choice)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    store.close()
