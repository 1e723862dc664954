"""What the data plane hands to the recorder, what it gets back, and the entries that are made of it.

An entry is a JSON object whose canonical bytes are made once (`Ledger.add`, which sets `seq` and `timestamp`). That of
an action has `agent_id`, `action_type`, `action_target`, `action_parameters`, `decision`, `reason`, `behaviors`, `wid`,
`node`, `lineage`. That of an outcome repeats what it is about and has `outcome_of` and `outcome`. An action that was
held has the decision `hold`, and what became of it is in an entry like it, with `decision_of` and `by`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .lineage import Place
from .salted import SD, sd_digest

OUTCOME_REPEATS = ("agent_id", "action_type", "action_target", "wid", "node")
"""What an outcome entry repeats of the action's."""
RETENTION = "log_retention"
KEY_ROTATION = "key_rotation"
DURABILITY = "log_durability"
EXTENSIONS = "extensions"
DESCRIPTION = "monitor_description"
QUARANTINE = "agent_quarantine"
RELEASE = "agent_release"
APPROVAL = "standing_approval"
APPROVAL_REVOKED = "standing_approval_revoked"
DELEGATION_REVOKED = "delegation_revoked"
HOLD_DEMANDED = "hold_demanded"
HOLD_ENDED = "hold_ended"
OWN_TYPES = frozenset(
    (
        RETENTION,
        KEY_ROTATION,
        DURABILITY,
        EXTENSIONS,
        DESCRIPTION,
        QUARANTINE,
        RELEASE,
        APPROVAL,
        APPROVAL_REVOKED,
        DELEGATION_REVOKED,
        HOLD_DEMANDED,
        HOLD_ENDED,
    )
)
"""Action types of entries that a monitor makes about itself."""


@dataclass(frozen=True, slots=True)
class ActionDraft:
    """A judged action of a local agent, before it is recorded.

    `behaviors` are `BehaviorResult.to_json()` objects, `execution_context` the raw header lines that the agent sent,
    `audience` (for a delegation) the ids of who will verify the evidence that goes along. `disclosures` are the values
    that are kept beside the entry (see `disclosure`), of which it holds the digests only.
    """

    agent_id: str
    action_type: str
    action_target: str
    action_parameters: Mapping[str, Any]
    decision: str
    reason: str
    behaviors: Sequence[Mapping[str, str]]
    execution_context: Sequence[str] = ()
    traceparent: str | None = None
    audience: Sequence[str] = ()
    disclosures: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class OutcomeDraft:
    """How the action `outcome_of` (its seq) ended: status, byte counts, response digest, duration, complete or not."""

    outcome_of: int
    outcome: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InboundDraft:
    """A delegation to the local agent `agent_id` from the mTLS peer `peer_id`, as `admission.examine` made it.

    `parents` are the peer's verified nodes (`jti`, `wid`, `agent_id`, `issuer`, `iat`, `parents`, `token`), all of the
    workflow `wid` (None if they name none); `evidence` is what the entry keeps of the verified BETs, `checkpoint` the
    signed note that shows who witnessed the log they rest on, "" where none came along. With a `decision`
    of deny neither is recorded, `reason` is machine-readable and `detail` says it in words. `behaviors` are those that
    let it pass so far. `depth` counts the delegations of the workflow, this one included, and `scores` are the lowest
    `perf_score` by `perf_profile`, both as the peer's nodes state them. `within`: digests of bindings, group by group,
    none of which those of the local agent may exceed.
    """

    agent_id: str
    peer_id: str
    action_target: str
    action_parameters: Mapping[str, Any]
    decision: str
    reason: str
    detail: str = ""
    wid: str | None = None
    parents: Sequence[Mapping[str, Any]] = ()
    evidence: Sequence[Mapping[str, Any]] = ()
    traceparent: str | None = None
    behaviors: Sequence[Mapping[str, str]] = ()
    depth: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    within: Sequence[Sequence[str]] = ()
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What becomes of an action that is held: `reason` is machine-readable, `by` says who decided.

    `why` is what that one gave as the reason, in words. Of a denial: what the agent may do instead, and the behavior to
    blame (JSON).
    """

    allows: bool
    reason: str
    by: str
    hint: str = ""
    why: str = ""
    behavior: Mapping[str, str] | None = None


class Receipt(NamedTuple):
    """The entry is durable. `execution_context` and `behavioral_evidence` are header lines to add, never to replace.

    Of a delegation going out: the node and the evidence for the callee. Of a denied action: the evidence for the
    agent. Of a delegation that came in: the local agent's node; `node` names it to the recorder. Of what was denied
    only here: `detail` says in words why, or what to do instead, and `behavior` is the one that denied it (JSON).
    `checkpoint` goes along with the evidence for a callee (`witnessed`), where the log has witnesses.
    """

    seq: int
    timestamp: float
    decision: str
    reason: str
    wid: str
    node: str
    execution_context: tuple[str, ...] = ()
    behavioral_evidence: tuple[str, ...] = ()
    detail: str = ""
    behavior: Mapping[str, str] | None = None
    checkpoint: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """Header lines: an agent's node, its evidence, and who witnessed the log that this rests on (`witnessed`)."""

    execution_context: tuple[str, ...] = ()
    behavioral_evidence: tuple[str, ...] = ()
    checkpoint: tuple[str, ...] = ()


def action_fields(draft: ActionDraft, place: Place) -> dict[str, Any]:
    """The entry of an action, without `seq` and `timestamp`."""
    kept = {SD: sorted(map(sd_digest, draft.disclosures))} if draft.disclosures else {}
    return {
        "agent_id": draft.agent_id,
        "action_type": draft.action_type,
        "action_target": draft.action_target,
        "action_parameters": {**draft.action_parameters, **kept},
        "decision": draft.decision,
        "reason": draft.reason,
        "behaviors": draft.behaviors,
        "wid": place.wid,
        "node": place.node,
        "lineage": place.how,
    }


def came_along(draft: InboundDraft) -> dict[str, Any]:
    """The parameters of a delegation that came in with evidence that holds."""
    return {
        **draft.action_parameters,
        "caller": draft.parents[0]["agent_id"],
        "parents": [parent["jti"] for parent in draft.parents],
        "evidence": draft.evidence,
        **({} if draft.depth is None else {"depth": draft.depth}),
        **({"scores": draft.scores} if draft.scores else {}),
        **({"within": draft.within} if draft.within else {}),
        **({"checkpoint": draft.checkpoint} if draft.checkpoint else {}),
    }


def refused_arrival(draft: InboundDraft) -> ActionDraft:
    """A delegation that may not be taken up, as what its caller did: no stain on the agent that it was meant for."""
    parameters = {**draft.action_parameters, "callee": draft.agent_id, "refused": draft.detail}
    return ActionDraft(draft.peer_id, "delegation", draft.action_target, parameters, "deny", draft.reason, ())


def inbound_fields(draft: InboundDraft, place: Place) -> dict[str, Any]:
    """The entry of a delegation that came in: `direction` tells it from one that the agent made itself."""
    return {
        "agent_id": draft.agent_id,
        "action_type": "delegation",
        "action_target": draft.action_target,
        "action_parameters": {"direction": "inbound", "peer": draft.peer_id, **came_along(draft)},
        "decision": draft.decision,
        "reason": draft.reason,
        "behaviors": [],
        "wid": place.wid,
        "node": place.node,
        "lineage": place.how,
    }


def decision_fields(
    draft: ActionDraft, place: Place, seq: int, resolution: Resolution, behaviors: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """The entry that says what became of the held action of entry `seq`, and who decided."""
    return {
        "agent_id": draft.agent_id,
        "action_type": draft.action_type,
        "action_target": draft.action_target,
        "action_parameters": {"callee": draft.action_parameters["callee"]} if arrives(draft) else {},
        "decision": "allow" if resolution.allows else "deny",
        "decision_of": seq,
        "by": resolution.by,
        **({"why": resolution.why} if resolution.why else {}),
        "reason": resolution.reason,
        "behaviors": behaviors,
        "wid": place.wid,
        "node": place.node,
        "lineage": place.how,
    }


def draft_of(entry: Mapping[str, Any]) -> tuple[ActionDraft, Place]:
    """What the entry of an action was made of, as far as it still tells."""
    names = "agent_id", "action_type", "action_target", "action_parameters", "decision", "reason", "behaviors"
    return ActionDraft(*(entry[name] for name in names)), Place(entry["wid"], entry["node"], entry["lineage"])


def arrives(draft: ActionDraft) -> bool:
    """Whether this is a delegation to a local agent, as what its caller did."""
    return "callee" in draft.action_parameters


def own_fields(monitor_id: str, action_type: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of what the monitor itself does to its log. It is in no window and has no outcome."""
    return {
        "agent_id": monitor_id,
        "action_type": action_type,
        "action_target": monitor_id,
        "action_parameters": parameters,
        "decision": "allow",
        "reason": "monitor",
        "behaviors": [],
        "wid": "",
        "node": "",
        "lineage": "root",
    }


def needs_judgement(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is an action of the agent, not an outcome or a delegation that came in from elsewhere."""
    return "outcome_of" not in entry and entry["action_parameters"].get("direction") != "inbound"


def awaits_outcome(entry: Mapping[str, Any]) -> bool:
    """Whether an entry says that an action went on its way, so that its outcome follows."""
    if "outcome_of" in entry or entry["decision"] in ("deny", "hold") or entry["action_type"] in OWN_TYPES:
        return False
    return went_on(entry)


def went_on(entry: Mapping[str, Any]) -> bool:
    """False for one that lets a delegation in that was held: the entry of its arrival follows, and counts instead."""
    return "decision_of" not in entry or "callee" not in entry["action_parameters"]


def outcome_fields(action: Mapping[str, Any], draft: OutcomeDraft) -> dict[str, Any]:
    """The entry of an outcome; `action` are the `OUTCOME_REPEATS` of the action's entry."""
    return {**action, "action_parameters": {}, "outcome_of": draft.outcome_of, "outcome": draft.outcome}
