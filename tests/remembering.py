"""A ledger with its recorder and memories in one process, for tests of what is remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.evidence.entry import ActionDraft, InboundDraft
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import Recorder
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.keys import KeySigner
from lictor.proxy.policies import policies_for
from lictor.proxy.state import State

A, PEER = "spiffe://e.example/agent/a", "spiffe://e.example/monitor/other"
TOOL = "urn:example:tool:x"
TYPES = ["tool_call", "delegation", "data_source_access", "http_request"]


LENIENT: dict[str, dict[str, Any]] = {
    "allowlist": {"type": "allowlist", "values": [TOOL]},
    "budget": {"type": "budget", "per": "day", "calls": 1000},
    "delegation": {"type": "delegation", "outgoing": {"max_depth": 9}},
    "denylist": {"type": "denylist", "values": []},
    "pattern": {"type": "pattern", "target": ".*"},
    "rate": {"type": "rate", "limit": 1000, "period_s": 60},
    "schema": {"type": "schema", "schema": True},
    "sequence": {"type": "sequence", "scope": "agent", "never_after": ["urn:example:ds:private"]},
    "time": {"type": "time", "timezone": "UTC", "hours": ["00:00-24:00"]},
}
"""Criteria of every type that there is, which let everything here pass."""


def bound(
    *criteria: dict[str, Any], mode: str = "enforce", types: list[str] = TYPES, **more: Any
) -> tuple[Binding, ...]:
    document = {
        "policy_id": "urn:p",
        "version": "1.0.0",
        "evaluation_mode": "continuous",
        "mode": mode,
        "expected_behaviors": [
            {"behavior_id": f"b{i}", "observable_actions": types, "compliance_criteria": one, **more}
            for i, one in enumerate(criteria)
        ],
    }
    return (load_binding(json.dumps(document).encode(), "test"),)


def rate(limit: int, period: float = 1000) -> dict[str, Any]:
    return {"type": "rate", "limit": limit, "period_s": period}


class Monitor:
    """Ledger, recorder and memories, which can be ended without ceremony and begun again."""

    def __init__(self, path: Path) -> None:
        self.path = path / "ledger.sqlite"
        self.signer = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
        self.bindings: tuple[Binding, ...] = ()

    def start(self, bindings: tuple[Binding, ...]) -> Monitor:
        self.store = SqliteStore(self.path)
        self.ledger = Ledger.open(self.store, "e.example/monitor/m", self.signer)
        self.state = State(bindings, self.store, self.ledger.size, self.ledger.now())
        self.recorder = Recorder(
            self.ledger,
            self.signer,
            "spiffe://e.example/monitor/m",
            policies_for(bindings),
            stored=self.store,
            state=self.state,
        )
        return self

    async def act(self, target: str = TOOL, type_: str = "tool_call", **changes: Any) -> tuple[str, str]:
        receipt = await self.recorder.record_action(draft(target, type_, **changes))
        return receipt.decision, receipt.reason

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self.store.entries()]


def draft(target: str = TOOL, type_: str = "tool_call", **changes: Any) -> ActionDraft:
    given: dict[str, Any] = {
        "agent_id": A,
        "action_type": type_,
        "action_target": target,
        "action_parameters": {"method": "POST"},
        "decision": "allow",
        "reason": "allowed",
        "behaviors": [],
    }
    return ActionDraft(**{**given, **changes})


def handed(n: int, depth: int | None = 1, result: str = "pass", **changes: Any) -> InboundDraft:
    """A delegation number `n` to A, of a caller at PEER whose evidence has held."""
    jti, wid = f"00000000-0000-4000-8000-{n:012}", f"10000000-0000-4000-8000-{n:012}"
    parent = {"jti": jti, "wid": wid, "agent_id": PEER, "issuer": PEER, "iat": 1, "parents": [], "token": f"t{n}"}
    shown = [{"jti": f"b{n}", "policy": "urn:x", "result": result, "until": 1, "digest": "d"}]
    given: dict[str, Any] = {"wid": wid, "parents": [parent], "evidence": shown, "depth": depth, **changes}
    return InboundDraft(A, PEER, TOOL, {"method": "POST"}, "allow", "allowed", **given)
