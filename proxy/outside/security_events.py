"""What a webhook tells of the log: Security Event Tokens (RFC 8417), each made of one entry and the BETs about it.

Nothing of an action's parameters is in them. The `jti` follows from the log and the entry, so that a receiver knows
again what it is told twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ...bindings.policy import QUARANTINED
from ...evidence import bet
from ...evidence.entry import DELEGATION_REVOKED, HOLD_DEMANDED, HOLD_ENDED, OWN_TYPES, QUARANTINE, RELEASE
from ...formats import base64url, jws
from ...formats.canonical import canonical
from ...formats.jws import Signer

TYP = "secevent+jwt"
URN = "urn:lictor:event:"
_OWN = {
    QUARANTINE: ("quarantine", "agent-quarantined"),
    RELEASE: ("quarantine", "agent-released"),
    HOLD_DEMANDED: ("hold", "hold-demanded"),
    HOLD_ENDED: ("hold", "hold-ended"),
    DELEGATION_REVOKED: ("revocation", "delegation-revoked"),
}
_SAID = (
    "agent",
    "by",
    "why",
    "cause",
    "hold",
    "until",
    "action_types",
    "targets",
    "workflow",
    "node",
    "wid",
    "direction",
)
MARKS = tuple(
    mark.encode()
    for mark in (
        *(f'"action_type":"{type_}"' for type_ in _OWN),
        '"decision":"deny"',
        '"decision":"flag"',
        '"decision":"hold"',
        '"decision_of":',
    )
)
"""One of these is in the canonical bytes of every entry that is told."""


def kind_of(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Which of `webhook_settings.KINDS` an entry is, and the last part of its event's URN; None for what is not told.

    What an agent in quarantine goes on trying is not told: that it is there was.
    """
    if "outcome_of" in entry:
        return None
    if entry["action_type"] in OWN_TYPES:
        return _OWN.get(entry["action_type"])
    if "decision_of" in entry:
        return "hold", "action-decided"
    if entry["decision"] == "hold":
        return "hold", "action-held"
    if entry["decision"] not in ("deny", "flag") or entry["reason"] == QUARANTINED:
        return None
    return "violation", "violation"


def event_of(entry: Mapping[str, Any], evidence: Iterable[str]) -> dict[str, Any]:
    """What happened, to whom, by which behaviors, and the BETs that say so."""
    parameters = entry["action_parameters"]
    if entry["action_type"] in OWN_TYPES:
        said = {key: parameters[key] for key in _SAID if key in parameters}
    else:
        said = {key: entry[key] for key in ("action_type", "action_target", "decision", "reason", "wid", "node")}
        said |= {"agent": entry["agent_id"]} | {key: entry[key] for key in ("decision_of", "by", "why") if key in entry}
        failed = [one for one in entry["behaviors"] if one["result"] != "pass"]
        said["behaviors"] = [{key: one[key] for key in ("policy_id", "version", "behavior_id")} for one in failed]
    return {**said, "entry": entry["seq"], "bets": [{"jti": jti_of_bet(token), "token": token} for token in evidence]}


def sign(
    entry: Mapping[str, Any], name: str, event: Mapping[str, Any], monitor: Mapping[str, str], signer: Signer
) -> str:
    """The token; `monitor` has its `iss`, the log's `origin`, and the `aud` that it is for."""
    claims = {
        "iss": monitor["iss"],
        "aud": monitor["aud"],
        "iat": int(entry["timestamp"]),
        "toe": int(entry["timestamp"]),
        "jti": jti(monitor["origin"], entry["seq"]),
        "sub_id": {"format": "uri", "uri": event["agent"]},
        "events": {URN + name: {**event, "origin": monitor["origin"]}},
    }
    return jws.sign_compact({"typ": TYP}, canonical(claims), signer)


def jti(origin: str, seq: int) -> str:
    """The id of what is told of an entry: SHA-256 over log and number, base64url."""
    return base64url.encode(hashlib.sha256(f"{origin}\n{seq}".encode()).digest())


def jti_of_bet(token: str) -> str:
    return str(_claims(token)["jti"])


def is_about(token: str, seq: int) -> bool:
    """Whether a BET was issued because of this entry."""
    ext = _claims(token).get("ext", {})
    return bool(ext.get("trigger") == "violation" and ext.get("checkpoint_size") == seq + 1)


def _claims(token: str) -> dict[str, Any]:
    return jws.parse_compact(token, typ=frozenset({bet.TYP})).claims()
