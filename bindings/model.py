"""The values that judging works on: what an agent does (Action) and what was decided about it (Decision)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ActionType(StrEnum):
    """The closed vocabulary of observable actions."""

    TOOL_CALL = "tool_call"
    DATA_SOURCE_ACCESS = "data_source_access"
    MODEL_INFERENCE = "model_inference"
    DELEGATION = "delegation"
    HTTP_REQUEST = "http_request"
    TUNNEL = "tunnel"
    WEBSOCKET_MESSAGE = "websocket_message"
    DNS_QUERY = "dns_query"
    PROCESS_EXEC = "process_exec"
    FILE_READ = "file_read"
    FILE_WRITE = "file_write"
    NETWORK_CONNECT = "network_connect"
    SYSCALL = "syscall"


class Verdict(StrEnum):
    """What happens to an action, the mildest first."""

    ALLOW = "allow"
    FLAG = "flag"
    HOLD = "hold"
    DENY = "deny"

    @property
    def weight(self) -> int:
        """Where several behaviors speak, the verdict of the greatest weight counts."""
        return _WEIGHTS[self]


_WEIGHTS = {verdict: weight for weight, verdict in enumerate(Verdict)}


@dataclass(frozen=True, slots=True)
class Action:
    """One judged thing that an agent does.

    `target` is a URN of the catalog (with `#tools/<name>` for an MCP tool) or, for `http_request`, the URL without its
    query. `parameters` is what the entry keeps: method, sizes, digests; JSON values only. `content` is what criteria on
    parameters look at (see `classification`); it is in memory only, and None unless a behavior asks for it.
    """

    agent_id: str
    type: ActionType
    target: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BehaviorResult:
    """What one behavior said of one action: `result` is "pass" or "fail"."""

    policy_id: str
    version: str
    binding: str
    """Digest of the binding: base64url SHA-256 of its canonical form."""
    behavior_id: str
    result: str

    def to_json(self) -> dict[str, str]:
        return {
            "policy_id": self.policy_id,
            "version": self.version,
            "binding": self.binding,
            "behavior_id": self.behavior_id,
            "result": self.result,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The judgement of one action.

    `reason` is machine-readable: `allowed`, `default_deny` (no behavior observes this action for this agent), what the
    criteria say (`not_in_allowlist`, …; after `audit:` if the binding only watches), `quarantined`, or what the monitor
    itself refuses (`monitor_error`, `unparsable_body`, `name_mismatch`, …).
    `hint` is one sentence for the agent: what it may do instead. It never lists the policy.
    """

    verdict: Verdict
    reason: str
    behaviors: tuple[BehaviorResult, ...] = ()
    hint: str = ""
    blamed: BehaviorResult | None = None
    """Of what is denied or held: the behavior that `reason` is about, if it is about one."""

    @property
    def allowed(self) -> bool:
        return self.verdict in (Verdict.ALLOW, Verdict.FLAG)

    @property
    def denied(self) -> bool:
        """What is neither allowed nor denied is held, and its receipt says what became of it."""
        return self.verdict is Verdict.DENY


@dataclass(frozen=True, slots=True)
class Behavior:
    """One behavior descriptor of a binding. `severity`: low, medium, high, critical.

    `on_violation`: deny; flag (let pass and report); hold (a person decides); quarantine (deny this, and from then on
    everything that the agent does). `targets` are patterns: of the observed types it judges only the actions on these
    targets; None: on all. `keep` names what of the content of such actions is kept (see `keep`); None: nothing.
    """

    behavior_id: str
    description: str
    observable_actions: frozenset[ActionType]
    criteria: Mapping[str, Any]
    severity: str = "high"
    on_violation: str = "deny"
    targets: tuple[str, ...] | None = None
    keep: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """A Policy-Behavior Binding as loaded: `digest` is over the canonical form of the file's object."""

    policy_id: str
    version: str
    subjects: tuple[str, ...]
    behaviors: tuple[Behavior, ...]
    evaluation_mode: str
    mode: str
    digest: str
    document: Mapping[str, Any]
