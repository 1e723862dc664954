"""What is known of a delegation when it is judged: where it goes, how deep it is, and what the caller's side shows.

It is read from the parameters of the delegation's entry, so that what was judged is what is on record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..formats.errors import FormatError
from ..formats.signed_note import Note, parse_note


@dataclass(frozen=True, slots=True)
class Shown:
    """One verified BET of the caller: its policy, its result, and until when (NumericDate) it tells of the agent.

    `level` is its assurance level: 2 signed, 3 signed and of a log that it names.
    """

    policy: str
    result: str
    until: float
    level: int = 2


@dataclass(frozen=True, slots=True)
class Handed:
    """One delegation. `inbound`: it came in; then `shown` and `scores` are what the caller's monitor stated.

    `to` are the SPIFFE IDs of whom it goes to, as far as the catalog names them. `depth` counts the delegations since
    the workflow began, this one included; None: somebody on the way does not say. `scores` holds the lowest
    `perf_score` by `perf_profile`, of a profile that every node of the caller states. `checkpoint` is of the log that
    the evidence rests on, signed by the caller's monitor; under it stand the cosignatures of witnesses, not verified.
    """

    inbound: bool
    to: tuple[str, ...] = ()
    depth: int | None = None
    shown: tuple[Shown, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Note | None = None


def handed_of(parameters: Mapping[str, Any]) -> Handed | None:
    """From the parameters of a delegation's entry, whoever wrote them; None if they do not say."""
    depth, to, scores = parameters.get("depth"), parameters.get("to", ()), parameters.get("scores", {})
    if not (depth is None or type(depth) is int) or not isinstance(to, list | tuple) or not isinstance(scores, Mapping):
        return None
    if not all(isinstance(one, str) for one in to) or not all(map(_is_number, scores.values())):
        return None
    evidence = parameters.get("evidence")
    if evidence is None:
        return Handed(False, tuple(to), depth)
    if not isinstance(evidence, list | tuple) or not all(map(_is_evidence, evidence)):
        return None
    shown = tuple(Shown(one["policy"], one["result"], float(one["until"]), one.get("level", 2)) for one in evidence)
    try:
        note = parse_note(parameters["checkpoint"]) if "checkpoint" in parameters else None
    except (FormatError, TypeError):
        return None
    return Handed(True, tuple(to), depth, shown, scores, note)


def _is_evidence(one: Any) -> bool:
    if not isinstance(one, Mapping) or not _is_number(one.get("until")):
        return False
    return isinstance(one.get("policy"), str) and isinstance(one.get("result"), str) and one.get("level", 2) in (2, 3)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
