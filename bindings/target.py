"""One target of the catalog, and what kinds there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..formats.spiffe import SpiffeId
from .model import ActionType

Kind = Literal["tool", "data_source", "model", "agent"]

ACTION_TYPES: dict[str, ActionType] = {
    "tool": ActionType.TOOL_CALL,
    "data_source": ActionType.DATA_SOURCE_ACCESS,
    "model": ActionType.MODEL_INFERENCE,
    "agent": ActionType.DELEGATION,
}


@dataclass(frozen=True, slots=True)
class Target:
    """One `[[target]]` of the configuration. `match`: URL patterns; `agent_id`: SPIFFE ID of the agent behind it.

    `protocol` names a classifier (`protocols.PROTOCOLS`). `client_cert` and `client_key` are what the monitor shows the
    server, `ca` what it trusts instead of the system's. `passthrough`: its tunnels are not intercepted, so that each is
    one action and what is inside of it none.

    Of an agent behind a monitor: `evidence` is where that monitor takes and gives evidence apart from requests (the
    origin of https URLs), `monitor` its SPIFFE ID.

    Of MCP: `lists` "allowed" leaves in lists what the agent may use, "all" everything; `pins` is the file of the tools
    that were approved, `changed_tools` what becomes of others: "deny" or "flag".
    """

    urn: str
    kind: Kind
    match: tuple[str, ...]
    protocol: str = "http"
    agent_id: str | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    ca: Path | None = None
    passthrough: bool = False
    lists: Literal["allowed", "all"] = "allowed"
    pins: Path | None = None
    changed_tools: Literal["deny", "flag"] = "deny"
    evidence: str | None = None
    monitor: str | None = None

    @property
    def trust_domain(self) -> str | None:
        """That of the agent behind it."""
        return SpiffeId.parse(self.agent_id).trust_domain if self.agent_id is not None else None

    @property
    def action_type(self) -> ActionType:
        """What a request to it is, or, where its tunnels are not intercepted, a tunnel."""
        return ActionType.TUNNEL if self.passthrough else ACTION_TYPES[self.kind]
