"""Logs of entries, honest or not, and their disclosures, as `lictor log disclose` writes them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from end_to_end.world import binding
from pushed import Pusher
from serving import AGENT

from lictor.bindings.registry import load_binding
from lictor.certs.domain import TrustDomain
from lictor.evidence.disclosure import disclose
from lictor.evidence.ledger import Ledger
from lictor.evidence.salted import SD, disclosure, sd_digest
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore

RULES = binding(tool_call=["urn:test:good"])
DIGEST = load_binding(json.dumps(RULES).encode(), "rules").digest
KEPT = disclosure("/arguments/dose", 9)


def entry(target: str, result: str = "pass", **changes: Any) -> dict[str, Any]:
    """What a monitor records, honest or not."""
    said = {"policy_id": RULES["policy_id"], "version": "1.0.0", "binding": DIGEST}
    return {
        "agent_id": AGENT,
        "action_type": "tool_call",
        "action_target": target,
        "action_parameters": {"method": "POST", SD: [sd_digest(KEPT)]},
        "decision": "allow" if result == "pass" else "deny",
        "reason": "allowed",
        "behaviors": [{**said, "behavior_id": "bhv-tool_call", "result": result}],
        "wid": "w",
        "node": "n",
        "lineage": "root",
    } | changes


async def log_of(folder: Path, domain: TrustDomain, monitor: str, *entries: dict[str, Any]) -> list[str]:
    """A log of these entries, and a disclosure of each."""
    pusher = Pusher(domain.monitor(monitor), AGENT)
    path = folder / f"{monitor}{len(list(folder.iterdir()))}.db"
    ledger = Ledger.open(SqliteStore(path), f"v.test/monitor/{monitor}", pusher.signer)
    ledger.put_document("key", pusher.signer.kid, pusher.jwk)
    for one in entries:
        ledger.add(one)
    await ledger.commit()
    await ledger.close()
    with closing(SqliteReader(path)) as reader:
        return [disclose(reader, seq).text() for seq in range(len(entries))]
